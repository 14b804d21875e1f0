//! Outer IPv6 packets in two fragments, around inner ones of a size that every link has to take.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::satp::{Header, Role};
use anytun_xdp::table::ways::{Action, Family, Fate, Hop, Neighbour, Next, Route, Routes, Rule, Ways};
use anytun_xdp::table::{Host, Tables};
use anytun_xdp::worker::datagram::{enclose, head};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG, host, parse};
use super::open::{ETH1, GATEWAY, HOST, MACS, outside, ways};
use super::sizes::whole;

/// The service, and where bob is.
const SERVICE: &str = "[2001:db8::53]:4444";
const THERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
/// Octets around an inner packet: IPv6, UDP, SATP, payload type and tag.
const AROUND: usize = 40 + 8 + 8 + 2 + 10;
/// Octets that every IPv6 link takes (RFC 8200 §5).
const LEAST: usize = 1280;
const LINK: usize = 14;

/// A bench on which bob is reached over IPv6, by an interface with this MTU.
fn bench(mtu: usize, frames: usize) -> Bench {
    bench_with("", mtu, frames)
}

/// The same with more keys for the network.
fn bench_with(keys: &str, mtu: usize, frames: usize) -> Bench {
    let mut bench = Bench::introduced(Kernel::default(), frames);
    let text = CONFIG
        .replace("[[network]]\nname = \"office\"", &format!("{SIX}[[network]]\nname = \"office\"\n{keys}"))
        .replace("name = \"alice\"\n", "name = \"alice\"\nservice = \"anycast\"\n")
        .replace("name = \"bob\"\n", "name = \"bob\"\nservice = \"six\"\n")
        .replace("name = \"carol\"\n", "name = \"carol\"\nservice = \"anycast\"\n")
        .replace("10.9.0.11/32\"", "10.9.0.11/32\", \"2001:db8:9::11/128\"")
        .replace("10.9.0.12/32\"", "10.9.0.12/32\", \"2001:db8:9::12/128\"");
    let config = parse(&text);
    let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
    let sequences = bench.keeper.sequences(&fingerprints).expect("leases");
    let before = bench.tables.load_full();
    let tables = Tables::build(&config, &Host { mtus: vec![1500, mtu], ..host() }, sequences, Some(&before));
    bench.tables.store(Arc::new(tables));
    let keepalive = bench.bob.seal(7, 0x86dd, &[]);
    let mut frame = vec![0; head(false) + keepalive.len() - head(true)];
    frame[head(false)..].copy_from_slice(&keepalive[head(true)..]);
    let from = SocketAddr::from((THERE, 4444));
    enclose(&mut frame, from, SERVICE.parse().expect("an address"), 0).expect("a datagram");
    frame[..12].copy_from_slice(&keepalive[..12]);
    bench.arrive(1, &frame);
    bench.turn();
    assert_eq!(bench.count(Verdict::Keepalive), 4);
    bench
}

const SIX: &str = "[[service]]\nname = \"six\"\naddress = \"2001:db8::53\"\nport = 4444\n";

/// An inner IPv6 packet of alice's for bob.
fn inner(hops: u8, length: usize) -> Vec<u8> {
    inner_from("2001:db8:9::11", hops, length)
}

/// An inner IPv6 packet for bob.
fn inner_from(source: &str, hops: u8, length: usize) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, ((length - 40) >> 8) as u8, (length - 40) as u8, 253, hops];
    for address in [source, "2001:db8:9::12"] {
        packet.extend_from_slice(&address.parse::<Ipv6Addr>().expect("an address").octets());
    }
    packet.extend((packet.len()..length).map(|at| at as u8 ^ (at >> 8) as u8));
    packet
}

/// Alice sends an inner packet.
fn send(bench: &mut Bench, packet: &[u8]) {
    bench.alice.sequence += 1;
    let frame = bench.alice.seal(bench.alice.sequence - 1, 0x86dd, packet);
    bench.arrive(0, &frame);
}

/// The packet that a receiver makes of two fragments (RFC 8200 §4.5).
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let [first, second] = fragments else { panic!("{} fragments", fragments.len()) };
    assert_eq!(first[..LINK + 4], second[..LINK + 4]);
    assert_eq!(first[LINK + 8..LINK + 40], second[LINK + 8..LINK + 40], "the same addresses");
    assert_eq!(first[LINK + 44..LINK + 48], second[LINK + 44..LINK + 48], "the same identification");
    let mut frame = first[..LINK + 40].to_vec();
    for (fragment, more) in [(first, 1), (second, 0)] {
        assert_eq!((fragment[LINK + 6], fragment[LINK + 40]), (44, 17), "a fragment header, and UDP behind it");
        let offset = u16::from_be_bytes([fragment[LINK + 42], fragment[LINK + 43]]);
        assert_eq!((usize::from(offset & !7), offset & 7), (frame.len() - LINK - 40, more));
        frame.extend_from_slice(&fragment[LINK + 48..]);
    }
    let payload = (frame.len() - LINK - 40) as u16;
    frame[LINK + 4..LINK + 6].copy_from_slice(&payload.to_be_bytes());
    frame[LINK + 6] = 17;
    frame
}

