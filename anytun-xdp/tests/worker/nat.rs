//! Open tunnel mode behind an address of the node, on plain memory.

use std::net::Ipv4Addr;

use anytun_common::verdict::Verdict;
use anytun_common::wire::checksum;
use anytun_xdp::table::ways::{Exit, Ways};

use super::bench::Bench;
use super::open::{HOST, office, opened, outside};
use super::sizes::reassembled;
use super::sizes::whole;

/// The address and range of the NAT.
pub(crate) const NAT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
pub(crate) const KEYS: &str = "open = \"nat\"\nnat = { address = \"192.0.2.53\", ports = \"20000-29999\" }";
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// An IPv4 packet with a right checksum (RFC 791 §3.1).
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34, 0, 0, ttl, protocol, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A UDP datagram with a right checksum (RFC 768).
pub(crate) fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), ttl: u8, length: usize) -> Vec<u8> {
    let mut datagram = [from.1.to_be_bytes(), to.1.to_be_bytes(), (8 + length as u16).to_be_bytes(), [0; 2]].concat();
    datagram.extend((0..length).map(|place| place as u8));
    let mut pseudo = [from.0.octets(), to.0.octets()].concat();
    pseudo.extend_from_slice(&[0, UDP]);
    pseudo.extend_from_slice(&(8 + length as u16).to_be_bytes());
    pseudo.extend_from_slice(&datagram);
    let sum = checksum::of(&pseudo);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, ttl, UDP, &datagram)
}

/// A fragment of a UDP datagram: its flags and offset, which counts 8 octets, and its part of the payload (RFC 791 §3.1).
pub(crate) fn fragment(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(from, to, ttl, UDP, body);
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An ICMP message with a right checksum (RFC 792).
fn icmp(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(rest);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

pub(crate) fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Alice or bob sends an inner packet.
pub(crate) fn send(bench: &mut Bench, is_bob: bool, packet: &[u8]) {
    let (peer, at) = if is_bob { (&mut bench.bob, 1) } else { (&mut bench.alice, 0) };
    peer.sequence += 1;
    let frame = peer.seal(peer.sequence - 1, 0x0800, packet);
    bench.arrive(at, &frame);
}

/// Alice sends from `from` to a port of the host; returns her port outside.
pub(crate) fn lent(bench: &mut Bench, is_bob: bool, from: u16, to: u16) -> u16 {
    let inner = if is_bob { bench.bob.inner } else { bench.alice.inner };
    send(bench, is_bob, &udp((inner, from), (HOST, to), 64, 33));
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 1, "{from}");
    let lent = port(&sent[0], 14 + 20);
    assert!(PORTS.contains(&lent), "{lent}");
    assert_eq!(sent[0][14..], udp((NAT, lent), (HOST, to), 63, 33), "{from}");
    lent
}

#[test]
fn a_client_is_seen_as_the_nat_and_gets_the_answers() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    for length in [0, 1, 700] {
        bench.arrive(1, &outside(&udp((HOST, 53), (NAT, lent), 60, length)));
        let sent = bench.sent(0);
        assert_eq!(sent.len(), 1, "{length}");
        assert_eq!(bench.alice.open(&sent[0]).1, udp((HOST, 53), (alice, 5000), 59, length));
    }
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::Forwarded)), (1, 3));
    let echo = icmp(8, &[0x77, 0x11, 0, 1, 9, 9]);
    send(&mut bench, false, &ipv4(alice, HOST, 64, ICMP, &echo));
    let sent = bench.sent(1);
    let id = port(&sent[0], 14 + 20 + 4);
    assert!(PORTS.contains(&id), "{id}");
    let rest = |id: u16| [&id.to_be_bytes()[..], &[0, 1, 9, 9]].concat();
    assert_eq!(sent[0][14..], ipv4(NAT, HOST, 63, ICMP, &icmp(8, &rest(id))));
    bench.arrive(1, &outside(&ipv4(HOST, NAT, 60, ICMP, &icmp(0, &rest(id)))));
    let sent = bench.sent(0);
    assert_eq!(bench.alice.open(&sent[0]).1, ipv4(HOST, alice, 59, ICMP, &icmp(0, &rest(0x7711))));
}

