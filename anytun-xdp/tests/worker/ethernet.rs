//! An Ethernet network on plain memory.

use std::net::IpAddr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_xdp::table::KERNEL;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::slow::{Bell, Parcel, ThreadHalf, Way, halves};

use super::bench::{Bench, CONFIG};

const ETHERNET: u16 = 0x6558;
const ALL: [u8; 6] = [0xff; 6];
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A bench whose network `office` is an Ethernet with these keys. Carol is in a network of her own.
fn bench(keys: &str) -> Bench {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let text = CONFIG
        .replace("name = \"office\"\n[[", &format!("name = \"office\"\nkind = \"ethernet\"\n{keys}\n[["))
        .replace("name = \"lab\"\n", "name = \"lab\"\nkind = \"ethernet\"\n");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("prefixes")).collect();
    bench.configure(&without.join("\n"));
    bench
}

fn frame(to: [u8; 6], from: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.extend((0..length).map(|place| place as u8));
    frame
}

fn alice_sends(bench: &mut Bench, frame: &[u8]) {
    bench.alice.sequence += 1;
    let packet = bench.alice.seal(bench.alice.sequence - 1, ETHERNET, frame);
    bench.arrive(0, &packet);
}

fn bob_sends(bench: &mut Bench, frame: &[u8]) {
    bench.bob.sequence += 1;
    let packet = bench.bob.seal(bench.bob.sequence - 1, ETHERNET, frame);
    bench.arrive(1, &packet);
}

#[test]
fn frames_arrive_as_they_were_sent_and_where_their_station_is() {
    let mut bench = bench("");
    alice_sends(&mut bench, &frame(ALL, A, 46));
    let sent = bench.sent(1);
    assert_eq!(bench.bob.open_as(ETHERNET, &sent[0]).1, frame(ALL, A, 46));
    assert_eq!(bench.worker.io_mut().sent(0).len(), 0, "neither back, nor into another network");
    for length in [0, 46, 1400] {
        bob_sends(&mut bench, &frame(A, B, length));
        let sent = bench.sent(0);
        assert_eq!(bench.alice.open_as(ETHERNET, &sent[0]).1, frame(A, B, length));
    }
    assert_eq!((bench.count(Verdict::Copied), bench.count(Verdict::Forwarded)), (1, 4));
}

#[test]
fn what_has_nowhere_to_go_has_one_verdict() {
    let mut bench = bench("");
    bench.carol.sequence += 1;
    let alone = bench.carol.seal(bench.carol.sequence - 1, ETHERNET, &frame(ALL, A, 46));
    bench.arrive(0, &alone);
    bench.turn();
    assert_eq!((bench.count(Verdict::NoMember), bench.count(Verdict::Copied)), (1, 0));
    alice_sends(&mut bench, &frame(B, A, 46));
    bob_sends(&mut bench, &frame(A, B, 46));
    bench.turn();
    bench.turn();
    // Larger than the way: neither cut nor told, as nothing in it is an IP packet.
    alice_sends(&mut bench, &frame(B, A, 1490));
    bench.turn();
    assert_eq!(bench.count(Verdict::TooBig), 1);
    let ip = bench.alice.seal(90, 0x0800, &[0x45; 40]);
    bench.arrive(0, &ip);
    bench.turn();
    assert_eq!(bench.count(Verdict::PayloadType), 1);
    let counted: u64 = Verdict::ALL.iter().map(|verdict| bench.count(*verdict)).sum();
    assert_eq!(counted, bench.counters.rx_packets() + bench.counters.copies());
}

#[test]
fn a_reload_that_changes_no_client_forgets_no_station() {
    let mut bench = bench("");
    alice_sends(&mut bench, &frame(ALL, A, 46));
    bench.turn();
    bench.turn();
    let stations = |bench: &Bench| bench.tables.load().bridges[0].as_ref().map_or(0, |bridge| bridge.stations());
    assert_eq!(stations(&bench), 1);
    let text = CONFIG
        .replace("name = \"office\"\n[[", "name = \"office\"\nkind = \"ethernet\"\n[[")
        .replace("name = \"lab\"\n", "name = \"lab\"\nkind = \"ethernet\"\n");
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("prefixes")).collect();
    bench.configure(&text.join("\n"));
    assert_eq!(stations(&bench), 1);
    bench.configure(&text.join("\n").replace("name = \"bob\"", "name = \"dave\""));
    assert_eq!(stations(&bench), 0, "numbers may mean others");
}

