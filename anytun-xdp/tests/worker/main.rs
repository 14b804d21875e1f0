//! A worker on plain memory, with a kernel that misbehaves on demand: what it forwards, what it drops and under which
//! name, and that no frame is ever lost.

mod batch;
mod bench;
mod datagrams;
mod early;
mod ethernet;
mod expected;
mod group;
mod halves;
mod local;
mod nat;
mod open;
mod sizes;
mod snoop;
mod unresolved;

use std::net::Ipv4Addr;
use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::{BATCH, Stage};

use bench::{Bench, CONFIG, Peer, build, inner};

#[test]
fn a_packet_goes_from_client_to_client_with_one_hop_less() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (from, to) = (bench.alice.inner, bench.bob.inner);
    for length in [20, 21, 84, 1400] {
        let frame = bench.alice.send(from, to, length);
        bench.arrive(0, &frame);
        let sent = bench.sent(1);
        assert_eq!(sent.len(), 1, "{length} octets");
        assert_eq!(bench.bob.open(&sent[0]).1, inner(from, to, 63, length));
    }
    assert_eq!(bench.count(Verdict::Forwarded), 4);
    let (alice, bob) = (bench.totals(0), bench.totals(1));
    assert_eq!((alice.rx_packets, alice.tx_packets), (5, 0));
    assert_eq!((bob.rx_packets, bob.tx_packets), (1, 4));
    // SATP adds 8 octets of header, 2 of payload type and 10 of tag.
    assert_eq!(bob.tx_octets, [20, 21, 84, 1400].map(|length| length + 20).iter().sum::<u64>());
    assert_eq!(alice.rx_octets, bob.tx_octets + 20);
}

#[test]
fn whoever_observes_a_turn_sees_every_stage_in_order() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (from, to) = (bench.alice.inner, bench.bob.inner);
    let frame = bench.alice.send(from, to, 84);
    bench.arrive(0, &frame);
    let mut seen = Vec::new();
    assert_eq!(bench.worker.observed_turn(5, |stage| seen.push(stage)), 1);
    let (close, relayed) = Stage::ALL.split_last().expect("stages");
    // Nothing came on the other port, which was looked at too.
    assert_eq!(seen, [relayed, &[Stage::Receive, *close]].concat());
    assert!(Stage::ALL.iter().enumerate().all(|(index, stage)| *stage as usize == index));
    assert_eq!(bench.count(Verdict::Forwarded), 1);
}

#[test]
fn vlan_tags_are_those_of_the_client_it_goes_to() {
    const TAGS: [&[u8]; 3] = [&[], &[0x81, 0, 0, 10], &[0x88, 0xa8, 0, 20, 0x81, 0, 0xe0, 30]];
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    for (from, to) in [(0, 1), (1, 2), (2, 0), (2, 2), (0, 2), (1, 1)] {
        (bench.alice.tags, bench.bob.tags) = (TAGS[from], TAGS[to]);
        let frame = bench.bob.send(bob, alice, 84);
        bench.arrive(1, &frame);
        bench.sent(0);
        let frame = bench.alice.send(alice, bob, 1400);
        bench.arrive(0, &frame);
        let sent = bench.sent(1);
        assert_eq!(bench.bob.open(&sent[0]).1, inner(alice, bob, 63, 1400), "{} tags to {}", from, to);
    }
}

#[test]
fn two_clients_of_one_interface_reach_each_other() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    bench.bob.port = 5000;
    bench.bob.sequence = 9;
    let (from, to) = (bench.bob.inner, bench.alice.inner);
    let frame = bench.bob.send(from, to, 100);
    bench.arrive(0, &frame);
    let sent = bench.sent(0);
    assert_eq!(bench.alice.open(&sent[0]).1, inner(from, to, 63, 100));
}

