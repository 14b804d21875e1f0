//! Groups that clients join by IGMP and MLD, on plain memory: worker, memberships and queries together.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::mode::query::Query;
use anytun_xdp::table::membership::{Memberships, Question, Totals};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::slow::{Bell, Parcel, Way, halves};
use anytun_xdp::worker::snoop::Addressed;

use super::bench::{Bench, CONFIG, Peer, inner};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// Where hosts report to: all routers that speak IGMPv3 (RFC 3376 §4.2.14), or all routers (RFC 2236 §9).
const V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Types of records (RFC 3376 §4.2.12).
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;

/// Alice, bob and carol in one network, and who knows of which group they are members.
struct Net {
    bench: Bench,
    memberships: Memberships,
}

fn alice(bench: &mut Bench) -> &mut Peer {
    &mut bench.alice
}

fn bob(bench: &mut Bench) -> &mut Peer {
    &mut bench.bob
}

fn carol(bench: &mut Bench) -> &mut Peer {
    &mut bench.carol
}

/// The configuration of the bench with `keys` in the network of all.
fn text(keys: &str, tables: &str) -> String {
    let text = CONFIG
        .replace("network = \"lab\"", "network = \"office\"")
        .replace("prefixes = [\"10.9.0.11/32\"]", "prefixes = [\"10.9.0.11/32\", \"fd00:9::11/128\"]");
    text.replace("name = \"office\"\n[[", &format!("name = \"office\"\n{keys}\n[[")) + tables
}

fn net(keys: &str, tables: &str) -> Net {
    let mut bench = Bench::introduced(Kernel::default(), 1024);
    bench.configure(&text(keys, tables));
    let mut memberships = Memberships::default();
    memberships.adopt(None, &bench.tables.load(), 0);
    Net { bench, memberships }
}

impl Net {
    /// A client sends an inner packet.
    fn send(&mut self, who: fn(&mut Bench) -> &mut Peer, payload_type: u16, packet: &[u8]) {
        let peer = who(&mut self.bench);
        let frame = peer.seal(peer.sequence, payload_type, packet);
        peer.sequence += 1;
        let port = usize::from(peer.mux == 2);
        self.bench.arrive(port, &frame);
    }

    /// A client reports about the group in IGMPv3.
    fn report(&mut self, who: fn(&mut Bench) -> &mut Peer, kind: u8) {
        let source = who(&mut self.bench).inner;
        self.send(who, 0x0800, &igmp(source, V3_ROUTERS, 1, &v3(&[kind])));
        self.bench.turn();
    }

    /// What whoever knows the members does at a time.
    fn learn(&mut self, now: u64) {
        let Self { bench, memberships } = self;
        let tables = bench.tables.load_full();
        while let Some((generation, change)) = bench.snoop.take() {
            memberships.take(&tables, generation, change, now);
        }
        memberships.tick(now);
        if let Some(joined) = memberships.snapshot(&tables) {
            tables.joined.store(Arc::new(joined));
        }
        while let Some(ask) = memberships.ask(now) {
            let query = Query::new(ask.question, tables.snooped(ask.network).expect("a network that learns"));
            bench.snoop.ask(Addressed { generation: tables.generation, client: ask.client, query });
        }
    }

    /// What each client got, as inner packets of a type.
    fn got(&mut self, payload_type: u16) -> [Vec<Vec<u8>>; 3] {
        let Bench { alice, bob, carol, .. } = &self.bench;
        let mut got = [const { Vec::new() }; 3];
        let muxes = [alice.mux, bob.mux, carol.mux];
        let mut frames = self.bench.sent(0);
        frames.extend(self.bench.worker.io_mut().sent(1));
        let Bench { alice, bob, carol, .. } = &self.bench;
        for frame in frames {
            // The last octet of the outer destination.
            let place = muxes.iter().position(|mux| *mux == u16::from(frame[33])).expect("a client");
            got[place].push([alice, bob, carol][place].open_as(payload_type, &frame).1);
        }
        got
    }

    /// How many packets to the group alice, bob and carol get when alice sends one.
    fn reached(&mut self) -> [usize; 3] {
        let source = self.bench.alice.inner;
        self.send(alice, 0x0800, &inner(source, GROUP, 64, 84));
        let got = self.got(0x0800);
        assert!(got.iter().flatten().all(|packet| *packet == inner(source, GROUP, 63, 84)));
        got.map(|packets| packets.len())
    }

