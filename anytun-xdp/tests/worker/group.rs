//! Multicast and broadcast on plain memory.

use std::net::Ipv4Addr;

use anytun_common::verdict::Verdict;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG, inner};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 255);

/// A bench whose three clients are in one network with `keys`, and what else there is.
fn bench(keys: &str, tables: &str) -> Bench {
    let mut bench = Bench::introduced(Kernel::default(), 1024);
    put(&mut bench, keys, tables);
    bench
}

/// Puts such a configuration in force.
fn put(bench: &mut Bench, keys: &str, tables: &str) {
    let text = CONFIG
        .replace("network = \"lab\"", "network = \"office\"")
        .replace("name = \"office\"\n[[", &format!("name = \"office\"\n{keys}\n[["));
    bench.configure(&(text + tables));
}

fn group(members: &str) -> String {
    format!("[[group]]\nnetwork = \"office\"\naddress = \"{GROUP}\"\nmembers = [{members}]\n")
}

/// Fails unless every packet that was received, and every copy, has one verdict.
fn ensure_verdicts(bench: &Bench) {
    let counted: u64 = Verdict::ALL.iter().map(|verdict| bench.count(*verdict)).sum();
    assert_eq!(counted, bench.counters.rx_packets() + bench.counters.copies());
}

#[test]
fn every_member_but_the_sender_gets_one_copy_with_one_hop_less() {
    let mut bench = bench("", &group("\"alice\", \"bob\", \"carol\""));
    let alice = bench.alice.inner;
    for length in [20, 84, 1400] {
        let frame = bench.alice.send(alice, GROUP, length);
        bench.arrive(0, &frame);
        let (near, far) = (bench.sent(0), bench.worker.io_mut().sent(1));
        assert_eq!((near.len(), far.len()), (1, 1), "carol is behind port 0, bob behind port 1");
        assert_eq!(bench.carol.open(&near[0]).1, inner(alice, GROUP, 63, length));
        assert_eq!(bench.bob.open(&far[0]).1, inner(alice, GROUP, 63, length));
    }
    assert_eq!((bench.count(Verdict::Copied), bench.counters.copies(), bench.count(Verdict::Forwarded)), (3, 6, 6));
    assert_eq!([0, 1, 2].map(|client| bench.totals(client).tx_packets), [0, 3, 3]);
    ensure_verdicts(&bench);
}

#[test]
fn a_sender_need_not_be_a_member_and_others_get_nothing() {
    let mut bench = bench("", &group("\"bob\""));
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let frame = bench.alice.send(alice, GROUP, 84);
    bench.arrive(0, &frame);
    let (near, far) = (bench.sent(0), bench.worker.io_mut().sent(1));
    assert_eq!((near.len(), far.len()), (0, 1));
    assert_eq!(bench.bob.open(&far[0]).1, inner(alice, GROUP, 63, 84));
    let frame = bench.bob.send(bob, GROUP, 84);
    bench.arrive(1, &frame);
    assert_eq!((bench.sent(0).len(), bench.worker.io_mut().sent(1).len()), (0, 0), "no other member");
    assert_eq!(bench.count(Verdict::NoMember), 1);
    ensure_verdicts(&bench);
}

#[test]
fn what_may_not_be_copied_ends_under_its_name() {
    let mut bench = bench("", &group("\"alice\", \"bob\", \"carol\""));
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let last_hop = bench.alice.seal(1000, 0x0800, &inner(alice, GROUP, 1, 84));
    for (verdict, frame) in [
        (Verdict::ForeignSource, bench.alice.send(bob, GROUP, 84)),
        (Verdict::LinkScope, bench.alice.send(GROUP, GROUP, 84)),
        (Verdict::LinkScope, bench.alice.send(alice, Ipv4Addr::new(224, 0, 0, 251), 84)),
        (Verdict::LinkScope, bench.alice.send(alice, Ipv4Addr::BROADCAST, 84)),
        (Verdict::NoMember, bench.alice.send(alice, Ipv4Addr::new(239, 1, 2, 4), 84)),
        (Verdict::NoRoute, bench.alice.send(alice, SUBNET, 84)),
        (Verdict::HopLimit, last_hop),
    ] {
        let before = bench.count(verdict);
        bench.arrive(0, &frame);
        bench.turn();
        assert_eq!(bench.count(verdict), before + 1, "{}", verdict.name());
    }
    assert_eq!((bench.count(Verdict::Copied), bench.count(Verdict::Forwarded)), (0, 1), "alice is told of no route");
}

#[test]
fn broadcasts_reach_the_network_where_they_are_named() {
    let mut bench = bench("broadcast = [\"255.255.255.255\", \"10.9.0.255\"]", "");
    let alice = bench.alice.inner;
    for address in [Ipv4Addr::BROADCAST, SUBNET] {
        let frame = bench.alice.send(alice, address, 84);
        bench.arrive(0, &frame);
        let (near, far) = (bench.sent(0), bench.worker.io_mut().sent(1));
        assert_eq!(bench.carol.open(&near[0]).1, inner(alice, address, 63, 84));
        assert_eq!(bench.bob.open(&far[0]).1, inner(alice, address, 63, 84));
        assert_eq!((near.len(), far.len()), (1, 1));
    }
    let frames = [
        (Verdict::ForeignSource, bench.alice.send(SUBNET, alice, 84)),
        (Verdict::HopLimit, bench.alice.seal(1000, 0x0800, &inner(alice, SUBNET, 1, 84))),
    ];
    for (verdict, frame) in frames {
        bench.arrive(0, &frame);
        assert_eq!(bench.sent(0).len(), 0, "nobody is told of a broadcast");
        assert_eq!(bench.count(verdict), 1);
    }
    ensure_verdicts(&bench);
}