/// What goes out right behind one another: whoever's it is, and however large.
#[test]
fn each_packet_leaves_from_its_own_port_whatever_went_before_it() {
    let mut bench = opened(KEYS);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let lent = [(false, 5000), (false, 5001), (true, 5000)].map(|(is_bob, from)| lent(&mut bench, is_bob, from, 53));
    let [first, second, bobs] = lent;
    assert!(first != second && second != bobs && first != bobs);
    let turns = [
        (false, 5000, 33, first),
        (false, 5000, 0, first),
        (false, 5001, 33, second),
        (false, 5000, 700, first),
        (true, 5000, 700, bobs),
        (true, 5000, 1, bobs),
        (false, 5000, 1, first),
    ];
    let mut wanted = Vec::new();
    for (is_bob, from, length, port) in turns {
        let peer = if is_bob { &mut bench.bob } else { &mut bench.alice };
        let inner = if is_bob { bob } else { alice };
        peer.sequence += 1;
        // All through one port, so that they are of one batch.
        let frame = peer.seal(peer.sequence - 1, 0x0800, &udp((inner, from), (HOST, 53), 64, length));
        bench.arrive(0, &frame);
        wanted.push(udp((NAT, port), (HOST, 53), 63, length));
    }
    let sent: Vec<_> = bench.sent(1).iter().map(|frame| frame[14..].to_vec()).collect();
    assert_eq!(sent, wanted);
}

#[test]
fn a_host_outside_is_told_by_the_nat_about_the_packet_it_sent() {
    let mut bench = opened(KEYS);
    let lent = lent(&mut bench, false, 5000, 53);
    let packet = udp((HOST, 53), (NAT, lent), 1, 33);
    bench.arrive(1, &outside(&packet));
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 1);
    let error = &sent[0][14..];
    assert_eq!((error[20..22].to_vec(), checksum::of(&error[20..])), (vec![11, 0], 0));
    assert_eq!(error[12..20], [NAT.octets(), HOST.octets()].concat());
    assert_eq!(error[28..], packet, "nothing of the client's own addresses");
}

#[test]
fn a_large_datagram_passes_the_nat_in_fragments() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let known = bench.ways.load_full();
    let exits = known.exits.iter().map(|(at, exit)| (*at, Exit { mtu: 1000, ..*exit })).collect();
    bench.ways.store(std::sync::Arc::new(Ways { exits: std::sync::Arc::new(exits), ..(*known).clone() }));
    // Others of its flow around it, which fit.
    for length in [33, 33, 1300, 33] {
        send(&mut bench, false, &udp((alice, 5000), (HOST, 53), 64, length));
    }
    let packets: Vec<_> = bench.sent(1).iter().map(|frame| frame[14..].to_vec()).collect();
    assert_eq!(packets.len(), 5);
    assert!(packets.iter().all(|packet| packet[12..20] == [NAT.octets(), HOST.octets()].concat()));
    let lent = port(&packets[0], 20);
    assert!(packets[..3].iter().all(|packet| *packet == udp((NAT, lent), (HOST, 53), 63, 33)));
    assert_eq!(reassembled(&packets[3..]), udp((NAT, lent), (HOST, 53), 63, 1300)[20..]);
}

