//! What senders are told of packets that go no further, and packets that are too large for their way.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::mode::icmp::Kind;
use anytun_xdp::mode::path::{Heard, TooBig};
use anytun_xdp::worker::BATCH;
use anytun_xdp::worker::memory::Kernel;

use crate::bench::{Bench, CONFIG, build, inner};

/// Octets of the largest inner packet in an MTU of 1500: without IPv4, UDP, SATP, payload type and tag.
pub(crate) const LARGEST: usize = 1500 - 20 - 8 - 8 - 2 - 10;
const DUMMY: [u8; 4] = [192, 0, 0, 8];

/// `packet` with other flags and offset.
fn flagged(mut packet: Vec<u8>, flags: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// `packet`, not to be fragmented.
pub(crate) fn whole(packet: Vec<u8>) -> Vec<u8> {
    flagged(packet, 0x4000)
}

/// Alice sends an inner packet.
fn send(bench: &mut Bench, packet: &[u8]) {
    bench.alice.sequence += 1;
    let frame = bench.alice.seal(bench.alice.sequence - 1, 0x0800, packet);
    bench.arrive(0, &frame);
}

/// What alice is told after she has sent an inner packet; nothing when she is not.
fn told(bench: &mut Bench, packet: &[u8]) -> Option<Vec<u8>> {
    send(bench, packet);
    let sent = bench.sent(0);
    assert!(sent.len() < 2, "{} packets", sent.len());
    let error = bench.alice.open(sent.first()?).1;
    assert_eq!(error[9], 1, "ICMP");
    assert_eq!((error[12..16].to_vec(), error[16..20].to_vec()), (DUMMY.to_vec(), bench.alice.inner.octets().to_vec()));
    assert_eq!((checksum::of(&error[..20]), checksum::of(&error[20..])), (0, 0));
    Some(error)
}

fn errors(bench: &Bench) -> [u64; Kind::COUNT] {
    std::array::from_fn(|index| bench.counters.icmp_errors(Kind::ALL[index]))
}

#[test]
fn the_sender_of_what_goes_no_further_is_told_why() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let nowhere = Ipv4Addr::new(10, 9, 0, 99);
    let rows = [
        (Verdict::HopLimit, inner(alice, bob, 1, 84), [11, 0, 0, 0]),
        (Verdict::NoRoute, inner(alice, nowhere, 64, 84), [3, 0, 0, 0]),
        (Verdict::NoRoute, inner(alice, bench.carol.inner, 64, 84), [3, 0, 0, 0]),
        (Verdict::TooBig, whole(inner(alice, bob, 64, LARGEST + 1)), [3, 4, 0x05, 0xac]),
    ];
    assert_eq!(LARGEST, 0x5ac);
    for (row, (verdict, packet, [kind, code, mtu_high, mtu_low])) in rows.into_iter().enumerate() {
        let before = bench.count(verdict);
        let error = told(&mut bench, &packet).expect("an error");
        assert_eq!(error[20..22], [kind, code], "row {row}");
        assert_eq!(error[26..28], [mtu_high, mtu_low], "row {row}");
        assert_eq!(error[28 + 12..48], packet[12..20], "row {row}: the addresses of the packet are quoted");
        assert_eq!(error[48..], packet[20..error.len() - 28], "row {row}");
        assert_eq!(bench.count(verdict), before + 1, "row {row}: it is dropped all the same");
    }
    assert_eq!(errors(&bench), [1, 2, 1]);
    assert_eq!(bench.sent(1).len(), 0);
    assert_eq!(bench.totals(0).tx_packets, 4);
}

#[test]
fn a_client_that_is_not_there_is_a_host_that_cannot_be_reached() {
    let mut bench = Bench::new(Kernel::default(), 512);
    let packet = inner(bench.alice.inner, bench.bob.inner, 64, 84);
    let error = told(&mut bench, &packet).expect("an error");
    assert_eq!(error[20..22], [3, 1]);
    assert_eq!(bench.count(Verdict::NoEndpoint), 1);
}

#[test]
fn nobody_is_told_of_what_was_not_the_clients_own_or_is_an_error() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let mut error = inner(alice, bob, 1, 84);
    error[9] = 1;
    error[20] = 3;
    let silent = [
        inner(bob, alice, 1, 84),
        inner(bob, Ipv4Addr::new(10, 9, 0, 99), 64, 84),
        inner(Ipv4Addr::new(192, 0, 2, 99), bob, 1, 84),
        inner(alice, Ipv4Addr::new(224, 0, 0, 1), 1, 84),
        inner(Ipv4Addr::new(127, 0, 0, 1), bob, 1, 84),
        error,
        flagged(inner(alice, bob, 1, 84), 0x0001),
    ];
    for (row, packet) in silent.into_iter().enumerate() {
        assert_eq!(told(&mut bench, &packet), None, "row {row}");
    }
    // Forged: a right header, sealed with another client's key.
    bench.bob.mux = 1;
    let forged = bench.bob.seal(1 << 20, 0x0800, &inner(alice, bob, 1, 84));
    bench.bob.mux = 2;
    bench.arrive(0, &forged);
    assert_eq!((bench.sent(0).len(), bench.sent(1).len()), (0, 0));
    assert_eq!(errors(&bench), [0; 3]);
}

