//! A network with an address of the node, on plain memory: what the kernel gets, and what comes from it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anytun_common::verdict::Verdict;
use anytun_common::wire::checksum;
use anytun_xdp::mode::icmp::Kind;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::slow::{Bell, Parcel, ThreadHalf, Way, halves};

use super::bench::{Bench, CONFIG, inner};
use super::sizes::whole;

/// The node's address in the network `office`, and one that nobody has.
const HOME: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 99);
/// A host that the kernel routes for.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A bench whose network `office` has an address of the node, and the thread's end of its slow path.
struct Home {
    bench: Bench,
    thread: ThreadHalf,
    /// How often the thread was woken.
    woken: Arc<AtomicU64>,
    bell: Arc<Bell>,
}

fn home(keys: &str, parcels: usize, frames: usize) -> Home {
    let mut bench = Bench::introduced(Kernel::default(), frames);
    let keys = format!("name = \"office\"\naddress = \"10.9.0.1/24\"\n{keys}\n[[");
    let text = CONFIG.replace("name = \"office\"\n[[", &keys);
    assert_ne!(text, CONFIG);
    bench.configure(&text);
    let woken = Arc::new(AtomicU64::new(0));
    let count = woken.clone();
    let bell = Arc::new(Bell::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let (half, thread) = halves(parcels, 1600, bell.clone(), Bell::new(|| ()));
    bench.worker.connect(half);
    Home { bench, thread, woken, bell }
}

impl Home {
    /// What the kernel gets, in order.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(parcel) = self.thread.take() {
            assert_eq!(parcel.way(), Way::Device(0));
            packets.push(parcel.packet().to_vec());
            self.thread.give_back(parcel);
        }
        packets
    }

    /// Lets the kernel send a packet.
    fn inject(&mut self, packet: &[u8]) {
        let mut parcel = Parcel::new(1600);
        parcel.memory()[..packet.len()].copy_from_slice(packet);
        parcel.set(Way::Device(0), packet.len());
        self.thread.send(&mut parcel, 0).expect("an empty parcel");
    }

    /// A packet of alice's, sent to the node.
    fn alice_sends(&mut self, source: Ipv4Addr, to: Ipv4Addr, length: usize) {
        let frame = self.bench.alice.send(source, to, length);
        self.bench.arrive(0, &frame);
    }
}

