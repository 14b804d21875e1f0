//! Open tunnel mode on plain memory.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet::Mac;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::mode::icmp::Kind;
use anytun_xdp::table::ways::{Action, Exit, Family, Fate, Hop, Neighbour, Next, Route, Routes, Rule, Wayless, Ways};
use anytun_xdp::table::{Link, Tags};
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG, inner};
use super::sizes::{LARGEST, reassembled, whole};

/// A host outside, behind port 1, and the gateway to all others.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const GATEWAY: [u8; 4] = [203, 0, 113, 1];
/// Of the gateway, and of the node's second interface.
pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 0, 0xee]];
/// The kernel's number of that interface.
pub(crate) const ETH1: u32 = 3;

/// A bench whose network `office` is routed.
fn open() -> Bench {
    opened("open = \"routed\"")
}

/// The configuration of a bench with more keys for the network `office`.
pub(crate) fn office(keys: &str) -> String {
    let text = CONFIG.replace("name = \"office\"\n[[", &format!("name = \"office\"\n{keys}\n[["));
    assert_ne!(text, CONFIG);
    text
}

/// A bench whose network `office` is open by these keys, and a default route through port 1.
pub(crate) fn opened(keys: &str) -> Bench {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    bench.configure(&office(keys));
    bench.ways.store(Arc::new(ways()));
    bench
}

/// A default route through port 1, by the gateway.
pub(crate) fn ways() -> Ways {
    ways_by(MACS[0])
}

/// The same with this Ethernet address of the gateway.
pub(crate) fn ways_by(mac: Mac) -> Ways {
    let rule =
        Rule { priority: 0, family: Family::V4, from: None, to: None, more: false, action: Action::Table(254, None) };
    let hop = Hop { ifindex: ETH1, gateway: Some(mapped(GATEWAY)), weight: 1 };
    let route = Route {
        table: 254,
        prefix: "0.0.0.0/0".parse().expect("a prefix"),
        metric: 0,
        fate: Fate::Hops(vec![hop]),
        mtu: 0,
    };
    let [(next, _)] = gateway();
    Ways {
        routes: Arc::new(Routes::new(vec![rule], vec![route])),
        exits: Arc::new([(ETH1, Exit { slot: 1, mac: MACS[1], tags: Tags::default(), mtu: 1500 })].into()),
        neighbours: Arc::new([(next, Neighbour::new(mac))].into()),
    }
}

/// The gateway, as a neighbour.
fn gateway() -> [(Next, Neighbour); 1] {
    [(Next { ifindex: ETH1, address: mapped(GATEWAY) }, Neighbour::new(MACS[0]))]
}

/// A frame from outside.
pub(crate) fn outside(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 1, 0x08, 0];
    frame.extend_from_slice(packet);
    frame
}

#[test]
fn what_is_for_outside_leaves_as_it_was_with_one_hop_less() {
    let mut bench = open();
    let from = bench.alice.inner;
    for length in [20, 84, 1400, 1472] {
        let frame = bench.alice.send(from, HOST, length);
        bench.arrive(0, &frame);
        let sent = bench.sent(1);
        assert_eq!(sent.len(), 1, "{length} octets");
        assert_eq!(sent[0][..12], *Link::new(MACS[0], MACS[1]).as_bytes());
        assert_eq!(sent[0][12..14], [0x08, 0]);
        assert_eq!(sent[0][14..], inner(from, HOST, 63, length));
    }
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::Forwarded)), (4, 0));
}

#[test]
fn what_comes_from_outside_for_a_client_is_sealed_for_it() {
    let mut bench = open();
    let to = bench.bob.inner;
    for length in [20, 46, 1400] {
        let mut frame = outside(&inner(HOST, to, 64, length));
        // As Ethernet does with what is short.
        frame.resize(frame.len().max(60), 0xee);
        bench.arrive(0, &frame);
        let sent = bench.sent(1);
        assert_eq!(sent.len(), 1, "{length} octets");
        assert_eq!(bench.bob.open(&sent[0]).1, inner(HOST, to, 63, length));
    }
    assert_eq!(bench.count(Verdict::Forwarded), 3);
    assert_eq!(bench.totals(1).tx_packets, 3);
}

#[test]
fn a_batch_may_have_all_kinds_in_any_order() {
    let mut bench = open();
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    for turn in 0..20 {
        let to_bob = bench.alice.send(alice, bob, 84);
        let to_host = bench.alice.send(alice, HOST, 100 + turn);
        bench.arrive(0, &to_bob);
        bench.arrive(0, &outside(&inner(HOST, bob, 64, 200 + turn)));
        bench.arrive(0, &to_host);
    }
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 60);
    let lengths = |offset: usize| -> Vec<usize> { sent.iter().skip(offset).step_by(3).map(Vec::len).collect() };
    assert_eq!(lengths(2), (0..20).map(|turn| 14 + 100 + turn).collect::<Vec<_>>());
    let inside: Vec<usize> = sent.iter().skip(1).step_by(3).map(|frame| bench.bob.open(frame).1.len()).collect();
    assert_eq!(inside, (0..20).map(|turn| 200 + turn).collect::<Vec<_>>());
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::Forwarded)), (20, 40));
}

