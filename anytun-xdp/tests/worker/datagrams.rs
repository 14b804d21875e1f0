//! Datagrams that the kernel received for a service, on plain memory: outer fragments that it has put together.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::mapped;
use anytun_xdp::mode::icmp::Kind;
use anytun_xdp::table::Tags;
use anytun_xdp::table::ways::{
    Action, Exit, Family, Fate, Hop, Neighbour, Neighbours, Next, Route, Routes, Rule, Ways,
};
use anytun_xdp::worker::datagram::{enclose, head};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;
use anytun_xdp::worker::slow::{Bell, Feed, Parcel, Way, inlet};

use super::bench::{Bench, inner};
use super::open::office;
use super::sizes::{LARGEST, reassembled, whole};

/// Octets of the largest inner packet that the daemons send: their buffers hold 1600 with header, payload type and tag.
const DAEMONS: usize = 1600 - 8 - 2 - 10;
/// The service.
const SERVICE: &str = "192.0.2.53:4444";
/// The kernel's number of alice's interface.
const ETH0: u32 = 2;

/// A bench, and the kernel's end of its slow path.
struct Node {
    bench: Bench,
    feed: Feed,
}

fn node(parcels: usize) -> Node {
    node_with(parcels, 512)
}

fn node_with(parcels: usize, frames: usize) -> Node {
    let mut bench = Bench::introduced(Kernel::default(), frames);
    let (inlet, feed) = inlet(parcels, 0, Bell::new(|| ()));
    bench.worker.receive_from(inlet);
    Node { bench, feed }
}

impl Node {
    /// Alice seals an inner packet with the next sequence number.
    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.bench.alice.sequence += 1;
        self.bench.alice.seal(self.bench.alice.sequence - 1, 0x0800, inner)
    }

    /// Lets the kernel receive what is in a frame of alice's; says whether there was a parcel for it.
    fn receive(&mut self, frame: &[u8], to: &str, tos: u8) -> bool {
        let from = SocketAddr::from((self.bench.alice.outer, self.bench.alice.port));
        let mut parcel = Parcel::new(4096);
        let memory = &mut parcel.memory()[..frame.len()];
        memory[head(true)..].copy_from_slice(&frame[head(true)..]);
        enclose(memory, from, to.parse().expect("an address"), tos).expect("a datagram");
        parcel.set(Way::Service, frame.len());
        self.feed.send(&mut parcel, 0).is_ok()
    }

    /// The same with an inner packet of alice's, to the service.
    fn alice_sends(&mut self, inner: &[u8]) {
        let frame = self.seal(inner);
        assert!(self.receive(&frame, SERVICE, 0));
    }
}

#[test]
fn a_datagram_goes_the_way_of_every_packet() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    for length in [20, 84, 1400, LARGEST] {
        node.alice_sends(&inner(alice, bob, 64, length));
        assert_eq!(node.bench.turn(), 1);
        let sent = node.bench.sent(1);
        assert_eq!(sent.len(), 1, "{length} octets");
        assert_eq!(node.bench.bob.open(&sent[0]).1, inner(alice, bob, 63, length));
    }
    assert_eq!((node.bench.count(Verdict::Forwarded), node.bench.counters.injected()), (4, 4));
    assert_eq!((node.bench.totals(0).rx_packets, node.bench.totals(1).tx_packets), (5, 4));
    assert_eq!(node.bench.counters.rx_packets(), 3, "the rings had nothing to do with it");
}

#[test]
fn the_largest_that_daemons_send_arrives_in_inner_fragments_or_is_answered() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    let mut packet = inner(alice, bob, 64, DAEMONS);
    packet.iter_mut().skip(20).zip(0..).for_each(|(octet, place): (_, u32)| *octet = place as u8 ^ (place >> 8) as u8);
    node.alice_sends(&packet);
    let sent = node.bench.sent(1);
    let fragments: Vec<_> = sent.iter().map(|frame| node.bench.bob.open(frame).1).collect();
    assert_eq!(fragments.len(), 2);
    assert_eq!(reassembled(&fragments), packet[20..]);
    node.alice_sends(&whole(packet));
    let sent = node.bench.sent(0);
    let (_, answer) = node.bench.alice.open(&sent[0]);
    assert_eq!(answer[20..22], [3, 4], "fragmentation needed");
    assert_eq!(usize::from(u16::from_be_bytes([answer[26], answer[27]])), LARGEST);
    assert_eq!(node.bench.counters.icmp_errors(Kind::TooBig), 1);
}