#[test]
fn every_refusal_has_its_name_and_reaches_nobody() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob, carol) = (bench.alice.inner, bench.bob.inner, bench.carol.inner);
    let good = bench.alice.send(alice, bob, 84);
    let datagram = classify(good.as_slice()).expect("a datagram");
    let changed = |at: usize| {
        let mut frame = good.clone();
        frame[at] ^= 1;
        frame
    };
    let stranger = Peer::new("mallory", 1);
    let short = bench.alice.frame(&good[datagram.payload..datagram.payload + 17]);
    let seal = |bench: &mut Bench, payload_type, payload: &[u8]| {
        bench.alice.sequence += 1;
        bench.alice.seal(bench.alice.sequence - 1, payload_type, payload)
    };
    let rows = [
        (Verdict::BadTag, stranger.seal(1 << 20, 0x0800, &inner(alice, bob, 64, 84))),
        (Verdict::BadTag, changed(datagram.payload + 3)),
        (Verdict::BadTag, changed(datagram.payload + 40)),
        (Verdict::BadTag, changed(good.len() - 1)),
        (Verdict::UnknownMux, changed(datagram.payload + 6)),
        (Verdict::Short, short),
        (Verdict::Short, bench.alice.frame(&[0; 7])),
        (Verdict::Short, bench.alice.frame(&[])),
        (Verdict::ForeignSource, bench.alice.send(bob, bob, 84)),
        (Verdict::ForeignSource, bench.alice.send(carol, bob, 84)),
        (Verdict::LinkScope, bench.alice.send(Ipv4Addr::new(169, 254, 0, 1), bob, 84)),
        (Verdict::LinkScope, bench.alice.send(alice, Ipv4Addr::new(224, 0, 0, 22), 84)),
        (Verdict::LinkScope, bench.alice.send(alice, Ipv4Addr::BROADCAST, 84)),
        (Verdict::NoRoute, bench.alice.send(alice, Ipv4Addr::new(10, 9, 0, 99), 84)),
        (Verdict::NoRoute, bench.alice.send(alice, carol, 84)),
        (Verdict::PayloadType, seal(&mut bench, 0x6558, &[0; 60])),
        (Verdict::PayloadType, seal(&mut bench, 0x0001, &[0; 60])),
        (Verdict::MalformedInner, seal(&mut bench, 0x86dd, &inner(alice, bob, 64, 84))),
        (Verdict::MalformedInner, seal(&mut bench, 0x0800, &inner(alice, bob, 64, 84)[..60])),
        (Verdict::MalformedInner, seal(&mut bench, 0x0800, &[0x45])),
        (Verdict::HopLimit, seal(&mut bench, 0x0800, &inner(alice, bob, 1, 84))),
        (Verdict::TooBig, seal(&mut bench, 0x0800, &sizes::whole(inner(alice, bob, 64, 1500 - 28 - 20 + 1)))),
        (Verdict::Stray, {
            let mut frame = good.clone();
            frame[37] ^= 1;
            frame
        }),
    ];
    for (row, (verdict, frame)) in rows.into_iter().enumerate() {
        let before = bench.count(verdict);
        bench.arrive(0, &frame);
        bench.turn();
        assert_eq!(bench.count(verdict), before + 1, "row {row}: {}", verdict.name());
    }
    bench.arrive(0, &good);
    assert_eq!(bench.sent(1).len(), 1, "nothing before kept the good packet from its way");
    bench.arrive(0, &good);
    bench.turn();
    assert_eq!(bench.count(Verdict::Replayed), 1);
    assert_eq!(bench.count(Verdict::Forwarded), 1 + 4, "of four alice was told");
    let drops: u64 = bench.totals(0).drops().map(|(_, count)| count).sum();
    assert_eq!(
        drops,
        4 + 1 + 2 + 3 + 2 + 2 + 3 + 1 + 1,
        "all but those whose client is not known, and too-big is bob's"
    );
}

#[test]
fn a_client_not_heard_from_gets_nothing_until_it_speaks() {
    let mut bench = Bench::new(Kernel::default(), 512);
    let (from, to) = (bench.alice.inner, bench.bob.inner);
    let frame = bench.alice.send(from, to, 84);
    bench.arrive(0, &frame);
    bench.turn();
    assert_eq!(bench.count(Verdict::NoEndpoint), 1);
    let keepalive = bench.bob.seal(0, 0x0800, &[]);
    bench.arrive(1, &keepalive);
    bench.turn();
    let frame = bench.alice.send(from, to, 84);
    bench.arrive(0, &frame);
    assert_eq!(bench.sent(1).len(), 1);
}

#[test]
fn only_the_newest_authentic_packet_moves_a_client() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (from, to) = (bench.bob.inner, bench.alice.inner);
    bench.alice.port = 5001;
    let late = bench.alice.seal(10, 0x0800, &inner(to, from, 64, 84));
    bench.alice.port = 5002;
    let newer = bench.alice.seal(11, 0x0800, &inner(to, from, 64, 84));
    bench.alice.port = 5003;
    let forged = Peer { keys: Peer::new("mallory", 1).keys, port: 5003, ..Peer::new("alice", 1) };
    let forged = forged.seal(12, 0x0800, &inner(to, from, 64, 84));
    bench.arrive(0, &newer);
    bench.turn();
    assert_eq!(bench.endpoint_port(0), Some(5002));
    for frame in [&late, &forged, &newer] {
        bench.arrive(0, frame);
        bench.turn();
        assert_eq!(bench.endpoint_port(0), Some(5002));
    }
    assert_eq!(bench.count(Verdict::Forwarded), 2, "the late packet is good, and is carried");
}

#[test]
fn what_a_client_may_not_send_does_not_move_it() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    bench.alice.port = 5001;
    let foreign = bench.alice.send(bob, alice, 84);
    bench.alice.sequence += 2;
    let wrong_type = bench.alice.seal(bench.alice.sequence - 2, 0x6558, &[0; 60]);
    let malformed = bench.alice.seal(bench.alice.sequence - 1, 0x0800, &[0x45]);
    for frame in [foreign, wrong_type, malformed] {
        bench.arrive(0, &frame);
        bench.turn();
        assert_eq!(bench.endpoint_port(0), Some(4444));
    }
    let nowhere = bench.alice.send(alice, Ipv4Addr::new(10, 9, 0, 99), 84);
    bench.arrive(0, &nowhere);
    bench.turn();
    assert_eq!(bench.endpoint_port(0), Some(5001), "its own address to nowhere is still its own");
}