#[test]
fn a_flood_is_told_no_more_than_the_rate_allows_and_others_are_told_still() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    for _ in 0..10 {
        for _ in 0..BATCH {
            send(&mut bench, &inner(alice, bob, 1, 84));
        }
        bench.turn();
    }
    // No time passes, so it is what a full bucket holds.
    assert_eq!((bench.sent(0).len(), bench.count(Verdict::HopLimit)), (10, 640));
    assert_eq!(errors(&bench), [10, 0, 0]);
    let frame = bench.bob.seal(7, 0x0800, &inner(bob, alice, 1, 84));
    bench.arrive(1, &frame);
    assert_eq!(bench.sent(1).len(), 1);
    let silent = CONFIG.replace("sender_ids = \"7\"", "sender_ids = \"7\"\nicmp_rate = 0");
    let tables = build(&silent, &mut bench.keeper, None);
    bench.tables.store(Arc::new(tables));
    let frame = bench.bob.seal(8, 0x0800, &inner(bob, alice, 1, 84));
    bench.arrive(1, &frame);
    assert_eq!(bench.sent(1).len(), 0);
}

/// Puts fragments together by their offsets; panics where they do not fit.
pub(crate) fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = Vec::new();
    for (place, fragment) in fragments.iter().enumerate() {
        let flags = u16::from_be_bytes([fragment[6], fragment[7]]);
        assert_eq!(checksum::of(&fragment[..20]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([fragment[2], fragment[3]])), fragment.len());
        assert_eq!((flags & 0x1fff) as usize * 8, packet.len(), "no gap, no overlap");
        assert_eq!(flags & 0x2000 != 0, place + 1 < fragments.len());
        packet.extend_from_slice(&fragment[20..]);
    }
    packet
}

#[test]
fn every_size_arrives_whole_or_in_fragments_or_is_answered() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    for length in (60..=1900).step_by(46).chain([LARGEST - 1, LARGEST, LARGEST + 1, LARGEST + 2]) {
        let packet = inner(alice, bob, 64, length);
        send(&mut bench, &packet);
        let sent = bench.sent(1);
        let arrived: Vec<_> = sent.iter().map(|frame| bench.bob.open(frame).1).collect();
        assert!(sent.iter().all(|frame| frame.len() <= 14 + 1500));
        assert_eq!(arrived.len(), if length <= LARGEST { 1 } else { 2 }, "{length} octets");
        assert_eq!(reassembled(&arrived), packet[20..], "{length} octets");
        assert!(arrived.iter().all(|fragment| fragment[8] == 63));
    }
    assert_eq!(bench.count(Verdict::TooBig), 0);
    assert_eq!(errors(&bench), [0; 3]);
}

#[test]
fn a_batch_of_packets_that_are_too_large_is_fragmented_whole() {
    let mut bench = Bench::introduced(Kernel::default(), 1024);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    bench.worker.io_mut().kernel.tx_ring = 512;
    for length in 0..BATCH {
        send(&mut bench, &inner(alice, bob, 64, 1500 + length));
    }
    // The kernel is told in the turn after a full batch, when nothing follows.
    bench.turn();
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 2 * BATCH);
    let arrived: Vec<_> = sent.iter().map(|frame| bench.bob.open(frame)).collect();
    assert!(arrived.is_sorted_by(|(a, _), (b, _)| a < b), "no number twice");
    for (length, pair) in arrived.chunks(2).enumerate() {
        let pair: Vec<_> = pair.iter().map(|(_, packet)| packet.clone()).collect();
        assert_eq!(reassembled(&pair), inner(alice, bob, 64, 1500 + length)[20..]);
    }
}

#[test]
fn without_frames_to_spare_a_fragmented_packet_is_dropped_whole() {
    let mut bench = Bench::introduced(Kernel::default(), 256);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    // All frames are in the FILL rings, but the one that was received.
    send(&mut bench, &inner(alice, bob, 64, 1800));
    assert_eq!(bench.sent(1).len(), 0);
    assert_eq!(bench.count(Verdict::TxRingFull), 1);
    let frame = bench.alice.send(alice, bob, 84);
    bench.arrive(0, &frame);
    assert_eq!(bench.sent(1).len(), 1);
}