/// An Ethernet network that the node's kernel is a port of, and the thread's end of its slow path.
struct Home {
    bench: Bench,
    thread: ThreadHalf,
    /// The address of the node's device.
    mac: [u8; 6],
}

/// A station behind a bridge of the host.
const D: [u8; 6] = [2, 0, 0, 0, 0, 0xd];

fn home(keys: &str) -> Home {
    let mut bench = bench(&format!("device = \"yard\"\n{keys}"));
    let (half, thread) = halves(128, 1600, Arc::new(Bell::new(|| ())), Bell::new(|| ()));
    bench.worker.connect(half);
    let given = bench.tables.load().bridge(0).map(|bridge| bridge.given().clone()).expect("an Ethernet network");
    let mac = given.into_iter().find_map(|(mac, owner)| (owner == KERNEL).then_some(mac)).expect("a device");
    Home { bench, thread, mac }
}

impl Home {
    /// What the kernel gets, in order.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(parcel) = self.thread.take() {
            assert_eq!(parcel.way(), Way::Device(0));
            frames.push(parcel.packet().to_vec());
            self.thread.give_back(parcel);
        }
        frames
    }

    /// Lets the kernel send a frame.
    fn inject(&mut self, frame: &[u8]) {
        let mut parcel = Parcel::new(1600);
        parcel.memory()[..frame.len()].copy_from_slice(frame);
        parcel.set(Way::Device(0), frame.len());
        self.thread.send(&mut parcel, 0).expect("an empty parcel");
    }

    /// What alice and bob get in two turns, opened.
    fn received(&mut self) -> [Vec<Vec<u8>>; 2] {
        let (near, far) = (self.bench.sent(0), self.bench.worker.io_mut().sent(1));
        let alice = near.iter().map(|frame| self.bench.alice.open_as(ETHERNET, frame).1).collect();
        [alice, far.iter().map(|frame| self.bench.bob.open_as(ETHERNET, frame).1).collect()]
    }

    /// Packets and copies that were taken, and those with a verdict: they must be as many.
    fn ensure_each_has_a_verdict(&self) {
        let (bench, counters) = (&self.bench, &self.bench.counters);
        let counted: u64 = Verdict::ALL.iter().map(|verdict| bench.count(*verdict)).sum();
        assert_eq!(counted, counters.rx_packets() + counters.copies() + counters.injected());
    }
}

#[test]
fn the_kernel_gets_what_is_for_it_and_for_everybody() {
    let mut home = home("");
    let mac = home.mac;
    alice_sends(&mut home.bench, &frame(ALL, A, 46));
    assert_eq!(home.received(), [vec![], vec![frame(ALL, A, 46)]]);
    assert_eq!(home.delivered(), [frame(ALL, A, 46)]);
    let tagged = [&mac[..], &A, &[0x81, 0, 0, 7, 0x88, 0xb5, 1, 2, 3]].concat();
    for frame in [frame(mac, A, 0), frame(mac, A, 1400), tagged] {
        alice_sends(&mut home.bench, &frame);
        assert_eq!(home.received(), [vec![], vec![] as Vec<Vec<u8>>], "nobody else gets it");
        assert_eq!(home.delivered(), [frame]);
    }
    bob_sends(&mut home.bench, &frame(A, B, 46));
    assert_eq!(home.received(), [vec![frame(A, B, 46)], vec![]]);
    assert_eq!(home.delivered(), [] as [Vec<u8>; 0], "what passes between clients");
    home.ensure_each_has_a_verdict();
}