/// RFC 7857 §2: what comes behind a reset shows that it was none, also in its batch.
#[test]
fn a_connection_outlives_a_reset_that_nobody_meant() {
    const TCP: u8 = 6;
    let (syn, rst, ack) = (0x02, 0x04, 0x10);
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let segment = |ports: [u16; 2], flags: u8| {
        let mut segment = ports.map(u16::to_be_bytes).concat();
        segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 16, 0, 0, 0, 0, 0]);
        segment
    };
    let out = |flags| ipv4(alice, HOST, 64, TCP, &segment([5000, 80], flags));
    send(&mut bench, false, &out(syn));
    let lent = port(&bench.sent(1)[0], 14 + 20);
    let back = |flags| outside(&ipv4(HOST, NAT, 64, TCP, &segment([80, lent], flags)));
    bench.arrive(0, &back(syn | ack));
    send(&mut bench, false, &out(ack));
    bench.turn();
    // One batch.
    send(&mut bench, false, &out(ack));
    bench.arrive(0, &back(rst));
    send(&mut bench, false, &out(ack));
    bench.turn();
    assert_eq!((bench.count(Verdict::Outward), bench.count(Verdict::Forwarded)), (4, 2));
    // Longer than a connection lasts that was reset (RFC 5382 REQ-5: four minutes).
    bench.arrive(1, &back(ack));
    bench.worker.turn(10 * 60 * 1000);
    assert_eq!((bench.count(Verdict::Forwarded), bench.count(Verdict::NatNoMapping)), (3, 0));
}

#[test]
fn of_a_large_datagram_the_nat_takes_all_or_nothing_and_its_sender_is_told() {
    let mut bench = opened(&KEYS.replace(" }", ", ports_per_client = 1 }"));
    let alice = bench.alice.inner;
    lent(&mut bench, false, 5000, 53);
    let known = bench.ways.load_full();
    let exits = known.exits.iter().map(|(at, exit)| (*at, Exit { mtu: 1000, ..*exit })).collect();
    bench.ways.store(std::sync::Arc::new(Ways { exits: std::sync::Arc::new(exits), ..(*known).clone() }));
    let second = udp((alice, 5001), (HOST, 53), 64, 1300);
    send(&mut bench, false, &second);
    let sent = bench.sent(0);
    assert_eq!((bench.sent(1).len(), sent.len()), (0, 1));
    assert_eq!((bench.count(Verdict::NatLimit), bench.count(Verdict::NatFragment)), (1, 0), "one verdict");
    let (_, told) = bench.alice.open(&sent[0]);
    // Host unreachable (RFC 792), about the datagram as she sent it.
    assert_eq!((told[9], told[20..22].to_vec(), told[16..20].to_vec()), (ICMP, vec![3, 1], alice.octets().to_vec()));
    assert_eq!((&told[28 + 2..28 + 8], &told[28 + 12..28 + 28]), (&second[2..8], &second[12..28]));
}

#[test]
fn a_router_outside_tells_the_client_of_the_client_s_own_packet() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 33_434);
    let router = Ipv4Addr::new(203, 0, 113, 99);
    let error = |about: &[u8]| icmp(11, &[&[0; 4][..], about].concat());
    let about = udp((NAT, lent), (HOST, 33_434), 0, 33);
    bench.arrive(1, &outside(&ipv4(router, NAT, 60, ICMP, &error(&about[..28]))));
    let sent = bench.sent(0);
    assert_eq!(sent.len(), 1);
    let own = udp((alice, 5000), (HOST, 33_434), 0, 33);
    assert_eq!(bench.alice.open(&sent[0]).1, ipv4(router, alice, 59, ICMP, &error(&own[..28])));
}

#[test]
fn who_was_not_asked_is_not_let_in() {
    let mut bench = opened(KEYS);
    let lent = lent(&mut bench, false, 5000, 53);
    let other = Ipv4Addr::new(203, 0, 113, 8);
    let unused = if lent == 20_000 { 20_001 } else { 20_000 };
    for (from, to, verdict) in [
        ((HOST, 54), lent, Verdict::NatFiltered),
        ((other, 53), lent, Verdict::NatFiltered),
        ((HOST, 53), unused, Verdict::NatNoMapping),
        ((HOST, 53), 30_000, Verdict::NatForeignRange),
    ] {
        let before = bench.count(verdict);
        bench.arrive(1, &outside(&udp(from, (NAT, to), 60, 33)));
        assert_eq!(bench.sent(0).len(), 0, "{verdict:?}");
        assert_eq!(bench.count(verdict), before + 1, "{verdict:?}");
    }
    let alice = bench.alice.inner;
    bench.arrive(1, &outside(&udp((HOST, 53), (alice, 5000), 60, 33)));
    assert_eq!(bench.sent(0).len(), 0, "her own address is not known outside");
    assert_eq!(bench.count(Verdict::Stray), 1);
}

