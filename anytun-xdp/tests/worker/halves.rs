//! Outer IPv6 packets in two fragments, around inner ones of a size that every link has to take.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_xdp::satp::{Header, Role};
use anytun_xdp::table::{Host, Tables};
use anytun_xdp::worker::datagram::{enclose, head};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG, host, parse};

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
    let mut bench = Bench::introduced(Kernel::default(), frames);
    let text = CONFIG
        .replace("[[network]]\nname = \"office\"", &format!("{SIX}[[network]]\nname = \"office\""))
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
    let mut packet = vec![0x60, 0, 0, 0, ((length - 40) >> 8) as u8, (length - 40) as u8, 253, hops];
    for last in ["2001:db8:9::11", "2001:db8:9::12"] {
        packet.extend_from_slice(&last.parse::<Ipv6Addr>().expect("an address").octets());
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