/// Two clients whose packets for the same host have different ways, and places that nobody gets to, one behind the other.
#[test]
fn each_packet_goes_its_own_way_whatever_went_before_it() {
    let mut bench = open();
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let (other, nowhere) = (Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(198, 51, 100, 9));
    let rule = |priority, from, table| {
        let action = Action::Table(table, None);
        Rule { priority, family: Family::V4, from, to: None, more: false, action }
    };
    let route =
        |table, prefix: &str, fate| Route { table, prefix: prefix.parse().expect("a prefix"), metric: 0, fate, mtu: 0 };
    let by = |gateway| Fate::Hops(vec![Hop { ifindex: ETH1, gateway: Some(mapped(gateway)), weight: 1 }]);
    let next = Next { ifindex: ETH1, address: mapped(other.octets()) };
    bench.ways.store(Arc::new(Ways {
        routes: Arc::new(Routes::new(
            vec![rule(0, Some(format!("{bob}/32").parse().expect("a prefix")), 100), rule(1, None, 254)],
            vec![
                route(100, "203.0.113.0/24", by(other.octets())),
                route(254, "0.0.0.0/0", by(GATEWAY)),
                route(254, "198.51.100.0/24", Fate::End(Wayless::Blackhole)),
            ],
        )),
        neighbours: Arc::new([(next, Neighbour::new([2, 0, 0, 0, 9, 2]))].into_iter().chain(gateway()).collect()),
        ..ways()
    }));
    let turns = [(alice, HOST), (bob, HOST), (bob, HOST), (alice, nowhere), (alice, HOST), (bob, nowhere), (bob, HOST)];
    for (from, to) in turns {
        let client = if from == alice { &mut bench.alice } else { &mut bench.bob };
        let frame = client.send(from, to, 84);
        bench.arrive(0, &frame);
    }
    let macs: Vec<u8> = bench.sent(1).iter().map(|frame| frame[5]).collect();
    assert_eq!(macs, [1, 2, 2, 1, 2], "the last octet of the gateway's address");
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::NoWay)), (5, 2));
}

#[test]
fn what_cannot_go_ends_under_its_name() {
    let mut bench = open();
    let (alice, bob, carol) = (bench.alice.inner, bench.bob.inner, bench.carol.inner);
    let frame = |bench: &mut Bench, to, length| {
        let frame = bench.alice.send(alice, to, length);
        bench.arrive(0, &frame);
    };
    // As if it came from a client; for a client of a network that is not open; for nobody.
    bench.arrive(0, &outside(&inner(alice, bob, 64, 84)));
    bench.arrive(0, &outside(&inner(HOST, carol, 64, 84)));
    bench.arrive(0, &outside(&inner(HOST, HOST, 64, 84)));
    frame(&mut bench, Ipv4Addr::new(224, 0, 0, 1), 84);
    assert_eq!(bench.sent(1).len(), 0);
    for (verdict, count) in [(Verdict::ForeignSource, 1), (Verdict::Stray, 2), (Verdict::LinkScope, 1)] {
        assert_eq!(bench.count(verdict), count, "{verdict:?}");
    }
    bench.ways.store(Arc::default());
    frame(&mut bench, HOST, 84);
    assert_eq!(bench.sent(1).len(), 0);
    assert_eq!(bench.count(Verdict::NoWay), 1);
}

/// The error that a host outside is sent, without its Ethernet header; the sums of its headers are right.
fn told(bench: &mut Bench, packet: &[u8]) -> Option<Vec<u8>> {
    bench.arrive(0, &outside(packet));
    let mut sent = bench.sent(1);
    assert!(sent.len() < 2, "{} packets", sent.len());
    let frame = sent.pop()?;
    assert_eq!(frame[..14], [&Link::new(MACS[0], MACS[1]).as_bytes()[..], &[0x08, 0]].concat());
    let error = frame[14..].to_vec();
    assert_eq!((error[9], checksum::of(&error[..20]), checksum::of(&error[20..])), (1, 0, 0));
    Some(error)
}

