//! Fragments that come before the first one of their datagram, which tells a NAT whose they are.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_xdp::table::ways::{Exit, Ways};

use super::bench::Bench;
use super::nat::{KEYS, NAT, fragment, lent, port, send, udp};
use super::open::{HOST, opened, outside, ways};
use super::sizes::reassembled;
use super::unresolved::turn;

/// The first and the last fragment of a datagram with 64 octets of payload: flags and offset, and what of its payload.
const PARTS: [(u16, std::ops::Range<usize>); 2] = [(0x2000, 20..60), (0x0005, 60..92)];

/// Both fragments of a datagram.
fn cut(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), ttl: u8) -> [Vec<u8>; 2] {
    let whole = udp(from, to, ttl, 64);
    PARTS.map(|(flags, part)| fragment(from.0, to.0, ttl, flags, &whole[part]))
}

/// What turns from this time on send through a port: of what arrives, of what waits, and one that collects it.
fn sent(bench: &mut Bench, port: usize, now: u64) -> Vec<Vec<u8>> {
    for now in now..now + 3 {
        turn(bench, now);
    }
    bench.worker.io_mut().sent(port)
}

#[test]
fn from_outside_they_wait_for_it() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    let [first, last] = cut((HOST, 53), (NAT, lent), 60);
    bench.arrive(1, &outside(&last));
    assert_eq!(sent(&mut bench, 0, 10).len(), 0);
    assert_eq!(turn(&mut bench, 80), 1, "it waits");
    bench.arrive(1, &outside(&first));
    let sent = sent(&mut bench, 0, 81);
    let got: Vec<_> = sent.iter().map(|frame| bench.alice.open(frame).1).collect();
    assert_eq!(got, cut((HOST, 53), (alice, 5000), 59));
    assert_eq!((bench.count(Verdict::Forwarded), bench.count(Verdict::NatFragment)), (2, 0));
}

#[test]
fn from_a_client_they_wait_for_it() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let [first, last] = cut((alice, 5000), (HOST, 53), 64);
    send(&mut bench, false, &last);
    assert_eq!(sent(&mut bench, 1, 10).len(), 0);
    send(&mut bench, false, &first);
    let sent = sent(&mut bench, 1, 20);
    assert_eq!(sent.len(), 2);
    let own = port(&sent[0], 14 + 20);
    assert_eq!(sent.iter().map(|frame| frame[14..].to_vec()).collect::<Vec<_>>(), cut((NAT, own), (HOST, 53), 63));
}

#[test]
fn those_that_wait_in_vain_are_dropped_after_a_tenth_of_a_second() {
    let mut bench = opened(KEYS);
    let lent = lent(&mut bench, false, 5000, 53);
    let [first, last] = cut((HOST, 54), (NAT, lent), 60);
    bench.arrive(1, &outside(&last));
    turn(&mut bench, 10);
    // It comes, but is filtered.
    bench.arrive(1, &outside(&first));
    assert_eq!(turn(&mut bench, 109), 1);
    assert_eq!(turn(&mut bench, 110), 0);
    turn(&mut bench, 111);
    assert_eq!((bench.count(Verdict::NatFiltered), bench.count(Verdict::NatFragment)), (1, 1));
}

#[test]
fn a_flood_of_them_leaves_room_for_clients_and_does_not_stop_those_in_order() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    for number in 0..200u16 {
        let other = Ipv4Addr::new(198, 18, (number >> 8) as u8, number as u8);
        let [_, last] = cut((other, 53), (NAT, lent), 60);
        bench.arrive(1, &outside(&last));
        if number % 60 == 59 {
            turn(&mut bench, 10);
        }
    }
    turn(&mut bench, 10);
    let held = turn(&mut bench, 10);
    assert!((16..=32).contains(&held), "{held}");
    assert_eq!(bench.count(Verdict::NatFragment), 200 - held);
    for part in cut((HOST, 53), (NAT, lent), 60) {
        bench.arrive(1, &outside(&part));
    }
    let sent = sent(&mut bench, 0, 11);
    let got: Vec<_> = sent.iter().map(|frame| bench.alice.open(frame).1).collect();
    assert_eq!(got, cut((HOST, 53), (alice, 5000), 59));
    let [_, last] = cut((alice, 5000), (HOST, 53), 64);
    send(&mut bench, false, &last);
    assert_eq!(turn(&mut bench, 14), held + 1, "a client's waits, too");
}

