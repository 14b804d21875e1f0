//! Clients that join groups and leave them, on plain memory. What a node's own thread does between workers and members is done
//! by hand here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::checksum;
use anytun_xdp::mode::icmp::Kind;
use anytun_xdp::mode::query::Query;
use anytun_xdp::table::Tables;
use anytun_xdp::table::membership::{Memberships, Question, Totals, Whereabouts};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::slow::{Bell, Parcel, Way, halves};
use anytun_xdp::worker::snoop::Addressed;

use super::bench::{Bench, CONFIG, inner};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
const NOBODY: [usize; 3] = [0; 3];

/// A bench with three clients in a network that learns from them, and what it has learned.
struct Site {
    bench: Bench,
    memberships: Memberships,
    now: u64,
}

/// The configuration of the bench with all clients in one network with `keys`, and what else there is.
fn config(keys: &str, tables: &str) -> String {
    let text = CONFIG
        .replace("network = \"lab\"", "network = \"office\"")
        .replace("name = \"office\"\n[[", &format!("name = \"office\"\n{keys}\n[["));
    let both = |text: String, host: u8| {
        text.replace(&format!("\"10.9.0.{host}/32\""), &format!("\"10.9.0.{host}/32\", \"fd00:9::{host}/128\""))
    };
    [11, 12, 13].into_iter().fold(text, both) + tables
}

impl Site {
    fn new(keys: &str, tables: &str) -> Self {
        let bench = Bench::introduced(Kernel::default(), 1024);
        let mut site = Self { bench, memberships: Memberships::default(), now: 10 };
        site.bench.configure(&config(keys, tables));
        site.memberships.adopt(None, &site.bench.tables.load(), site.now);
        site.settle();
        site
    }

    /// Lets come to its end what has begun.
    fn settle(&mut self) {
        let tables = self.bench.tables.load_full();
        while self.bench.worker.turn(self.now) > 0 {}
        while let Some((generation, change)) = self.bench.snoop.take() {
            self.memberships.take(&tables, generation, change, self.now);
        }
        self.memberships.tick(self.now);
        while let Some(ask) = self.memberships.ask(self.now) {
            let query = Query::new(ask.question, tables.snooped(ask.network).expect("a network that learns"));
            self.bench.snoop.ask(Addressed { generation: tables.generation, client: ask.client, query });
        }
        if let Some(joined) = self.memberships.snapshot(&tables) {
            tables.joined.store(Arc::new(joined));
        }
        while self.bench.worker.turn(self.now) > 0 {}
        self.bench.worker.turn(self.now);
        let ledger = self.bench.worker.io_mut().ledger();
        assert!(ledger.holds() && ledger.received == 0, "{ledger:?}");
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.settle();
    }

    /// One of the three sends an inner packet.
    fn send(&mut self, client: usize, payload_type: u16, packet: &[u8]) {
        let (port, peer) = match client {
            0 => (0, &mut self.bench.alice),
            1 => (1, &mut self.bench.bob),
            _ => (0, &mut self.bench.carol),
        };
        peer.sequence += 1;
        let frame = peer.seal(peer.sequence - 1, payload_type, packet);
        self.bench.arrive(port, &frame);
        self.settle();
    }

    /// One of the three reports of a group by IGMPv3: a record of this type, without sources.
    fn report(&mut self, client: usize, kind: u8) {
        let source = Ipv4Addr::new(10, 9, 0, 11 + client as u8);
        self.send(client, 0x0800, &igmp(source, &v3(kind, GROUP)));
    }

    /// The inner packets of a payload type that each of the three got since.
    fn got(&mut self, payload_type: u16) -> [Vec<Vec<u8>>; 3] {
        let Bench { worker, alice, bob, carol, .. } = &mut self.bench;
        let mut got = [const { Vec::new() }; 3];
        for port in [0, 1] {
            for frame in worker.io_mut().sent(port) {
                let (place, peer) = match frame[5] {
                    1 => (0, &*alice),
                    2 => (1, &*bob),
                    _ => (2, &*carol),
                };
                got[place].push(peer.open_as(payload_type, &frame).1);
            }
        }
        got
    }