#[test]
fn a_client_that_opens_ports_without_end_is_told_so_and_hurts_nobody() {
    let mut bench = opened(&KEYS.replace(" }", ", ports_per_client = 2 }"));
    let alice = bench.alice.inner;
    for from in [5000, 5001] {
        lent(&mut bench, false, from, 53);
    }
    let third = udp((alice, 5002), (HOST, 53), 64, 33);
    send(&mut bench, false, &third);
    let sent = bench.sent(0);
    assert_eq!(bench.sent(1).len(), 0);
    assert_eq!(bench.count(Verdict::NatLimit), 1);
    let (_, told) = bench.alice.open(&sent[0]);
    // Host unreachable (RFC 792), about the packet as she sent it but for the hop.
    assert_eq!((told[9], told[20..22].to_vec(), told[16..20].to_vec()), (ICMP, vec![3, 1], alice.octets().to_vec()));
    assert_eq!(told[28 + 12..28 + 28], third[12..28]);
    assert_eq!(bench.tables.load().clients[0].members.as_ref().map(|members| members.all().count()), Some(1));
    lent(&mut bench, true, 5002, 53);
}

#[test]
fn a_reload_keeps_ports_and_a_client_that_goes_loses_them() {
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    bench.configure(&office(&format!("mss_clamp = false\n{KEYS}")));
    let answer = outside(&udp((HOST, 53), (NAT, lent), 60, 33));
    bench.arrive(1, &answer);
    let sent = bench.sent(0);
    assert_eq!(bench.alice.open(&sent[0]).1, udp((HOST, 53), (alice, 5000), 59, 33));
    bench.configure(&office(KEYS).replace("10.9.0.11/32", "10.9.0.21/32"));
    bench.arrive(1, &answer);
    assert_eq!(bench.sent(0).len(), 0, "the address is not hers any more");
    assert_eq!(bench.count(Verdict::NatNoMapping), 1);
    bench.configure(&office(KEYS).replace("name = \"alice\"", "name = \"dave\""));
    bench.arrive(1, &answer);
    assert_eq!(bench.sent(0).len(), 0, "the port is nobody's");
    assert_eq!(bench.count(Verdict::NatNoMapping), 2);
}

#[test]
fn limits_change_and_what_is_lent_stays() {
    let with = |more: &str| office(&KEYS.replace(" }", &format!("{more} }}")));
    let mut bench = opened(KEYS);
    let alice = bench.alice.inner;
    let first = lent(&mut bench, false, 5000, 53);
    bench.configure(&with(", ports_per_client = 1"));
    bench.tables.load().nats.adjust();
    assert_eq!(lent(&mut bench, false, 5000, 53), first, "the port that she has stays hers");
    send(&mut bench, false, &udp((alice, 5001), (HOST, 53), 64, 33));
    assert_eq!((bench.sent(1).len(), bench.count(Verdict::NatLimit)), (0, 1), "one port is what she may have now");
    assert_eq!(bench.sent(0).len(), 1, "and she is told");
    bench.configure(&with(", ports_per_client = 2"));
    bench.tables.load().nats.adjust();
    assert_ne!(lent(&mut bench, false, 5001, 53), first);
    assert_eq!(lent(&mut bench, false, 5000, 53), first);
    bench.configure(&with(", ports_per_client = 2, filtering = \"address-dependent\""));
    bench.tables.load().nats.adjust();
    bench.arrive(1, &outside(&udp((HOST, 53), (NAT, first), 60, 33)));
    assert_eq!(bench.sent(0).len(), 0, "who may answer is part of what is lent");
}