/// A frame with an IP packet between two addresses, behind tags.
fn ip(to: [u8; 6], tags: &[u8], ends: [&str; 2]) -> Vec<u8> {
    let ends = ends.map(|end| end.parse().expect("an address"));
    let mut frame = [&to[..], &A, tags].concat();
    match ends {
        [IpAddr::V4(source), IpAddr::V4(destination)] => {
            frame.extend_from_slice(&[0x08, 0x00]);
            frame.extend_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        [IpAddr::V6(source), IpAddr::V6(destination)] => {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 17, 64]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        _ => panic!("two families"),
    }
    frame.resize(frame.len() + 20, 0);
    frame
}

#[test]
fn the_kernel_gets_nothing_that_it_would_route_or_answer_elsewhere_where_it_has_addresses() {
    let mut home = home("address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]");
    let mac = home.mac;
    let (v4, v6) = (["10.9.0.1", "192.0.2.1"], ["fd00:9::1", "2001:db8::1"]);
    let mut refused = 0;
    let mut check = |to: [u8; 6], tags: &[u8], ends: [&str; 2], is_for_node: bool| {
        let frame = ip(to, tags, ends);
        alice_sends(&mut home.bench, &frame);
        home.received();
        let expected: &[Vec<u8>] = if is_for_node { &[frame] } else { &[] };
        assert_eq!(home.delivered(), expected, "{tags:02x?} {ends:?}");
        refused += u64::from(!is_for_node && to != ALL);
    };
    for (source, is_of_link) in [("10.9.0.7", true), ("0.0.0.0", true), ("10.8.0.7", false), ("10.9.0.1", false)] {
        check(mac, &[], [source, v4[0]], is_of_link);
        check(mac, &[], [source, v4[1]], false);
    }
    for (source, is_of_link) in [("fd00:9::7", true), ("::", true), ("fe80::7", true), ("fd00:8::7", false)] {
        check(mac, &[], [source, v6[0]], is_of_link);
        check(mac, &[], [source, "fe80::1"], is_of_link);
        check(mac, &[], [source, v6[1]], false);
    }
    check(mac, &[], ["10.9.0.7", "10.9.0.2"], false);
    // To the kernel a tag without a VLAN is none.
    for tags in [&[0x81, 0, 0xe0, 0][..], &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0]] {
        check(mac, tags, ["10.9.0.7", v4[0]], true);
        check(mac, tags, ["10.9.0.7", v4[1]], false);
    }
    check(mac, &[0x81, 0, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 0], ["10.9.0.7", v4[0]], false);
    check(mac, &[0x81, 0, 0, 7], ["10.9.0.7", v4[1]], true);
    for (to, is_for_link) in
        [("10.9.0.255", true), ("224.0.0.1", true), ("255.255.255.255", true), (v4[0], true), (v4[1], false)]
    {
        check(ALL, &[], ["10.9.0.7", to], is_for_link);
    }
    check(ALL, &[], ["fe80::7", "ff02::1"], true);
    check(ALL, &[], ["fe80::7", v6[1]], false);
    assert_eq!(home.bench.count(Verdict::NoRoute), refused + 2);
    home.ensure_each_has_a_verdict();
}

#[test]
fn a_device_without_an_address_is_a_port_of_the_host_s_bridge() {
    let mut home = home("");
    let frame = ip(home.mac, &[], ["10.8.0.7", "192.0.2.1"]);
    alice_sends(&mut home.bench, &frame);
    home.received();
    assert_eq!(home.delivered(), [frame]);
}

#[test]
fn what_the_kernel_sends_reaches_everybody_or_its_station_and_never_comes_back() {
    let mut home = home("");
    let mac = home.mac;
    home.inject(&frame(ALL, mac, 46));
    assert_eq!(home.received(), [[frame(ALL, mac, 46)], [frame(ALL, mac, 46)]]);
    home.inject(&frame(B, mac, 46));
    assert_eq!(home.received(), [[frame(B, mac, 46)], [frame(B, mac, 46)]], "nobody has heard of it");
    bob_sends(&mut home.bench, &frame(mac, B, 46));
    home.bench.turn();
    assert_eq!(home.delivered(), [frame(mac, B, 46)]);
    for length in [0, 46, 1400] {
        home.inject(&frame(B, mac, length));
        assert_eq!(home.received(), [vec![], vec![frame(B, mac, length)]]);
    }
    // A station behind a bridge of the host is behind the kernel.
    home.inject(&frame(B, D, 46));
    assert_eq!(home.received(), [vec![], vec![frame(B, D, 46)]]);
    bob_sends(&mut home.bench, &frame(D, B, 46));
    home.bench.turn();
    assert_eq!(home.delivered(), [frame(D, B, 46)]);
    home.inject(&frame(D, mac, 46));
    assert_eq!(home.received(), [[], [] as [Vec<u8>; 0]]);
    assert_eq!((home.bench.count(Verdict::SameSide), home.delivered().len()), (1, 0));
    home.ensure_each_has_a_verdict();
}

#[test]
fn nobody_takes_the_node_s_address() {
    let mut home = home("");
    let mac = home.mac;
    for to in [ALL, B, mac] {
        alice_sends(&mut home.bench, &frame(to, mac, 46));
    }
    assert_eq!(home.received(), [[], [] as [Vec<u8>; 0]]);
    assert_eq!((home.bench.count(Verdict::ForeignSource), home.delivered().len()), (3, 0));
    let drops: Vec<_> = home.bench.totals(0).drops().collect();
    assert_eq!(drops, [(Verdict::ForeignSource, 3)], "on the client's account");
    bob_sends(&mut home.bench, &frame(mac, B, 46));
    home.bench.turn();
    assert_eq!(home.delivered(), [frame(mac, B, 46)], "it is where it was");
}