    /// How many of those that `client` sends to the group each gets.
    fn copies(&mut self, client: usize) -> [usize; 3] {
        self.got(0x0800);
        let source = Ipv4Addr::new(10, 9, 0, 11 + client as u8);
        self.send(client, 0x0800, &inner(source, GROUP, 64, 84));
        let got = self.got(0x0800);
        assert!(got.iter().flatten().all(|packet| *packet == inner(source, GROUP, 63, 84)));
        got.map(|got| got.len())
    }

    fn totals(&self) -> Totals {
        self.memberships.totals().map(|(_, totals)| totals).next().expect("a network that learns")
    }

    /// Fails unless every packet that was received, every copy, query and ICMP error has one verdict.
    fn ensure_verdicts(&self) {
        let counted: u64 = Verdict::ALL.iter().map(|verdict| self.bench.count(*verdict)).sum();
        let counters = &self.bench.counters;
        let errors: u64 = Kind::ALL.iter().map(|kind| counters.icmp_errors(*kind)).sum();
        assert_eq!(counted, counters.rx_packets() + counters.copies() + counters.injected() + errors);
    }
}

/// A report of IGMPv3 with one record without sources (RFC 3376 §4.2).
fn v3(kind: u8, group: Ipv4Addr) -> Vec<u8> {
    [&[0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0][..], &group.octets()].concat()
}

/// A message of IGMP in a packet to 224.0.0.22, with router alert (RFC 2113).
fn igmp(source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x46, 0xc0, 0, (24 + message.len()) as u8, 0, 0, 0x40, 0, 1, 2, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&[224, 0, 0, 22, 0x94, 4, 0, 0]);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(message);
    let sum = checksum::of(message);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A report or done of MLDv1 (RFC 2710 §3), behind router alert.
fn mld(kind: u8, source: Ipv6Addr, group: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 0, 1];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&group.octets());
    packet.extend_from_slice(&[58, 0, 5, 2, 0, 0, 1, 0]);
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
    let sum = checksum::of(&[&packet[8..40], &[0, 0, 0, 24, 0, 0, 0, 58], &message[..]].concat());
    packet.extend_from_slice(&message);
    packet[50..52].copy_from_slice(&sum.to_be_bytes());
    packet
}

const JOIN: u8 = 4;
const LEAVE: u8 = 3;

#[test]
fn what_is_sent_to_a_group_reaches_whoever_joined_it() {
    let mut site = Site::new("snooping = true", "");
    assert_eq!(site.copies(0), NOBODY);
    assert_eq!(site.bench.count(Verdict::NoMember), 1);
    site.report(1, JOIN);
    assert_eq!(site.got(0x0800).map(|got| got.len()), NOBODY, "nobody else hears of it");
    assert_eq!(site.copies(0), [0, 1, 0]);
    assert_eq!(site.copies(2), [0, 1, 0]);
    assert_eq!(site.copies(1), NOBODY, "whoever sends gets no copy");
    site.report(0, JOIN);
    site.report(2, JOIN);
    assert_eq!((site.copies(0), site.copies(1)), ([0, 1, 1], [1, 0, 1]));
    assert_eq!(site.bench.count(Verdict::Membership), 3);
    assert_eq!(site.totals(), Totals { groups: 1, members: 3, refused: 0 });
    site.ensure_verdicts();
}