    fn totals(&self) -> Totals {
        self.memberships.totals().next().map(|(_, totals)| totals).unwrap_or_default()
    }

    /// Fails unless every packet that was received or made has one verdict.
    fn ensure_verdicts(&mut self) {
        let counted: u64 = Verdict::ALL.iter().map(|verdict| self.bench.count(*verdict)).sum();
        let counters = &self.bench.counters;
        assert_eq!(counted, counters.rx_packets() + counters.copies() + counters.injected());
        assert!(self.bench.worker.io_mut().ledger().holds());
    }
}

/// A message of IGMP in a packet with router alert (RFC 2113).
fn igmp(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x46, 0xc0, 0, 0, 0, 0, 0x40, 0, ttl, 2, 0, 0];
    packet[2..4].copy_from_slice(&(24 + message.len() as u16).to_be_bytes());
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&[0x94, 4, 0, 0]);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&message);
    packet
}

/// A report of version 3 with a record of each of these types, all about the group and without sources.
fn v3(kinds: &[u8]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, kinds.len() as u8];
    for kind in kinds {
        message.extend_from_slice(&[*kind, 0, 0, 0]);
        message.extend_from_slice(&GROUP.octets());
    }
    message
}

/// A message of version 2 about the group.
fn v2(kind: u8) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &GROUP.octets()].concat()
}

/// A message of MLDv1 about the group, from a link-local address, with router alert (RFC 2710 §3, RFC 2711).
fn mld(kind: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 0, 1];
    packet.extend_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).octets());
    packet.extend_from_slice(&GROUP6.octets());
    packet.extend_from_slice(&[58, 0, 5, 2, 0, 0, 1, 0]);
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6.octets()].concat();
    let pseudo = [&packet[8..40], &[0, 0, 0, 24, 0, 0, 0, 58], &message[..]].concat();
    packet.extend_from_slice(&message);
    packet[50..52].copy_from_slice(&checksum::of(&pseudo).to_be_bytes());
    packet
}

#[test]
fn who_reports_gets_what_is_sent_until_it_has_left() {
    let mut net = net("snooping = true", "");
    assert_eq!(net.reached(), [0, 0, 0]);
    assert_eq!(net.bench.count(Verdict::NoMember), 1);
    net.report(bob, TO_EXCLUDE);
    let source = net.bench.carol.inner;
    net.send(carol, 0x0800, &igmp(source, GROUP, 1, &v2(0x16)));
    assert_eq!(net.got(0x0800).map(|packets| packets.len()), [0, 0, 0], "no host gets a report");
    net.learn(1_000);
    assert_eq!((net.bench.count(Verdict::Membership), net.totals().members), (2, 2));
    assert_eq!(net.reached(), [0, 1, 1]);
    net.report(bob, TO_INCLUDE);
    net.learn(2_000);
    let [near, asked, far] = net.got(0x0800);
    assert_eq!((near.len(), far.len()), (0, 0), "nobody else is asked");
    let snooped = *net.bench.tables.load().snooped(0).expect("a network that learns");
    assert_eq!(asked, [Query::new(Question::Group(mapped(GROUP.octets())), &snooped).packet()]);
    assert_eq!(net.reached(), [0, 1, 1], "it is a member until it had time to answer");
    net.learn(3_000);
    assert_eq!(net.got(0x0800).map(|queries| queries.len()), [0, 1, 0]);
    net.learn(4_000);
    assert_eq!(net.reached(), [0, 0, 1]);
    net.send(carol, 0x0800, &igmp(source, ROUTERS, 1, &v2(0x17)));
    net.bench.turn();
    for now in [5_000, 6_000, 7_000] {
        net.learn(now);
    }
    assert_eq!(net.got(0x0800).map(|queries| queries.len()), [0, 0, 2]);
    assert_eq!(net.reached(), [0, 0, 0]);
    net.report(carol, TO_EXCLUDE);
    net.learn(8_000);
    assert_eq!(net.reached(), [0, 0, 1], "and it can come back");
    net.learn(8_000 + 2 * 125_000 + 10_000);
    assert_eq!(net.reached(), [0, 0, 0], "who is silent for long is forgotten");
    net.ensure_verdicts();
}