#[test]
fn only_a_few_are_taken_in_a_turn_and_what_finds_no_parcel_stays_outside() {
    // One sender alone gets half of what there is.
    let mut node = node(80);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    for _ in 0..40 {
        node.alice_sends(&inner(alice, bob, 64, 84));
    }
    let frame = node.seal(&inner(alice, bob, 64, 84));
    assert!(!node.receive(&frame, SERVICE, 0));
    let turns: Vec<usize> = (0..4).map(|_| node.bench.turn()).collect();
    assert_eq!(turns, [16, 16, 8, 0]);
    let sent = node.bench.sent(1);
    let numbers: Vec<u32> = sent.iter().map(|frame| node.bench.bob.open(frame).0).collect();
    assert!(numbers.len() == 40 && numbers.is_sorted(), "all, and in order: {numbers:?}");
    assert!(node.receive(&frame, SERVICE, 0), "and it goes on");
    assert_eq!(node.bench.sent(1).len(), 1);
}

#[test]
fn what_cannot_be_carried_ends_under_its_name_and_costs_no_frame() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    let good = node.seal(&inner(alice, bob, 64, 84));
    let mut forged = good.clone();
    forged[60] ^= 1;
    let mut unknown = good.clone();
    unknown[49] ^= 0x40;
    // A frame of the bench has 2048 octets.
    let large = node.seal(&inner(alice, bob, 64, 2048 - 62 + 1));
    assert_eq!(large.len(), 2049);
    let rows = [
        (Verdict::BadTag, &forged, SERVICE, 0),
        (Verdict::UnknownMux, &unknown, SERVICE, 0),
        (Verdict::Short, &good[..45].to_vec(), SERVICE, 0),
        (Verdict::Stray, &good, "192.0.2.53:4445", 0),
        (Verdict::Stray, &good, "192.0.2.54:4444", 0),
        (Verdict::TooBig, &large, SERVICE, 0),
        // Congestion that the kernel saw on a fragment, around a packet that cannot be marked.
        (Verdict::EcnMismatch, &good, SERVICE, 3),
        (Verdict::Replayed, &good, SERVICE, 0),
    ];
    for (row, (verdict, frame, to, tos)) in rows.into_iter().enumerate() {
        let before = node.bench.count(verdict);
        assert!(node.receive(frame, to, tos));
        node.bench.turn();
        assert_eq!(node.bench.count(verdict), before + 1, "row {row}: {}", verdict.name());
    }
    assert_eq!((node.bench.sent(0).len(), node.bench.sent(1).len()), (0, 0));
    assert_eq!(node.bench.counters.injected(), 8);
}

#[test]
fn without_a_free_frame_a_datagram_is_dropped_and_counted() {
    // The FILL rings of both ports hold all that there are.
    let mut node = node_with(8, 256);
    node.bench.turn();
    assert_eq!(node.bench.worker.io_mut().ledger().free, 0);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    node.alice_sends(&inner(alice, bob, 64, 84));
    node.bench.turn();
    assert_eq!((node.bench.count(Verdict::TxRingFull), node.bench.sent(1).len()), (1, 0));
}

#[test]
fn what_was_for_a_service_that_is_gone_is_not_for_a_nat_at_its_address() {
    let mut node = node(8);
    let nat = "open = \"nat\"\nnat = { address = \"192.0.2.53\", ports = \"20000-29999\" }";
    node.bench.configure(&office(nat));
    let frame = node.seal(&[]);
    for port in [4445, 20_000] {
        assert!(node.receive(&frame, &format!("192.0.2.53:{port}"), 0));
    }
    node.bench.turn();
    assert_eq!((node.bench.count(Verdict::Stray), node.bench.count(Verdict::NatNoMapping)), (2, 0));
}

/// Routes to `198.51.100.0/24` behind port 0, where these neighbours are.
fn ways(neighbours: Neighbours) -> Ways {
    let rule =
        Rule { priority: 0, family: Family::V4, from: None, to: None, more: false, action: Action::Table(254, None) };
    let route = Route {
        table: 254,
        prefix: "198.51.100.0/24".parse().expect("a prefix"),
        metric: 0,
        fate: Fate::Hops(vec![Hop { ifindex: ETH0, gateway: None, weight: 1 }]),
        mtu: 0,
    };
    let exit = Exit { slot: 0, mac: [2, 0, 0, 0, 0, 1], tags: Tags::default(), mtu: 1500 };
    Ways {
        routes: Arc::new(Routes::new(vec![rule], vec![route])),
        exits: Arc::new([(ETH0, exit)].into()),
        neighbours: Arc::new(neighbours),
    }
}

/// Somewhere else on alice's link.
const AWAY: [u8; 4] = [198, 51, 100, 77];

