//! Packets that leave an open network before their next hop is known.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anytun_common::verdict::Verdict;
use anytun_common::wire::mapped;
use anytun_xdp::config::{Idle, Scheduling};
use anytun_xdp::table::ways::{Next, Ways};
use anytun_xdp::worker::io::PacketIo;

use super::bench::{Bench, inner};
use super::open::{ETH1, GATEWAY, HOST, MACS, office, opened, ways};

/// A bench whose network is routed, but whose gateway is not known yet.
fn bench() -> Bench {
    let bench = opened("open = \"routed\"");
    bench.ways.store(Arc::new(Ways { neighbours: Arc::default(), ..ways() }));
    bench
}

/// The client with this place sends a packet of some length out of its network.
fn send(bench: &mut Bench, client: usize, length: usize) {
    let peer = if client == 0 { &mut bench.alice } else { &mut bench.bob };
    let frame = peer.send(peer.inner, HOST, length);
    bench.arrive(client, &frame);
}

/// A turn at a time, in milliseconds. All frames are accounted for; how many the worker holds.
pub(crate) fn turn(bench: &mut Bench, now: u64) -> u64 {
    bench.worker.turn(now);
    let ledger = bench.worker.io_mut().ledger();
    assert!(ledger.holds(), "{ledger:?}");
    ledger.received
}

#[test]
fn a_packet_waits_until_the_kernel_has_found_its_neighbour() {
    let mut bench = bench();
    let from = bench.alice.inner;
    for length in [84, 200, 1400] {
        send(&mut bench, 0, length);
    }
    assert_eq!(turn(&mut bench, 10), 3);
    let asked: Vec<Next> = bench.asks.take().collect();
    assert_eq!(asked[0], Next { ifindex: ETH1, address: mapped(GATEWAY) }, "the gateway is asked for");
    assert_eq!(turn(&mut bench, 500), 3, "not found yet");
    assert_eq!(bench.asks.take().count(), 3, "should the question have been lost, it is asked again");
    assert_eq!(turn(&mut bench, 501), 3);
    assert_eq!(bench.asks.take().count(), 0, "but not all the time");
    bench.ways.store(Arc::new(ways()));
    assert_eq!(turn(&mut bench, 502), 0);
    turn(&mut bench, 503);
    let sent = bench.worker.io_mut().sent(1);
    let packets: Vec<_> = sent.iter().map(|frame| frame[14..].to_vec()).collect();
    assert_eq!(packets, [84, 200, 1400].map(|length| inner(from, HOST, 63, length)), "in order, and a hop less once");
    assert!(sent.iter().all(|frame| frame[..6] == MACS[0]));
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::NoNeighbour)), (3, 0));
}

#[test]
fn who_asked_for_a_neighbour_that_is_not_there_is_told_after_a_second() {
    let mut bench = bench();
    let alice = bench.alice.inner;
    send(&mut bench, 0, 84);
    assert_eq!(turn(&mut bench, 10), 1);
    assert_eq!(turn(&mut bench, 1009), 1);
    assert_eq!(turn(&mut bench, 1010), 0);
    turn(&mut bench, 1011);
    let sent = bench.worker.io_mut().sent(0);
    let error = bench.alice.open(&sent[0]).1;
    // Host unreachable (RFC 792) from the node, which has no address there (RFC 7600).
    assert_eq!((error[9], error[20..22].to_vec(), error[12..16].to_vec()), (1, vec![3, 1], vec![192, 0, 0, 8]));
    assert_eq!(error[16..20], alice.octets());
    assert_eq!((bench.count(Verdict::NoNeighbour), bench.totals(0).drops().count()), (1, 1));
}

#[test]
fn who_sends_to_many_that_are_not_there_leaves_room_for_others() {
    let mut bench = bench();
    for at in 0..200 {
        send(&mut bench, 0, 84);
        if at % 60 == 59 {
            turn(&mut bench, 10);
        }
    }
    turn(&mut bench, 10);
    let held = turn(&mut bench, 10);
    assert_eq!(bench.count(Verdict::NoNeighbour), 200 - held);
    send(&mut bench, 1, 84);
    assert_eq!(turn(&mut bench, 10), held + 1, "bob's waits, too");
    assert!((16..=64).contains(&held), "{held}");
}

#[test]
fn clients_that_get_other_numbers_lose_what_waits() {
    let mut bench = bench();
    send(&mut bench, 0, 84);
    assert_eq!(turn(&mut bench, 10), 1);
    bench.configure(&office("open = \"routed\"").replace("10.9.0.13/32", "10.9.0.14/32"));
    assert_eq!(turn(&mut bench, 11), 0);
    // Shown with the next packet.
    send(&mut bench, 1, 84);
    turn(&mut bench, 12);
    assert_eq!(bench.count(Verdict::NoNeighbour), 1);
}

#[test]
fn what_waits_when_the_worker_stops_has_its_verdict() {
    let mut bench = bench();
    for length in [84, 200, 1400] {
        send(&mut bench, 0, length);
    }
    assert_eq!(turn(&mut bench, 10), 3);
    let Bench { worker, counters, .. } = bench;
    assert_eq!(counters.verdict(Verdict::NoNeighbour), 0);
    worker.run(Instant::now(), Idle::Sleep, Scheduling::Other, &AtomicBool::new(true));
    assert_eq!(counters.verdict(Verdict::NoNeighbour), 3);
    let all: u64 = Verdict::ALL.iter().map(|verdict| counters.verdict(*verdict)).sum();
    assert_eq!(all, counters.rx_packets(), "every packet has one");
}