#[test]
fn who_leaves_is_asked_and_gets_no_more() {
    let mut site = Site::new("snooping = true", "");
    site.report(1, JOIN);
    site.report(2, JOIN);
    site.report(1, LEAVE);
    let [alice, bob, carol] = site.got(0x0800);
    assert_eq!((alice.len(), carol.len()), (0, 0), "it is asked alone");
    // RFC 3376 §4.1: about the group, with a second to answer.
    let [query] = &bob[..] else { panic!("{} queries", bob.len()) };
    assert_eq!(
        (&query[16..20], &query[24..26], &query[28..32]),
        (&[239, 1, 2, 3][..], &[0x11, 10][..], &[239, 1, 2, 3][..])
    );
    assert_eq!((query[8], checksum::of(&query[..24]), checksum::of(&query[24..])), (1, 0, 0));
    site.wait(1000);
    assert_eq!(site.got(0x0800).map(|got| got.len()), [0, 1, 0], "and once more");
    assert_eq!(site.copies(0), [0, 1, 1]);
    site.wait(1000);
    assert_eq!(site.copies(0), [0, 0, 1]);
    [123_000, 125_000, 10_000].into_iter().for_each(|milliseconds| site.wait(milliseconds));
    let queries = [0, 1].map(|port| site.bench.worker.io_mut().sent(port).len());
    assert_eq!(queries, [4, 0], "she was asked twice for groups of either family");
    assert_eq!(site.copies(0), NOBODY, "carol has not answered for 260 s");
    site.ensure_verdicts();
}

#[test]
fn every_client_that_was_heard_is_asked_for_its_groups() {
    let mut site = Site::new("snooping = true\naddress = \"10.9.0.1/24\"", "");
    let endpoint = ([0; 16], 4444);
    site.memberships.look(site.now, |client| (client != 2).then_some(Whereabouts { heard: 5, endpoint }));
    site.settle();
    let mut queries = [Vec::new(), Vec::new(), Vec::new()];
    for port in [0, 1] {
        for frame in site.bench.worker.io_mut().sent(port) {
            queries[usize::from(frame[5]) - 1].push(frame);
        }
    }
    let [alice, bob, carol] = queries;
    assert_eq!((alice.len(), bob.len(), carol.len()), (2, 2, 0));
    for (peer, queries) in [(&site.bench.alice, alice), (&site.bench.bob, bob)] {
        let v4 = peer.open_as(0x0800, &queries[0]).1;
        assert_eq!((&v4[12..20], &v4[24..26]), (&[10, 9, 0, 1, 224, 0, 0, 1][..], &[0x11, 100][..]));
        let v6 = peer.open_as(0x86dd, &queries[1]).1;
        assert_eq!((v6[7], v6[8..10].to_vec(), v6[48]), (1, vec![0xfe, 0x80], 130), "from a link-local address");
    }
    assert_eq!(site.bench.counters.injected(), 4);
    site.ensure_verdicts();
}

#[test]
fn groups_of_ipv6_are_joined_from_link_local_addresses() {
    let mut site = Site::new("snooping = true", "");
    let own: Ipv6Addr = "fe80::7".parse().expect("an address");
    let data = |hops: u8| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 253, hops];
        packet.extend_from_slice(&"fd00:9::11".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend_from_slice(&GROUP6.octets());
        packet.extend_from_slice(&[7; 8]);
        packet
    };
    for (kind, source, expected) in [
        (131, own, 1),
        (132, own, 0),
        (131, Ipv6Addr::UNSPECIFIED, 1),
        (132, own, 0),
        // RFC 3810 §5.2.13: from no other address.
        (131, "fd00:9::12".parse().expect("an address"), 0),
        (131, "fd00:9::11".parse().expect("an address"), 0),
    ] {
        site.send(1, 0x86dd, &mld(kind, source, GROUP6));
        site.wait(2000);
        site.bench.worker.io_mut().sent(1);
        site.send(0, 0x86dd, &data(64));
        let [alice, bob, carol] = site.got(0x86dd);
        assert_eq!((alice.len(), carol.len()), (0, 0));
        assert_eq!(bob, vec![data(63); expected], "type {kind} from {source}");
    }
    assert_eq!(site.bench.count(Verdict::Membership), 4);
}

#[test]
fn members_of_the_configuration_and_others_get_one_copy_each() {
    let given = format!("[[group]]\nnetwork = \"office\"\naddress = \"{GROUP}\"\nmembers = [\"bob\"]\n");
    let mut site = Site::new("snooping = true", &given);
    assert_eq!(site.copies(0), [0, 1, 0]);
    site.report(1, JOIN);
    site.report(2, JOIN);
    assert_eq!(site.copies(0), [0, 1, 1]);
    site.report(1, LEAVE);
    site.report(2, LEAVE);
    site.wait(2000);
    assert_eq!(site.copies(0), [0, 1, 0]);
    site.ensure_verdicts();
}