/// The inner packet in a frame for bob.
fn opened(bench: &Bench, frame: &[u8]) -> Vec<u8> {
    let datagram = classify(frame).expect("a datagram");
    assert_eq!((datagram.destination, datagram.destination_port), (THERE.octets(), 4444));
    let satp = &frame[datagram.payload..datagram.payload + datagram.length];
    assert!(bench.bob.keys.verify(Role::Left, satp), "authentic");
    let header = Header::read(satp, 0).expect("a header");
    let mut body = satp[8..satp.len() - bench.bob.keys.tag()].to_vec();
    bench.bob.keys.crypt(Role::Left, &header, &mut body);
    assert_eq!(body[..2], [0x86, 0xdd]);
    body[2..].to_vec()
}

#[test]
fn what_every_link_has_to_take_passes_an_interface_that_takes_little_more() {
    for mtu in LEAST..LEAST + AROUND + 3 {
        let mut bench = bench(mtu, 512);
        for length in [LEAST - AROUND, mtu - AROUND, mtu - AROUND + 1, LEAST] {
            if length > LEAST {
                continue;
            }
            let before = bench.count(Verdict::Forwarded);
            send(&mut bench, &inner(64, length));
            let sent = bench.sent(1);
            let frame = if length + AROUND <= mtu {
                assert_eq!(sent.len(), 1, "{length} octets of {mtu}");
                sent[0].clone()
            } else {
                assert!(sent.iter().all(|frame| frame.len() <= LINK + LEAST), "every link further on takes them");
                reassembled(&sent)
            };
            assert_eq!(opened(&bench, &frame), inner(63, length), "{length} octets of {mtu}");
            assert_eq!(bench.count(Verdict::Forwarded), before + 1, "it counts as one");
        }
        let octets = bench.totals(1).tx_octets;
        assert_eq!(bench.totals(1).tx_packets, bench.count(Verdict::Forwarded));
        assert!(octets > 0 && bench.totals(1).drops().count() == 0);
        send(&mut bench, &inner(64, LEAST.max(mtu - AROUND) + 1));
        assert_eq!((bench.sent(1).len(), bench.count(Verdict::TooBig)), (0, 1), "whoever sends more is told");
    }
    // No IPv6 link is that narrow.
    let mut bench = bench(LEAST - 1, 512);
    send(&mut bench, &inner(64, LEAST));
    assert_eq!((bench.sent(1).len(), bench.count(Verdict::TooBig)), (0, 1));
}

#[test]
fn a_second_router_that_takes_less_than_the_first_has_nothing_to_say() {
    let mut bench = bench(1500, 512);
    for path in [1347, 1300, LEAST] {
        assert!(bench.tables.load().clients[1].track.path.learn(THERE.octets(), path as u16, 5));
        send(&mut bench, &inner(64, LEAST));
        let sent = bench.sent(1);
        assert!(sent.iter().all(|frame| frame.len() <= LINK + LEAST), "whatever the first told");
        let frame = reassembled(&sent);
        assert_eq!(opened(&bench, &frame), inner(63, LEAST));
    }
}

#[test]
fn packets_in_halves_are_told_apart() {
    let mut bench = bench(LEAST, 1024);
    for _ in 0..40 {
        send(&mut bench, &inner(64, LEAST));
    }
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 80);
    let mut identifications: Vec<_> = sent.iter().map(|frame| frame[LINK + 44..LINK + 48].to_vec()).collect();
    for pair in sent.chunks(2) {
        let frame = reassembled(pair);
        assert_eq!(opened(&bench, &frame), inner(63, LEAST));
    }
    identifications.sort();
    identifications.dedup();
    assert_eq!(identifications.len(), 40);
}