#[test]
fn two_clients_behind_one_nat_meet_by_their_ports() {
    let mut bench = opened(&KEYS.replace(" }", ", filtering = \"endpoint-independent\" }"));
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let of_bob = lent(&mut bench, true, 6000, 53);
    send(&mut bench, false, &udp((alice, 5000), (NAT, of_bob), 64, 33));
    let sent = bench.sent(1);
    assert_eq!(sent.len(), 1);
    let (_, got) = bench.bob.open(&sent[0]);
    let of_alice = port(&got, 20);
    assert!(PORTS.contains(&of_alice), "{of_alice}");
    assert_eq!(got, udp((NAT, of_alice), (bob, 6000), 63, 33));
    send(&mut bench, true, &udp((bob, 6000), (NAT, of_alice), 64, 33));
    let sent = bench.sent(0);
    assert_eq!(bench.alice.open(&sent[0]).1, udp((NAT, of_bob), (alice, 5000), 63, 33));
}

#[test]
fn no_way_out_is_told_about_the_packet_as_it_was_sent() {
    let mut bench = opened(KEYS);
    bench.ways.store(std::sync::Arc::default());
    let packet = udp((bench.alice.inner, 5000), (HOST, 53), 64, 33);
    send(&mut bench, false, &packet);
    let sent = bench.sent(0);
    assert_eq!(bench.count(Verdict::NoWay), 1);
    let (_, told) = bench.alice.open(&sent[0]);
    assert_eq!(told[28 + 12..28 + 28], packet[12..28]);
}

#[test]
fn an_error_about_a_packet_to_a_neighbour_behind_the_nat_is_about_what_was_sent() {
    let mut bench = opened(&KEYS.replace(" }", ", filtering = \"endpoint-independent\" }"));
    let alice = bench.alice.inner;
    let of_bob = lent(&mut bench, true, 6000, 53);
    let big = whole(udp((alice, 5000), (NAT, of_bob), 64, 1460));
    send(&mut bench, false, &big);
    let sent = bench.sent(0);
    assert_eq!((bench.count(Verdict::TooBig), sent.len()), (1, 1));
    let (_, told) = bench.alice.open(&sent[0]);
    assert_eq!((told[9], told[20..22].to_vec(), told[16..20].to_vec()), (ICMP, vec![3, 4], alice.octets().to_vec()));
    assert_eq!(checksum::fold(checksum::add(0, &told[20..])), 0xffff);
    let quoted = &told[28..];
    assert_eq!(quoted[12..20], [alice.octets(), NAT.octets()].concat());
    assert_eq!(quoted[20..24], big[20..24], "her port, and the one she sent to");
}

#[test]
fn later_fragments_find_their_nat_among_those_of_one_address() {
    let beside =
        "[[network]]\nname = \"guests\"\nopen = \"nat\"\nnat = { address = \"192.0.2.53\", ports = \"5000-5999\" }\n";
    let mut bench = opened(KEYS);
    bench.configure(&(office(KEYS) + beside));
    let alice = bench.alice.inner;
    let lent = lent(&mut bench, false, 5000, 53);
    let datagram = udp((HOST, 53), (NAT, lent), 60, 64);
    let own = udp((HOST, 53), (alice, 5000), 59, 64);
    // The first has 40 octets, the last what is left of 72 (RFC 791 §3.2); MF is 0x2000, and offsets count 8 octets.
    for (flags, part) in [(0x2000, 20..60), (0x0005, 60..92)] {
        bench.arrive(1, &outside(&fragment(HOST, NAT, 60, flags, &datagram[part.clone()])));
        let sent = bench.sent(0);
        assert_eq!(sent.len(), 1, "{part:?}");
        assert_eq!(bench.alice.open(&sent[0]).1, fragment(HOST, alice, 59, flags, &own[part]));
    }
}