#[test]
fn a_kernel_that_does_little_at_a_time_loses_no_frame() {
    for kernel in [
        Kernel { receive: 1, ..Kernel::default() },
        Kernel { tx_ring: 3, complete: 1, ..Kernel::default() },
        Kernel { fill_ring: 5, complete: 2, ..Kernel::default() },
        Kernel { receive: 7, tx_ring: 1, fill_ring: 2, complete: 1, ..Kernel::default() },
        Kernel { tx_ring: 0, ..Kernel::default() },
        Kernel { complete: 0, ..Kernel::default() },
    ] {
        let mut bench = Bench::introduced(kernel, 512);
        let (from, to) = (bench.alice.inner, bench.bob.inner);
        let mut offered = 0;
        for _ in 0..200 {
            for _ in 0..3 {
                let frame = bench.alice.send(from, to, 84);
                offered += u64::from(bench.worker.io_mut().arrive(0, &frame));
            }
            bench.turn();
        }
        bench.worker.io_mut().kernel = Kernel::default();
        while bench.turn() > 0 {}
        bench.turn();
        let ended = bench.count(Verdict::Forwarded) + bench.count(Verdict::TxRingFull);
        assert_eq!(ended, offered, "{kernel:?}: every packet that arrived has one end");
        let ledger = bench.worker.io_mut().ledger();
        assert_eq!(ledger.tx, 0, "{kernel:?}");
        let sent = bench.worker.io_mut().sent(1);
        assert_eq!(sent.len() as u64, bench.count(Verdict::Forwarded));
        let numbers: Vec<u32> = sent.iter().map(|frame| bench.bob.open(frame).0).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{kernel:?}: in order, and no number twice");
    }
}

#[test]
fn more_than_a_batch_takes_more_than_a_turn() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (from, to) = (bench.alice.inner, bench.bob.inner);
    for _ in 0..BATCH + 1 {
        let frame = bench.alice.send(from, to, 84);
        bench.arrive(0, &frame);
    }
    assert_eq!(bench.turn(), BATCH);
    assert_eq!(bench.turn(), 1);
    assert_eq!(bench.sent(1).len(), BATCH + 1);
}

#[test]
fn a_client_that_counts_from_0_again_is_heard_once_it_is_forgotten() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    bench.alice.sequence = 5000;
    bench.bob.sequence = 5000;
    for frame in [bench.alice.send(alice, bob, 84), bench.bob.send(bob, alice, 84)] {
        bench.arrive(0, &frame);
        bench.turn();
    }
    let restarted = bench.alice.seal(0, 0x0800, &inner(alice, bob, 64, 84));
    bench.arrive(0, &restarted);
    bench.turn();
    assert_eq!(bench.count(Verdict::Replayed), 1);
    let before = bench.tables.load_full();
    assert!(before.forgetting("nobody").is_none());
    bench.tables.store(Arc::new(before.forgetting("alice").expect("a client")));
    bench.arrive(0, &restarted);
    bench.turn();
    assert_eq!((bench.count(Verdict::Replayed), bench.count(Verdict::Forwarded)), (1, 3));
    bench.arrive(0, &restarted);
    bench.turn();
    let old = bench.bob.seal(0, 0x0800, &inner(bob, alice, 64, 84));
    bench.arrive(0, &old);
    bench.turn();
    assert_eq!(bench.count(Verdict::Replayed), 3, "once only, and the others are not forgotten");
}

#[test]
fn a_reload_keeps_what_packets_taught() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let replay = bench.alice.send(alice, bob, 84);
    bench.arrive(0, &replay);
    let sent = bench.sent(1);
    assert_eq!(bench.bob.open(&sent[0]).0, 0);

    let text = CONFIG.replace("10.9.0.13/32", "10.9.0.14/32").replace("passphrase of carol", "new one of carol");
    let before = bench.tables.load_full();
    let after = build(&text, &mut bench.keeper, Some(&before));
    bench.tables.store(Arc::new(after));
    bench.arrive(0, &replay);
    bench.turn();
    assert_eq!(bench.count(Verdict::Replayed), 1, "windows stay");
    let frame = bench.alice.send(alice, bob, 84);
    bench.arrive(0, &frame);
    let sent = bench.sent(1);
    assert_eq!(bench.bob.open(&sent[0]).0, 1, "endpoints stay, and sequence numbers go on");
    assert_eq!(bench.totals(0).rx_packets, 3, "counters stay");

    let frame = bench.carol.send(Ipv4Addr::new(10, 9, 0, 14), alice, 84);
    bench.arrive(0, &frame);
    bench.turn();
    assert_eq!(bench.count(Verdict::BadTag), 1, "the old key is gone");
}