#[test]
fn what_is_no_report_of_the_client_s_own_changes_nothing() {
    let mut site = Site::new("snooping = true", "");
    let (alice, bob) = (site.bench.alice.inner, site.bench.bob.inner);
    let changed = |at: usize, octet: u8| {
        let mut packet = igmp(bob, &v3(JOIN, GROUP));
        packet[at] = octet;
        packet
    };
    for (verdict, packet) in [
        (Verdict::ForeignSource, igmp(alice, &v3(JOIN, GROUP))),
        (Verdict::LinkScope, igmp(Ipv4Addr::new(169, 254, 0, 1), &v3(JOIN, GROUP))),
        (Verdict::LinkScope, changed(8, 2)),
        (Verdict::LinkScope, changed(24, 0x11)),
        (Verdict::LinkScope, changed(31, 2)),
        (Verdict::LinkScope, changed(35, 1)),
        (Verdict::HopLimit, inner(bob, alice, 1, 84)),
    ] {
        let before = site.bench.count(verdict);
        site.send(1, 0x0800, &packet);
        assert_eq!(site.bench.count(verdict), before + 1, "{}", verdict.name());
    }
    assert_eq!((site.bench.count(Verdict::Membership), site.totals()), (0, Totals::default()));
    // RFC 3376 §4.2.13: a host that has no address yet.
    site.send(1, 0x0800, &igmp(Ipv4Addr::UNSPECIFIED, &v3(JOIN, GROUP)));
    assert_eq!((site.bench.count(Verdict::Membership), site.totals().members), (1, 1));
    site.ensure_verdicts();
    let mut deaf = Bench::introduced(Kernel::default(), 1024);
    deaf.configure(&config("", ""));
    let frame = deaf.bob.seal(1000, 0x0800, &igmp(bob, &v3(JOIN, GROUP)));
    deaf.arrive(1, &frame);
    deaf.turn();
    assert_eq!(deaf.count(Verdict::LinkScope), 1, "a network that does not learn");
}

#[test]
fn members_stay_when_clients_get_other_numbers() {
    let mut site = Site::new("snooping = true", "");
    site.report(1, JOIN);
    site.report(2, JOIN);
    let text = config("snooping = true", "");
    let (head, alice) = text.split_once("[[client]]").expect("clients");
    let (alice, others) = alice.split_once("[[client]]").expect("more clients");
    let before = site.bench.tables.load_full();
    site.bench.configure(&format!("{head}[[client]]{others}[[client]]{alice}"));
    site.memberships.adopt(Some(&before), &site.bench.tables.load(), site.now);
    site.settle();
    assert_eq!((site.copies(0), site.copies(1)), ([0, 1, 1], [0, 0, 1]));
}

#[test]
fn a_flood_of_reports_ends_where_it_takes_the_room_of_others() {
    let mut site = Site::new("snooping = true", "");
    let (alice, bob) = (site.bench.alice.inner, site.bench.bob.inner);
    // 16 records of 8 octets.
    let records: Vec<u8> = (0..16).flat_map(|last| [JOIN, 0, 0, 0, 239, 0, 0, last]).collect();
    let packet = igmp(alice, &[&[0x22, 0, 0, 0, 0, 0, 0, 16][..], &records].concat());
    for _ in 0..200 {
        site.bench.alice.sequence += 1;
        let frame = site.bench.alice.seal(site.bench.alice.sequence - 1, 0x0800, &packet);
        site.bench.arrive(0, &frame);
        site.bench.turn();
    }
    let dropped = site.bench.count(Verdict::ReportsLimit);
    assert!(dropped > 100, "{dropped} of 200 reports");
    let frame = site.bench.bob.seal(site.bench.bob.sequence, 0x0800, &igmp(bob, &v3(JOIN, GROUP)));
    site.bench.arrive(1, &frame);
    site.bench.turn();
    assert_eq!(site.bench.count(Verdict::ReportsLimit), dropped, "bob's finds room");
    site.settle();
    assert_eq!(site.totals().groups, 17);
    site.ensure_verdicts();
}