#[test]
fn a_packet_whose_second_half_finds_no_room_is_lost_and_counts_as_that() {
    for room in [0, 1] {
        let mut bench = bench(LEAST, 512);
        bench.worker.io_mut().kernel = Kernel { tx_ring: room, complete: 0, ..Kernel::default() };
        let before = bench.totals(1);
        send(&mut bench, &inner(64, LEAST));
        bench.turn();
        assert_eq!((bench.count(Verdict::Forwarded), bench.count(Verdict::TxRingFull)), (0, 1), "room for {room}");
        assert_eq!(bench.totals(1).tx_packets, before.tx_packets);
        assert_eq!(bench.totals(1).drops().collect::<Vec<_>>(), [(Verdict::TxRingFull, 1)]);
        bench.worker.io_mut().kernel = Kernel::default();
        assert_eq!(bench.sent(1).len(), room);
        send(&mut bench, &inner(64, LEAST));
        let frame = reassembled(&bench.sent(1));
        assert_eq!(opened(&bench, &frame), inner(63, LEAST), "and it goes on");
        assert_eq!((bench.count(Verdict::Forwarded), bench.count(Verdict::TxRingFull)), (1, 1));
    }
}

#[test]
fn without_a_frame_for_the_second_half_a_packet_is_lost_whole() {
    // The FILL rings of both ports hold all that there are.
    let mut bench = bench(LEAST, 256);
    bench.turn();
    assert_eq!(bench.worker.io_mut().ledger().free, 0);
    send(&mut bench, &inner(64, LEAST));
    assert_eq!((bench.sent(1).len(), bench.count(Verdict::TxRingFull)), (0, 1));
    assert_eq!(bench.count(Verdict::Forwarded), 0);
}

/// The ways of both families out of port 1, by one gateway.
fn ways_of_both() -> Ways {
    let Ways { exits, .. } = ways();
    let gateways: [_; 2] = [mapped(GATEWAY), GATEWAY_SIX.octets()];
    let table = Action::Table(254, None);
    let rule = |family| Rule { priority: 0, family, from: None, to: None, more: false, action: table };
    let route = |(prefix, gateway): (&str, _)| Route {
        table: 254,
        prefix: prefix.parse().expect("a prefix"),
        metric: 0,
        fate: Fate::Hops(vec![Hop { ifindex: ETH1, gateway: Some(gateway), weight: 1 }]),
        mtu: 0,
    };
    let routes = ["0.0.0.0/0", "::/0"].into_iter().zip(gateways).map(route).collect();
    let neighbour = |address| (Next { ifindex: ETH1, address }, Neighbour::new(MACS[0]));
    Ways {
        routes: Arc::new(Routes::new([Family::V4, Family::V6].map(rule).to_vec(), routes)),
        exits,
        neighbours: Arc::new(gateways.map(neighbour).into()),
    }
}

const GATEWAY_SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

#[test]
fn a_host_outside_is_told_in_one_packet_of_what_is_too_large_for_who_is_reached_over_ipv6() {
    let mut bench = bench_with("open = \"routed\"", 1500, 512);
    bench.ways.store(Arc::new(ways_of_both()));
    let host = "2001:db8:3::7";
    let of_v4 = |hops| whole(super::bench::inner(HOST, bench.bob.inner, hops, 1500));
    let of_v6 = |hops| inner_from(host, hops, 1500);
    let (v4, v6) = (outside(&of_v4(64)), [&outside(&[])[..12], &[0x86, 0xdd], &of_v6(64)].concat());
    let quoted = (of_v4(63), of_v6(63));
    let largest = ((1500 - AROUND) as u16).to_be_bytes();

    bench.arrive(1, &v4);
    let sent = bench.sent(1);
    assert_eq!((sent.len(), bench.count(Verdict::TxRingFull)), (1, 0));
    let (link, error) = sent[0].split_at(LINK);
    assert_eq!((&link[..6], &link[6..12], &link[12..]), (&MACS[0][..], &MACS[1][..], &[0x08, 0][..]));
    // Fragmentation needed (RFC 792, RFC 1191 §4).
    assert_eq!((error[9], &error[20..22], &error[26..28]), (1, &[3, 4][..], &largest[..]));
    assert_eq!((&error[16..20], checksum::of(&error[20..])), (&HOST.octets()[..], 0));
    assert_eq!(error[28..], quoted.0[..error.len() - 28]);

    bench.arrive(1, &v6);
    let sent = bench.sent(1);
    assert_eq!((sent.len(), bench.count(Verdict::TxRingFull)), (1, 0));
    let (link, error) = sent[0].split_at(LINK);
    assert_eq!((&link[..6], &link[6..12], &link[12..]), (&MACS[0][..], &MACS[1][..], &[0x86, 0xdd][..]));
    // Packet too big (RFC 4443 §3.2).
    assert_eq!((error[6], &error[40..42], &error[46..48]), (58, &[2, 0][..], &largest[..]));
    assert_eq!(error[24..40], host.parse::<Ipv6Addr>().expect("an address").octets());
    assert_eq!(error.len(), LEAST);
    assert_eq!(error[48..], quoted.1[..LEAST - 48]);
    assert_eq!(bench.count(Verdict::TooBig), 2);
}