#[test]
fn groups_of_ipv6_are_joined_by_mld() {
    let mut net = net("snooping = true", "");
    net.send(bob, 0x86dd, &mld(131));
    net.bench.turn();
    net.learn(1_000);
    assert_eq!((net.bench.count(Verdict::Membership), net.totals().members), (1, 1));
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 253, 64];
    packet.extend_from_slice(&Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x11).octets());
    packet.extend_from_slice(&GROUP6.octets());
    packet.extend_from_slice(&[7; 8]);
    net.send(alice, 0x86dd, &packet);
    packet[7] = 63;
    assert_eq!(net.got(0x86dd), [vec![], vec![packet], vec![]]);
    net.send(bob, 0x86dd, &mld(132));
    net.bench.turn();
    net.learn(2_000);
    let [_, asked, _] = net.got(0x86dd);
    let snooped = *net.bench.tables.load().snooped(0).expect("a network that learns");
    assert_eq!(asked, [Query::new(Question::Group(GROUP6.octets()), &snooped).packet()]);
    net.learn(3_000);
    net.learn(4_000);
    assert_eq!(net.totals().members, 0);
    net.got(0x86dd);
    net.ensure_verdicts();
}

#[test]
fn nobody_joins_for_another_or_by_what_is_no_report() {
    let mut net = net("snooping = true", "");
    let [own, other] = [net.bench.alice.inner, net.bench.bob.inner];
    let message = v3(&[TO_EXCLUDE]);
    let mut forged = igmp(own, V3_ROUTERS, 1, &message);
    forged[26] ^= 1;
    let mut fragment = igmp(own, V3_ROUTERS, 1, &message);
    fragment[6] = 0x20;
    for (verdict, payload_type, packet) in [
        (Verdict::ForeignSource, 0x0800, igmp(other, V3_ROUTERS, 1, &message)),
        (Verdict::LinkScope, 0x0800, forged),
        (Verdict::LinkScope, 0x0800, fragment),
        (Verdict::LinkScope, 0x0800, igmp(own, V3_ROUTERS, 2, &message)),
        (Verdict::LinkScope, 0x0800, igmp(own, Ipv4Addr::new(224, 0, 0, 1), 1, &v2(0x11))),
        (Verdict::NoMember, 0x0800, igmp(own, GROUP, 9, &v2(0x16))),
        (Verdict::LinkScope, 0x86dd, mld(130)),
    ] {
        let before = net.bench.count(verdict);
        net.send(alice, payload_type, &packet);
        net.bench.turn();
        assert_eq!(net.bench.count(verdict), before + 1, "{}", verdict.name());
    }
    // Cut off anywhere, with lengths that agree.
    let whole = igmp(own, V3_ROUTERS, 1, &message);
    for length in 24..whole.len() {
        let mut packet = whole[..length].to_vec();
        packet[3] = length as u8;
        net.send(alice, 0x0800, &packet);
        net.bench.turn();
    }
    assert!(net.bench.snoop.take().is_none() && net.bench.count(Verdict::Membership) == 0);
    net.send(alice, 0x0800, &whole);
    net.bench.turn();
    assert_eq!(net.bench.count(Verdict::Membership), 1, "nothing before kept the good one from its way");
    net.bench.configure(&text("", ""));
    net.send(alice, 0x0800, &whole);
    let before = net.bench.count(Verdict::LinkScope);
    net.bench.turn();
    assert_eq!(net.bench.count(Verdict::LinkScope), before + 1, "a network that does not learn takes no reports");
    net.ensure_verdicts();
}

#[test]
fn members_of_the_configuration_stay_members() {
    let group = format!("[[group]]\nnetwork = \"office\"\naddress = \"{GROUP}\"\nmembers = [\"bob\"]\n");
    let mut net = net("snooping = true", &group);
    assert_eq!(net.reached(), [0, 1, 0]);
    net.report(carol, TO_EXCLUDE);
    net.report(bob, TO_EXCLUDE);
    net.report(alice, TO_EXCLUDE);
    net.learn(1_000);
    assert_eq!(net.reached(), [0, 1, 1], "each once, and the sender none");
    net.report(alice, TO_INCLUDE);
    net.report(bob, TO_INCLUDE);
    net.report(carol, TO_INCLUDE);
    for now in [2_000, 3_000, 4_000] {
        net.learn(now);
    }
    assert_eq!(net.got(0x0800).map(|queries| queries.len()), [2, 2, 2]);
    assert_eq!(net.reached(), [0, 1, 0]);
    net.ensure_verdicts();
}