#[test]
fn a_member_that_goes_while_packets_wait_costs_the_others_none() {
    let mut site = Site::new("snooping = true", "");
    site.report(1, JOIN);
    site.report(2, JOIN);
    site.report(1, LEAVE);
    site.wait(1000);
    site.got(0x0800);
    let alice = site.bench.alice.inner;
    for length in 100..140 {
        let frame = site.bench.alice.send(alice, GROUP, length);
        site.bench.arrive(0, &frame);
    }
    site.bench.worker.turn(site.now);
    assert_eq!(site.bench.counters.copies(), 32, "of 16 packets");
    // Bob, who goes, has the lower number.
    site.memberships.tick(site.now + 1000);
    let tables = site.bench.tables.load_full();
    tables.joined.store(Arc::new(site.memberships.snapshot(&tables).expect("bob is no member any more")));
    site.settle();
    let [_, bob, carol] = site.got(0x0800).map(|got| got.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(carol, (100..140).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(bob, (100..116).collect::<Vec<_>>());
    site.ensure_verdicts();
}

#[test]
fn queries_are_sent_a_few_in_a_turn_and_never_to_another_client() {
    let mut site = Site::new("snooping = true", "");
    let tables = site.bench.tables.load_full();
    let query = Query::new(Question::AllV4, tables.snooped(0).expect("a network that learns"));
    let asked = |generation: u64, client: u32| Addressed { generation, client, query };
    for _ in 0..40 {
        site.bench.snoop.ask(asked(tables.generation, 2));
    }
    let turns: Vec<usize> = (0..4).map(|_| site.bench.worker.turn(site.now)).collect();
    assert_eq!(turns, [16, 16, 8, 0]);
    let [alice, bob, carol] = site.got(0x0800);
    assert_eq!((alice.len(), bob.len(), carol.len()), (0, 0, 40));
    assert!(carol.iter().all(|packet| packet == query.packet()));
    let generation = tables.generation + 1;
    site.bench.snoop.ask(asked(generation, 2));
    assert_eq!(site.bench.worker.turn(site.now), 0, "by other tables the number may be another's");
    site.bench.tables.store(Arc::new(Tables { generation, ..(*tables).clone() }));
    assert_eq!(site.bench.worker.turn(site.now), 1, "it waited for its tables");
    site.bench.snoop.ask(asked(tables.generation, 2));
    assert_eq!(site.bench.worker.turn(site.now), 0, "those of old tables go nowhere");
    assert_eq!(site.bench.counters.injected(), 41);
    for _ in 0..1000 {
        site.bench.snoop.ask(asked(generation, 1));
    }
    assert!(!site.bench.snoop.has_room());
    site.settle();
    assert_eq!(site.got(0x0800)[1].len(), 256, "what finds no room is as lost on its way");
    site.ensure_verdicts();
}

#[test]
fn what_the_kernel_sends_to_a_group_reaches_whoever_joined_it() {
    let mut site = Site::new("snooping = true\naddress = \"10.9.0.1/24\"", "");
    let (half, mut thread) = halves(8, 1600, Arc::new(Bell::new(|| ())), Bell::new(|| ()));
    site.bench.worker.connect(half);
    let packet = inner(Ipv4Addr::new(10, 9, 0, 1), GROUP, 4, 84);
    let mut inject = || {
        let mut parcel = Parcel::new(1600);
        parcel.memory()[..packet.len()].copy_from_slice(&packet);
        parcel.set(Way::Device(0), packet.len());
        thread.send(&mut parcel, 0).expect("an empty parcel");
    };
    inject();
    site.settle();
    assert_eq!(site.bench.count(Verdict::LinkScope), 1, "nobody did yet");
    site.report(1, JOIN);
    inject();
    site.settle();
    let [alice, bob, carol] = site.got(0x0800);
    assert_eq!((alice.len(), bob, carol.len()), (0, vec![packet], 0), "the kernel has counted the hop");
    site.ensure_verdicts();
}