#[test]
fn hosts_outside_are_told_what_became_of_their_packets() {
    let mut bench = open();
    let bob = bench.bob.inner;
    for (verdict, packet, expected) in [
        (Verdict::HopLimit, inner(HOST, bob, 1, 84), [11, 0, 0, 0]),
        (Verdict::TooBig, whole(inner(HOST, bob, 64, LARGEST + 1)), [3, 4, 0x05, 0xac]),
    ] {
        let before = bench.count(Verdict::Outward);
        let error = told(&mut bench, &packet).expect("an error");
        assert_eq!(error[12..20], [192, 0, 2, 53, 203, 0, 113, 7], "from the service to the host");
        assert_eq!([error[20], error[21], error[26], error[27]], expected);
        assert_eq!(error[28 + 12..48], packet[12..20], "the addresses of the packet are quoted");
        assert_eq!((bench.count(verdict), bench.count(Verdict::Outward)), (1, before + 1));
    }
    assert_eq!(bench.totals(1).tx_packets, 0);
    // What may be fragmented is, and what fits arrives.
    for (packet, count) in [(inner(HOST, bob, 64, LARGEST + 1), 2), (whole(inner(HOST, bob, 64, LARGEST)), 1)] {
        bench.arrive(0, &outside(&packet));
        let sent = bench.sent(1);
        assert_eq!(sent.len(), count);
        let arrived: Vec<_> = sent.iter().map(|frame| bench.bob.open(frame).1).collect();
        assert_eq!(reassembled(&arrived), packet[20..]);
    }
    let mut made = [0; Kind::COUNT];
    for (count, kind) in made.iter_mut().zip(Kind::ALL) {
        *count = bench.counters.icmp_errors(*kind);
    }
    assert_eq!(made, [1, 0, 1]);
}

#[test]
fn hosts_outside_are_told_no_more_than_the_rate_allows() {
    let mut bench = open();
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let answered = (0..50).filter(|_| told(&mut bench, &inner(HOST, bob, 1, 84)).is_some()).count();
    assert_eq!(answered, 10, "a tenth of a second's worth");
    assert_eq!(bench.count(Verdict::HopLimit), 50);
    assert!(told(&mut bench, &inner(HOST, alice, 1, 84)).is_some(), "packets for alice are answered still");
    // They count among bob's own.
    let frame = bench.bob.seal(9, 0x0800, &inner(bob, alice, 1, 84));
    bench.arrive(1, &frame);
    assert_eq!(bench.sent(1).len(), 0);
    let known = bench.ways.load_full();
    bench.ways.store(Arc::new(Ways { neighbours: Arc::default(), ..(*known).clone() }));
    assert_eq!(told(&mut bench, &inner(HOST, alice, 1, 84)), None, "no way to the sender");
}

#[test]
fn what_is_too_large_for_the_way_outside_leaves_in_fragments_or_is_answered() {
    let mut bench = open();
    let alice = bench.alice.inner;
    let known = bench.ways.load_full();
    let narrow = Exit { slot: 1, mac: MACS[1], tags: Tags::default(), mtu: 1000 };
    bench.ways.store(Arc::new(Ways { exits: Arc::new([(ETH1, narrow)].into()), ..(*known).clone() }));
    for (length, count) in [(1000, 1), (1001, 2), (1400, 2)] {
        let frame = bench.alice.send(alice, HOST, length);
        bench.arrive(0, &frame);
        let sent = bench.sent(1);
        assert_eq!(sent.len(), count, "{length} octets");
        let packets: Vec<_> = sent.iter().map(|frame| frame[14..].to_vec()).collect();
        assert!(
            packets.iter().all(|packet| packet.len() <= 1000 && packet[8] == 63 && packet[12..16] == alice.octets())
        );
        assert_eq!(reassembled(&packets), inner(alice, HOST, 63, length)[20..]);
        assert!(sent.iter().all(|frame| frame[..12] == *Link::new(MACS[0], MACS[1]).as_bytes()));
    }
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::TooBig)), (5, 0));
    let sequence = bench.alice.sequence;
    let frame = bench.alice.seal(sequence, 0x0800, &whole(inner(alice, HOST, 64, 1001)));
    bench.arrive(0, &frame);
    assert_eq!(bench.sent(1).len(), 0);
    let sent = bench.sent(0);
    let error = bench.alice.open(&sent[0]).1;
    assert_eq!((error[20..22].to_vec(), error[26..28].to_vec()), (vec![3, 4], vec![3, 0xe8]));
}

#[test]
fn a_checksum_that_was_left_to_hardware_is_completed() {
    let mut bench = open();
    let mut tables = (*bench.tables.load_full()).clone();
    tables.partial = vec![true; 2];
    bench.tables.store(Arc::new(tables));
    let bob = bench.bob.inner;
    let mut packet = inner(HOST, bob, 64, 20 + 8 + 33);
    packet[9] = 17;
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[24..26].copy_from_slice(&41u16.to_be_bytes());
    // That of the pseudo-header: addresses, protocol, length.
    let pseudo = checksum::fold(checksum::add(17 + 41, &packet[12..20]));
    packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
    bench.arrive(0, &outside(&packet));
    let sent = bench.sent(1);
    let (_, got) = bench.bob.open(&sent[0]);
    assert_eq!(checksum::fold(checksum::add(checksum::add(17 + 41, &got[12..20]), &got[20..])), 0xffff);
    assert_ne!(got[26..28], packet[26..28]);
}