#[test]
fn a_flood_to_a_group_leaves_unicast_its_turn_and_is_copied_in_order() {
    let mut bench = bench("", &group("\"bob\", \"carol\""));
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    for length in 100..140 {
        let frame = bench.alice.send(alice, GROUP, length);
        bench.arrive(0, &frame);
    }
    bench.worker.turn(5);
    let first = bench.counters.copies();
    assert_eq!((bench.count(Verdict::Copied), first), (40, 32), "all are taken, and the first copies made");
    let frame = bench.alice.send(alice, bob, 50);
    bench.arrive(0, &frame);
    bench.worker.turn(5);
    assert_eq!(bench.counters.copies(), 2 * first);
    bench.worker.turn(5);
    assert_eq!(bench.counters.copies(), 80);
    bench.turn();
    let lengths: Vec<usize> = bench.worker.io_mut().sent(1).iter().map(|frame| bench.bob.open(frame).1.len()).collect();
    let unicast = lengths.iter().position(|length| *length == 50).expect("the packet to bob alone");
    assert_eq!(unicast, 16, "behind the copies of one turn only");
    assert!(lengths.iter().filter(|length| **length >= 100).copied().eq(100..140), "each once, in order: {lengths:?}");
    assert_eq!(bench.worker.io_mut().sent(0).len(), 40);
    ensure_verdicts(&bench);
}

#[test]
fn one_sender_does_not_take_the_room_of_the_others() {
    let mut bench = bench("", &group("\"alice\", \"bob\", \"carol\""));
    let (alice, carol) = (bench.alice.inner, bench.carol.inner);
    for _ in 0..4 {
        for _ in 0..64 {
            let frame = bench.alice.send(alice, GROUP, 84);
            bench.arrive(0, &frame);
        }
        bench.worker.turn(5);
    }
    assert!(bench.count(Verdict::CopiesLimit) > 0, "more than can wait");
    let before = bench.count(Verdict::CopiesLimit);
    let frame = bench.carol.send(carol, GROUP, 99);
    bench.arrive(0, &frame);
    bench.worker.turn(5);
    assert_eq!(bench.count(Verdict::CopiesLimit), before);
    while bench.worker.turn(5) > 0 {}
    bench.turn();
    let told: u64 = bench.totals(0).drops().map(|(_, count)| count).sum();
    assert_eq!(told, before, "on the account of whoever sent them");
    let from_carol = bench.worker.io_mut().sent(1);
    let from_carol = from_carol.iter().filter(|frame| bench.bob.open(frame).1 == inner(carol, GROUP, 63, 99));
    assert_eq!(from_carol.count(), 1);
    ensure_verdicts(&bench);
}

#[test]
fn a_reload_gives_up_what_waits_and_loses_no_frame() {
    let mut bench = bench("", &group("\"bob\", \"carol\""));
    let alice = bench.alice.inner;
    for _ in 0..40 {
        let frame = bench.alice.send(alice, GROUP, 84);
        bench.arrive(0, &frame);
    }
    bench.worker.turn(5);
    put(&mut bench, "", &group("\"bob\""));
    let frame = bench.alice.send(alice, GROUP, 84);
    bench.arrive(0, &frame);
    bench.turn();
    assert_eq!(bench.count(Verdict::CopiesLimit), 24, "32 copies are of 16 packets");
    assert_eq!(bench.count(Verdict::Forwarded), 33, "one by the new members");
    ensure_verdicts(&bench);
}

#[test]
fn without_frames_copies_are_counted_and_none_is_lost() {
    for kernel in [
        Kernel { tx_ring: 3, complete: 1, ..Kernel::default() },
        Kernel { tx_ring: 0, ..Kernel::default() },
        Kernel { complete: 0, ..Kernel::default() },
    ] {
        let mut bench = bench("", &group("\"alice\", \"bob\", \"carol\""));
        let alice = bench.alice.inner;
        bench.worker.io_mut().kernel = kernel;
        for _ in 0..100 {
            for _ in 0..3 {
                let frame = bench.alice.send(alice, GROUP, 84);
                bench.worker.io_mut().arrive(0, &frame);
            }
            bench.worker.turn(5);
            assert!(bench.worker.io_mut().ledger().holds(), "{kernel:?}");
        }
        bench.worker.io_mut().kernel = Kernel::default();
        while bench.worker.turn(5) > 0 {}
        bench.turn();
        ensure_verdicts(&bench);
        let sent = bench.worker.io_mut().sent(0).len() + bench.worker.io_mut().sent(1).len();
        assert_eq!(sent as u64, bench.count(Verdict::Forwarded), "{kernel:?}");
    }
}

#[test]
fn a_copy_that_is_too_large_is_cut_where_it_may_be() {
    let mut bench = bench("", &group("\"bob\", \"carol\""));
    let alice = bench.alice.inner;
    let mut fits_not = inner(alice, GROUP, 64, 1480);
    fits_not[9] = 17;
    fits_not[10..12].fill(0);
    let sum = anytun_common::wire::checksum::of(&fits_not[..20]);
    fits_not[10..12].copy_from_slice(&sum.to_be_bytes());
    let frame = bench.alice.seal(1000, 0x0800, &fits_not);
    bench.arrive(0, &frame);
    let (near, far) = (bench.sent(0), bench.worker.io_mut().sent(1));
    assert_eq!((near.len(), far.len()), (2, 2), "two fragments for each");
    let whole = |frames: &[Vec<u8>]| frames.iter().map(|frame| bench.bob.open(frame).1.len() - 20).sum::<usize>();
    assert_eq!(whole(&far), 1460);
}