#[test]
fn what_the_kernel_may_not_send_ends_under_its_name() {
    let mut home = home("");
    let mac = home.mac;
    bob_sends(&mut home.bench, &frame(mac, B, 46));
    home.bench.turn();
    let cut: Vec<u8> = frame(B, mac, 1600 - 14);
    for (verdict, frame) in [
        (Verdict::MalformedInner, frame(B, mac, 46)[..13].to_vec()),
        (Verdict::MalformedInner, Vec::new()),
        (Verdict::MalformedInner, frame(B, ALL, 46)),
        (Verdict::LinkScope, frame([1, 0x80, 0xc2, 0, 0, 0], mac, 46)),
        // 1500 octets outside: 28 of headers, 8 of SATP, 2 of payload type and 10 of tag, 14 of the frame itself.
        (Verdict::TooBig, frame(B, mac, 1500 - 48 - 14 + 1)),
        (Verdict::TooBig, cut),
    ] {
        let before = home.bench.count(verdict);
        home.inject(&frame);
        home.bench.turn();
        assert_eq!(home.bench.count(verdict), before + 1, "{} {}", verdict.name(), frame.len());
    }
    home.inject(&frame(B, mac, 1500 - 48 - 14));
    assert_eq!(home.received()[1].len(), 1, "as large as the way takes");
    for _ in 0..40 {
        home.inject(&frame(ALL, mac, 46));
    }
    home.received();
    home.received();
    assert_eq!(home.bench.count(Verdict::StormLimit), 30, "a tenth of a second's worth goes");
    home.ensure_each_has_a_verdict();
    assert!(home.bench.worker.io_mut().ledger().holds());
}

#[test]
fn one_client_and_the_kernel_make_a_network() {
    let mut bench = bench("");
    let text = CONFIG
        .replace("name = \"office\"\n[[", "name = \"office\"\nkind = \"ethernet\"\n[[")
        .replace("name = \"lab\"\n", "name = \"lab\"\nkind = \"ethernet\"\naddress = \"10.9.0.1/24\"\n");
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("prefixes")).collect();
    bench.configure(&text.join("\n"));
    let (half, thread) = halves(8, 1600, Arc::new(Bell::new(|| ())), Bell::new(|| ()));
    bench.worker.connect(half);
    let mut home = Home { bench, thread, mac: [0; 6] };
    let packet = home.bench.carol.seal(1, ETHERNET, &frame(ALL, A, 46));
    home.bench.arrive(0, &packet);
    home.bench.turn();
    assert_eq!(home.delivered(), [frame(ALL, A, 46)]);
    home.inject(&frame(A, D, 46));
    let sent = home.bench.sent(0);
    assert_eq!(home.bench.carol.open_as(ETHERNET, &sent[0]).1, frame(A, D, 46));
    assert_eq!((home.bench.count(Verdict::Delivered), home.bench.count(Verdict::Copied)), (1, 0));
    home.ensure_each_has_a_verdict();
}

#[test]
fn a_tagged_frame_of_the_device_s_full_size_passes_both_ways_in_one_packet() {
    // The device has 1434: of 1500 octets outside 28 are headers, 20 SATP with payload type and tag, 14 Ethernet and 4 VLAN.
    const MTU: usize = 1434;
    let mut home = home("");
    let mac = home.mac;
    let tagged = |to: [u8; 6], from: [u8; 6], length: usize| {
        let mut frame = [&to[..], &from, &[0x81, 0, 0, 7, 0x88, 0xb5]].concat();
        frame.extend((0..length).map(|place| place as u8));
        frame
    };
    alice_sends(&mut home.bench, &tagged(mac, A, MTU));
    home.received();
    assert_eq!(home.delivered(), [tagged(mac, A, MTU)]);
    home.inject(&tagged(A, mac, MTU));
    assert_eq!(home.received(), [vec![tagged(A, mac, MTU)], vec![]]);
    home.inject(&tagged(A, mac, MTU + 1));
    assert_eq!(home.received(), [vec![], vec![] as Vec<Vec<u8>>]);
    assert_eq!(home.bench.count(Verdict::TooBig), 1);
    home.ensure_each_has_a_verdict();
}