#[test]
fn one_host_outside_leaves_room_for_others() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    let [_, last] = cut((Ipv4Addr::new(198, 18, 0, 1), 53), (NAT, lent), 60);
    for number in 1..=200 {
        bench.arrive(1, &outside(&last));
        if number % 50 == 0 {
            turn(&mut bench, 10);
        }
    }
    let held = turn(&mut bench, 10);
    assert!((8..=24).contains(&held), "{held}");
    assert_eq!(bench.count(Verdict::NatFragment), 200 - held);
    let [first, last] = cut((HOST, 53), (NAT, lent), 60);
    bench.arrive(1, &outside(&last));
    assert_eq!(turn(&mut bench, 11), held + 1, "that of another waits");
    bench.arrive(1, &outside(&first));
    let sent = sent(&mut bench, 0, 12);
    let got: Vec<_> = sent.iter().map(|frame| bench.alice.open(frame).1).collect();
    assert_eq!(got, cut((HOST, 53), (alice, 5000), 59));
}

#[test]
fn those_that_waited_for_their_neighbour_in_front_of_it_wait_for_it() {
    let mut bench = opened(KEYS);
    bench.ways.store(Arc::new(Ways { neighbours: Arc::default(), ..ways() }));
    let [first, last] = cut((bench.alice.inner, 5000), (HOST, 53), 64);
    send(&mut bench, false, &last);
    send(&mut bench, false, &first);
    assert_eq!(turn(&mut bench, 10), 2);
    // After longer than a first fragment alone is waited for.
    assert_eq!(turn(&mut bench, 500), 2);
    bench.ways.store(Arc::new(ways()));
    let sent = sent(&mut bench, 1, 501);
    assert_eq!(sent.len(), 2);
    let own = port(&sent[0], 14 + 20);
    assert_eq!(sent.iter().map(|frame| frame[14..].to_vec()).collect::<Vec<_>>(), cut((NAT, own), (HOST, 53), 63));
}

#[test]
fn those_that_are_too_large_for_the_way_out_wait_for_it() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let exits = ways().exits.iter().map(|(at, exit)| (*at, Exit { mtu: 1000, ..*exit })).collect();
    bench.ways.store(Arc::new(Ways { exits: Arc::new(exits), ..ways() }));
    let whole = udp((alice, 5000), (HOST, 53), 64, 2392);
    let [first, last] =
        [(0x2000, 20..1220), (150, 1220..2420)].map(|(flags, part)| fragment(alice, HOST, 64, flags, &whole[part]));
    send(&mut bench, false, &last);
    assert_eq!(sent(&mut bench, 1, 10).len(), 0);
    assert_eq!(turn(&mut bench, 80), 1, "it waits");
    send(&mut bench, false, &first);
    let out: Vec<_> = sent(&mut bench, 1, 81).iter().map(|frame| frame[14..].to_vec()).collect();
    assert_eq!(out.len(), 4);
    let own = port(&out[0], 20);
    assert_eq!(reassembled(&out), udp((NAT, own), (HOST, 53), 63, 2392)[20..]);
    // Of a client of whom no first fragment was seen.
    let of_bob = fragment(bench.bob.inner, HOST, 64, 150, &whole[1220..2420]);
    send(&mut bench, true, &of_bob);
    assert_eq!(turn(&mut bench, 1000), 1);
    assert_eq!(turn(&mut bench, 1099), 1);
    assert_eq!(turn(&mut bench, 1100), 0, "but not without end");
    assert_eq!(bench.count(Verdict::NatFragment), 1);
}

#[test]
fn from_a_client_to_another_behind_the_same_nat_they_wait_for_it() {
    let mut bench = opened(&KEYS.replace(" }", ", filtering = \"endpoint-independent\" }"));
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let of_bob = lent(&mut bench, true, 6000, 53);
    // No neighbour outside is needed for that.
    bench.ways.store(Arc::new(Ways { neighbours: Arc::default(), ..ways() }));
    let [first, last] = cut((alice, 5000), (NAT, of_bob), 64);
    send(&mut bench, false, &last);
    assert_eq!(sent(&mut bench, 1, 10).len(), 0);
    send(&mut bench, false, &first);
    let sent = sent(&mut bench, 1, 20);
    let got: Vec<_> = sent.iter().map(|frame| bench.bob.open(frame).1).collect();
    assert_eq!(got.len(), 2);
    let of_alice = port(&got[0], 20);
    assert_eq!(got, cut((NAT, of_alice), (bob, 6000), 63));
    assert_eq!((bench.count(Verdict::NatFragment), bench.asks.take().count()), (0, 0));
}

#[test]
fn those_of_what_another_behind_the_same_nat_does_not_let_in_do_not_wait() {
    let mut bench = opened(KEYS);
    let of_bob = lent(&mut bench, true, 6000, 53);
    for part in cut((bench.alice.inner, 5000), (NAT, of_bob), 64) {
        send(&mut bench, false, &part);
        turn(&mut bench, 10);
    }
    assert_eq!(turn(&mut bench, 11), 0);
    assert_eq!((bench.count(Verdict::NatFiltered), bench.count(Verdict::NatFragment)), (1, 1));
}