#[test]
fn a_member_that_goes_while_packets_wait_costs_the_others_none() {
    let mut net = net("snooping = true", "");
    net.report(bob, TO_EXCLUDE);
    net.report(carol, TO_EXCLUDE);
    net.learn(1_000);
    net.report(bob, TO_INCLUDE);
    net.learn(2_000);
    net.learn(3_000);
    assert_eq!(net.got(0x0800).map(|queries| queries.len()), [0, 2, 0]);
    let source = net.bench.alice.inner;
    for length in 100..140 {
        net.send(alice, 0x0800, &inner(source, GROUP, 64, length));
    }
    net.bench.worker.turn(5);
    assert_eq!(net.bench.counters.copies(), 32, "of 16 packets");
    // Bob, who goes, has the lower number.
    net.learn(4_000);
    while net.bench.worker.turn(5) > 0 {}
    let [_, to_bob, to_carol] = net.got(0x0800).map(|packets| packets.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(to_carol, (100..140).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(to_bob, (100..116).collect::<Vec<_>>());
    net.ensure_verdicts();
}

#[test]
fn a_flood_of_reports_leaves_room_for_those_of_others() {
    let mut net = net("snooping = true", "");
    let (flooding, quiet) = (net.bench.alice.inner, net.bench.carol.inner);
    let report = igmp(flooding, V3_ROUTERS, 1, &v3(&[TO_EXCLUDE; 150]));
    for _ in 0..20 {
        net.send(alice, 0x0800, &report);
        net.bench.turn();
    }
    let refused = net.bench.count(Verdict::ReportsLimit);
    assert!(refused > 0 && net.bench.count(Verdict::Membership) > 0, "{refused} of 20");
    net.send(carol, 0x0800, &igmp(quiet, V3_ROUTERS, 1, &v3(&[TO_EXCLUDE])));
    net.bench.turn();
    assert_eq!(net.bench.count(Verdict::ReportsLimit), refused);
    net.learn(1_000);
    assert_eq!(net.memberships.groups_of(2), Some(1));
    assert_eq!(net.bench.totals(0).drops().count(), 0, "what the node has no time for is nobody's drop");
    net.ensure_verdicts();
}

#[test]
fn queries_are_sent_a_few_in_a_turn_and_never_to_another_client() {
    let mut net = net("snooping = true", "");
    let tables = net.bench.tables.load_full();
    let query = Query::new(Question::AllV4, tables.snooped(0).expect("a network that learns"));
    for _ in 0..40 {
        net.bench.snoop.ask(Addressed { generation: tables.generation, client: 2, query });
    }
    let turns: Vec<usize> = (0..4).map(|_| net.bench.worker.turn(5)).collect();
    assert_eq!(turns, [16, 16, 8, 0]);
    let [near, far, carols] = net.got(0x0800);
    assert_eq!((near.len(), far.len(), carols.len()), (0, 0, 40));
    assert!(carols.iter().all(|packet| packet == query.packet()));
    net.bench.snoop.ask(Addressed { generation: tables.generation + 1, client: 2, query });
    assert_eq!(net.bench.worker.turn(5), 0, "by other tables the number may be another's");
    assert_eq!(net.bench.counters.injected(), 40);
    for _ in 0..1_000 {
        net.bench.snoop.ask(Addressed { generation: tables.generation, client: 1, query });
    }
    assert!(!net.bench.snoop.has_room());
    while net.bench.worker.turn(5) > 0 {}
    assert_eq!(net.got(0x0800)[1].len(), 256, "what finds no room is as lost on its way");
    net.ensure_verdicts();
}

#[test]
fn what_the_kernel_sends_to_a_group_reaches_who_has_joined_it() {
    let mut net = net("snooping = true\naddress = \"10.9.0.1/24\"", "");
    let (half, mut thread) = halves(8, 1600, Arc::new(Bell::new(|| ())), Bell::new(|| ()));
    net.bench.worker.connect(half);
    let packet = inner(Ipv4Addr::new(10, 9, 0, 1), GROUP, 4, 84);
    let mut inject = || {
        let mut parcel = Parcel::new(1600);
        parcel.memory()[..packet.len()].copy_from_slice(&packet);
        parcel.set(Way::Device(0), packet.len());
        thread.send(&mut parcel).expect("an empty parcel");
    };
    inject();
    net.bench.turn();
    assert_eq!(net.bench.count(Verdict::LinkScope), 1, "nobody has");
    net.report(bob, TO_EXCLUDE);
    net.learn(1_000);
    inject();
    assert_eq!(net.got(0x0800), [vec![], vec![packet.clone()], vec![]]);
    net.ensure_verdicts();
}