#[test]
fn what_is_for_the_node_goes_to_the_kernel_as_it_was() {
    let mut home = home("", 8, 512);
    let alice = home.bench.alice.inner;
    home.bell.doze();
    for length in [20, 84, 1400] {
        home.alice_sends(alice, HOME, length);
        home.bench.turn();
    }
    let expected: Vec<_> = [20, 84, 1400].iter().map(|&length| inner(alice, HOME, 64, length)).collect();
    assert_eq!(home.delivered(), expected, "and the kernel counts the hop");
    assert_eq!(home.bench.count(Verdict::Delivered), 3);
    assert_eq!(home.woken.load(Ordering::Relaxed), 1, "only while the thread sleeps");
    assert_eq!(home.bench.totals(0).drops().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn a_full_slow_path_costs_what_goes_there_and_nothing_else() {
    let mut home = home("", 3, 512);
    let (alice, bob) = (home.bench.alice.inner, home.bench.bob.inner);
    for _ in 0..5 {
        home.alice_sends(alice, HOME, 84);
        home.alice_sends(alice, bob, 84);
    }
    assert_eq!(home.bench.sent(1).len(), 5);
    let counts = [Verdict::Delivered, Verdict::SlowPathShare, Verdict::Forwarded].map(|it| home.bench.count(it));
    assert_eq!(counts, [2, 3, 5], "alice alone gets no more than half");
    assert_eq!(home.bench.totals(0).drops().collect::<Vec<_>>(), [(Verdict::SlowPathShare, 3)]);
    for _ in 0..2 {
        let frame = home.bench.bob.send(bob, HOME, 84);
        home.bench.arrive(1, &frame);
    }
    home.bench.turn();
    let counts = [Verdict::Delivered, Verdict::SlowPathShare, Verdict::SlowPathFull].map(|it| home.bench.count(it));
    assert_eq!(counts, [3, 3, 1], "what bob sends finds room beside it");
    assert_eq!(home.delivered().len(), 3);
    home.alice_sends(alice, HOME, 84);
    home.bench.turn();
    assert_eq!(home.delivered().len(), 1, "it goes on when there is room");
}

#[test]
fn only_what_a_client_may_send_reaches_the_kernel() {
    let mut home = home("kernel_routes = true", 8, 512);
    let (alice, bob) = (home.bench.alice.inner, home.bench.bob.inner);
    for source in [bob, HOME, NOBODY, HOST] {
        home.alice_sends(source, HOME, 84);
        home.alice_sends(source, HOST, 84);
        home.alice_sends(source, bob, 84);
    }
    home.bench.turn();
    assert_eq!(home.bench.count(Verdict::ForeignSource), 12);
    assert_eq!(home.delivered(), Vec::<Vec<u8>>::new());
    // Behind the device there are the clients only, so the kernel would send this one back.
    home.alice_sends(alice, NOBODY, 84);
    home.alice_sends(alice, HOST, 84);
    home.bench.turn();
    assert_eq!(home.bench.count(Verdict::NoRoute), 1);
    assert_eq!(home.delivered(), [inner(alice, HOST, 64, 84)]);
}

#[test]
fn what_the_kernel_sends_is_sealed_for_the_client() {
    let mut home = home("", 128, 512);
    let bob = home.bench.bob.inner;
    for (source, length) in [(HOME, 20), (HOME, 1400), (HOST, 84)] {
        home.inject(&inner(source, bob, 64, length));
        assert_eq!(home.bench.worker.turn(5), 1);
        let sent = home.bench.sent(1);
        assert_eq!(home.bench.bob.open(&sent[0]).1, inner(source, bob, 64, length), "the kernel has counted the hop");
    }
    assert_eq!((home.bench.count(Verdict::Forwarded), home.bench.totals(1).tx_packets), (3, 3));
    for _ in 0..40 {
        home.inject(&inner(HOME, bob, 64, 84));
    }
    let turns: Vec<usize> = (0..4).map(|_| home.bench.worker.turn(5)).collect();
    assert_eq!(turns, [16, 16, 8, 0], "clients wait for few of them");
    assert_eq!(home.bench.counters.injected(), 43);
    assert_eq!(home.bench.sent(1).len(), 40);
    assert!(home.bench.worker.io_mut().ledger().holds());
}

#[test]
fn what_the_kernel_sends_and_nobody_may_get_ends_under_its_name() {
    let mut home = home("", 128, 512);
    let (alice, bob, carol) = (home.bench.alice.inner, home.bench.bob.inner, home.bench.carol.inner);
    let group = Ipv4Addr::new(224, 0, 0, 22);
    for (verdict, packet) in [
        (Verdict::ForeignSource, inner(alice, bob, 64, 84)),
        (Verdict::NoRoute, inner(HOME, carol, 64, 84)),
        (Verdict::NoRoute, inner(HOME, HOME, 64, 84)),
        (Verdict::LinkScope, inner(HOME, group, 1, 84)),
        (Verdict::MalformedInner, inner(HOME, bob, 64, 84)[..60].to_vec()),
        (Verdict::MalformedInner, Vec::new()),
    ] {
        let before = home.bench.count(verdict);
        home.inject(&packet);
        home.bench.turn();
        assert_eq!(home.bench.count(verdict), before + 1, "{}", verdict.name());
    }
    assert_eq!(home.bench.sent(0).len() + home.bench.sent(1).len(), 0);
    assert!(home.bench.worker.io_mut().ledger().holds());
}

#[test]
fn the_kernel_is_told_by_the_address_that_it_sent_to() {
    let mut home = home("", 128, 512);
    let bob = home.bench.bob.inner;
    // 1500 octets outside: 28 of headers, 8 of SATP, 2 of payload type and 10 of tag.
    let rows = [
        (Kind::Unreachable, [3, 0], 0, NOBODY, whole(inner(HOME, NOBODY, 64, 84))),
        (Kind::TooBig, [3, 4], 1500 - 48, bob, whole(inner(HOME, bob, 64, 1500 - 48 + 1))),
    ];
    for (kind, type_and_code, mtu, to, packet) in rows {
        home.inject(&packet);
        home.bench.turn();
        assert_eq!(home.bench.counters.icmp_errors(kind), 1);
        let answers = home.delivered();
        let [answer] = &answers[..] else { panic!("{} answers", answers.len()) };
        assert_eq!((&answer[12..16], &answer[16..20]), (&to.octets()[..], &HOME.octets()[..]));
        assert_eq!((answer[9], &answer[20..22]), (1, &type_and_code[..]));
        assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), mtu);
        assert_eq!(answer[28..56], packet[..28], "the packet that it is about");
        assert_eq!((checksum::of(&answer[..20]), checksum::of(&answer[20..])), (0, 0));
    }
    home.inject(&inner(HOME, bob, 64, 1500 - 48 + 1));
    home.bench.turn();
    assert_eq!(home.bench.sent(1).len(), 2, "one that may be fragmented is");
    assert!(home.bench.worker.io_mut().ledger().holds());
}

#[test]
fn errors_come_from_the_node_s_own_address() {
    let mut home = home("", 8, 512);
    let alice = home.bench.alice.inner;
    home.alice_sends(alice, NOBODY, 84);
    let sent = home.bench.sent(0);
    let (_, answer) = home.bench.alice.open(&sent[0]);
    assert_eq!((&answer[12..16], &answer[20..22]), (&HOME.octets()[..], &[3, 0][..]));
}

#[test]
fn what_the_kernel_sends_to_all_is_copied_to_each_client() {
    let all = Ipv4Addr::new(10, 9, 0, 255);
    let mut home = home("broadcast = [\"10.9.0.255\"]", 8, 512);
    home.inject(&inner(HOME, all, 1, 84));
    let (near, far) = (home.bench.sent(0), home.bench.worker.io_mut().sent(1));
    assert_eq!((near.len(), far.len()), (1, 1), "alice is behind port 0, bob behind port 1");
    assert_eq!(home.bench.alice.open(&near[0]).1, inner(HOME, all, 1, 84));
    assert_eq!(home.bench.bob.open(&far[0]).1, inner(HOME, all, 1, 84));
    assert_eq!((home.bench.count(Verdict::Copied), home.bench.count(Verdict::Forwarded)), (1, 2));
}