#[test]
fn a_path_that_is_narrower_counts_like_the_interface() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let there = mapped(bench.bob.outer);
    assert!(bench.tables.load().clients[1].track.path.learn(there, 1000, 5));
    let largest = LARGEST - 500;
    let error = told(&mut bench, &whole(inner(alice, bob, 64, largest + 1))).expect("an error");
    assert_eq!(usize::from(u16::from_be_bytes([error[26], error[27]])), largest);
    send(&mut bench, &whole(inner(alice, bob, 64, largest)));
    assert_eq!(bench.sent(1).len(), 1);
    let packet = inner(alice, bob, 64, LARGEST);
    send(&mut bench, &packet);
    let sent = bench.sent(1);
    assert!(sent.iter().all(|frame| frame.len() <= 14 + 1000));
    let arrived: Vec<_> = sent.iter().map(|frame| bench.bob.open(frame).1).collect();
    assert_eq!(reassembled(&arrived), packet[20..]);
    // Packets to alice go another way.
    let frame = bench.bob.send(bob, alice, LARGEST);
    bench.arrive(1, &frame);
    assert_eq!(bench.sent(0).len(), 1);
}

#[test]
fn a_router_is_believed_only_about_what_was_sent() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let frame = bench.alice.send(alice, bob, LARGEST);
    bench.arrive(0, &frame);
    let sent = bench.sent(1).remove(0)[14..].to_vec();
    assert_eq!(sent.len(), 1500);
    // The error of a router whose next link takes 1300 octets, about a packet that may be changed first.
    let error = |quoted: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut quote = sent[..quoted].to_vec();
        change(&mut quote);
        let mut message = [&[3, 4, 0, 0, 0, 0, 0x05, 0x14][..], &quote].concat();
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        TooBig::of_icmp(&message).expect("an error")
    };
    let tables = bench.tables.load_full();
    let learned = |error: TooBig| error.learn(&tables, 5);
    let there = mapped(bench.bob.outer);
    let rows = [
        (15, 54, Heard::Foreign, "another address than the service's"),
        (21, 0x5d, Heard::Foreign, "another port"),
        (19, 1, Heard::Elsewhere, "another address than bob's"),
        (23, 0x5d, Heard::Elsewhere, "another port"),
        (35, 1, Heard::Elsewhere, "the MUX of alice"),
        (35, 9, Heard::UnknownClient, "a MUX that is nobody's"),
        (28, 0x7f, Heard::NotSent, "a number of long ago, or of the future"),
        (31, sent[31] + 1, Heard::NotSent, "the number that comes next"),
        (32, 0x7f, Heard::NotSent, "another sender ID"),
    ];
    for (at, octet, heard, what) in rows {
        assert_eq!(learned(error(76, &|quote| quote[at] = octet)), heard, "{what}");
    }
    assert_eq!(learned(error(28, &|_| ())), Heard::ShortQuote, "without a number it is not believed");
    assert_eq!(tables.clients[1].track.path.get(there, 5), None);
    assert_eq!(learned(error(36, &|_| ())), Heard::Accepted);
    assert_eq!(tables.clients[1].track.path.get(there, 5), Some(1300));
    tables.clients[1].track.path.learn(there, 1299, 5);
    assert_eq!(learned(error(76, &|_| ())), Heard::Known);
    send(&mut bench, &inner(alice, bob, 64, LARGEST));
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|frame| frame.len() <= 14 + 1300));
}

/// A SYN with a segment size of 1460, with its checksum.
fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = inner(source, destination, 64, 44);
    packet[9] = 6;
    packet[20..].copy_from_slice(&[
        0xc3, 0x50, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x60, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4,
    ]);
    let sum = tcp_sum(&packet);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn tcp_sum(packet: &[u8]) -> u16 {
    let pseudo = [&packet[12..20], &[0, 6, 0, 24], &packet[20..]].concat();
    checksum::of(&pseudo)
}

#[test]
fn tcp_is_told_of_the_narrower_of_both_ways() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let announced = |bench: &mut Bench| {
        send(bench, &syn(alice, bob));
        let sent = bench.sent(1);
        let packet = bench.bob.open(&sent[0]).1;
        assert_eq!(tcp_sum(&packet), 0);
        usize::from(u16::from_be_bytes([packet[42], packet[43]]))
    };
    assert_eq!(announced(&mut bench), LARGEST - 40);
    let there = mapped(bench.alice.outer);
    assert!(bench.tables.load().clients[0].track.path.learn(there, 1400, 5));
    assert_eq!(announced(&mut bench), LARGEST - 100 - 40, "the way to whom the SYN comes from");
    let text = CONFIG.replace("name = \"office\"", "name = \"office\"\nmss_clamp = false");
    let before = bench.tables.load_full();
    let after = build(&text, &mut bench.keeper, Some(&before));
    bench.tables.store(Arc::new(after));
    assert_eq!(announced(&mut bench), 1460);
}