#[test]
fn a_client_that_is_where_it_was_keeps_the_way_that_its_frames_came() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    // By the routes it would be behind another neighbour.
    let next = Next { ifindex: ETH0, address: mapped([198, 51, 100, 1]) };
    node.bench.ways.store(Arc::new(ways([(next, Neighbour::new([2, 0, 0, 0, 9, 9]))].into())));
    node.alice_sends(&inner(alice, bob, 64, 84));
    node.bench.turn();
    let frame = node.bench.bob.send(bob, alice, 84);
    node.bench.arrive(1, &frame);
    let sent = node.bench.sent(0);
    assert_eq!(node.bench.alice.open(&sent[0]).1, inner(bob, alice, 63, 84));
}

#[test]
fn a_client_that_has_moved_is_found_by_routes_once_its_neighbour_is_known() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    node.bench.alice.outer = AWAY;
    node.bench.alice.port = 5001;
    let next = Next { ifindex: ETH0, address: mapped(AWAY) };
    // Without a route nothing is learned, and nothing is asked for.
    node.alice_sends(&inner(alice, bob, 64, 84));
    assert_eq!(node.bench.sent(1).len(), 1);
    assert_eq!((node.bench.endpoint_port(0), node.bench.asks.take().count()), (Some(4444), 0));
    node.bench.ways.store(Arc::new(ways(Neighbours::default())));
    node.alice_sends(&inner(alice, bob, 64, 84));
    assert_eq!(node.bench.sent(1).len(), 1, "what a client sends is carried all the same");
    assert_eq!(node.bench.endpoint_port(0), Some(4444));
    assert_eq!(node.bench.asks.take().collect::<Vec<_>>(), [next]);
    node.bench.ways.store(Arc::new(ways([(next, Neighbour::new([2, 0, 0, 0, 1, 1]))].into())));
    // What it may not send does not move it, as with every packet.
    node.alice_sends(&inner(bob, alice, 64, 84));
    node.bench.turn();
    assert_eq!((node.bench.endpoint_port(0), node.bench.count(Verdict::ForeignSource)), (Some(4444), 1));
    node.alice_sends(&[]);
    node.bench.turn();
    assert_eq!((node.bench.endpoint_port(0), node.bench.count(Verdict::Keepalive)), (Some(5001), 4));
    let frame = node.bench.bob.send(bob, alice, 84);
    node.bench.arrive(1, &frame);
    let sent = node.bench.sent(0);
    assert_eq!(node.bench.alice.open(&sent[0]).1, inner(bob, alice, 63, 84));
}

#[test]
fn a_client_found_by_routes_is_followed_when_its_neighbour_changes_until_a_frame_of_it_comes() {
    let mut node = node(8);
    let (alice, bob) = (node.bench.alice.inner, node.bench.bob.inner);
    node.bench.alice.outer = AWAY;
    let next = Next { ifindex: ETH0, address: mapped(AWAY) };
    let to_alice = |node: &mut Node| {
        let frame = node.bench.bob.send(bob, alice, 84);
        node.bench.arrive(1, &frame);
        node.bench.sent(0).first().map(|frame| frame[..6].to_vec())
    };
    for last in [7, 8] {
        let mac = [2, 0, 0, 0, 9, last];
        node.bench.ways.store(Arc::new(ways([(next, Neighbour::new(mac))].into())));
        node.alice_sends(&inner(alice, bob, 64, 84));
        assert_eq!(node.bench.sent(1).len(), 1);
        assert_eq!(to_alice(&mut node), Some(mac.to_vec()));
    }
    // While the new one is not known the old one counts, and the kernel is asked.
    node.bench.ways.store(Arc::new(ways(Neighbours::default())));
    node.alice_sends(&inner(alice, bob, 64, 84));
    node.bench.turn();
    assert_eq!(node.bench.asks.take().collect::<Vec<_>>(), [next]);
    assert_eq!(to_alice(&mut node), Some(vec![2, 0, 0, 0, 9, 8]));

    let frame = node.bench.alice.send(alice, bob, 84);
    node.bench.arrive(0, &frame);
    node.bench.turn();
    node.bench.ways.store(Arc::new(ways([(next, Neighbour::new([2, 0, 0, 0, 9, 9]))].into())));
    node.alice_sends(&inner(alice, bob, 64, 84));
    node.bench.turn();
    assert_eq!(to_alice(&mut node), Some(vec![2, 0, 0, 0, 1, 1]), "where its frame came from");
}

#[test]
fn groups_get_their_copies_of_what_came_in_fragments() {
    let all = Ipv4Addr::new(10, 9, 0, 255);
    let mut node = node(8);
    node.bench.configure(&office("broadcast = [\"10.9.0.255\"]"));
    let alice = node.bench.alice.inner;
    node.alice_sends(&inner(alice, all, 64, 1400));
    let sent = node.bench.sent(1);
    assert_eq!(node.bench.bob.open(&sent[0]).1, inner(alice, all, 63, 1400));
    assert_eq!(node.bench.count(Verdict::Copied), 1);
}
