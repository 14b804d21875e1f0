//! A worker on plain memory, with a kernel that misbehaves on demand: what it forwards, what it drops and under which
//! name, and that no frame is ever lost.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, satp::HEADER};
use anytun_xdp::config::{self, Config};
use anytun_xdp::satp::lease::Keeper;
use anytun_xdp::satp::{AesCtr, Header, Keys, Role, Secret, Suite};
use anytun_xdp::table::{ClientTotals, Host, Tables};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::{Kernel, Memory};
use anytun_xdp::worker::{BATCH, Worker, WorkerCounters};
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

const CONFIG: &str = r#"
[node]
name = "vie1"
state_dir = "state"
sender_ids = "7"
[[interface]]
name = "eth0"
[[interface]]
name = "eth1"
[[service]]
name = "anycast"
address = "192.0.2.53"
port = 4444
[[network]]
name = "office"
[[network]]
name = "lab"
[[client]]
name = "alice"
network = "office"
mux = 1
prefixes = ["10.9.0.11/32"]
passphrase = "the passphrase of alice"
[[client]]
name = "bob"
network = "office"
mux = 2
prefixes = ["10.9.0.12/32"]
passphrase = "the passphrase of bob"
[[client]]
name = "carol"
network = "lab"
mux = 3
prefixes = ["10.9.0.13/32"]
passphrase = "the passphrase of carol"
"#;

/// A client's side of the tunnel.
struct Peer {
    keys: Keys,
    mux: u16,
    inner: Ipv4Addr,
    outer: [u8; 4],
    port: u16,
    sequence: u32,
    /// VLAN tags of its frames.
    tags: &'static [u8],
}

impl Peer {
    fn new(name: &str, mux: u16) -> Self {
        let secret = Secret::from_passphrase(format!("the passphrase of {name}").as_bytes(), AesCtr::Aes128);
        Self {
            keys: Keys::new(&secret, &Suite::DEFAULT),
            mux,
            inner: Ipv4Addr::new(10, 9, 0, 10 + mux as u8),
            outer: [198, 51, 100, mux as u8],
            port: 4444,
            sequence: 0,
            tags: &[],
        }
    }

    /// A sealed inner packet in its frame, with the next sequence number.
    fn send(&mut self, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
        let sequence = self.sequence;
        self.sequence += 1;
        self.seal(sequence, 0x0800, &inner(source, destination, 64, length))
    }

    fn seal(&self, sequence: u32, payload_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(&payload_type.to_be_bytes());
        packet.extend_from_slice(payload);
        let plain = packet.len() - HEADER;
        packet.resize(HEADER + plain + self.keys.tag(), 0);
        let header = Header { sequence, sender: 0, mux: self.mux };
        let length = self.keys.seal(Role::Right, &header, &mut packet, plain).expect("room");
        self.frame(&packet[..length])
    }

    fn frame(&self, satp: &[u8]) -> Vec<u8> {
        let total = (28 + satp.len()) as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, self.mux as u8];
        frame.extend_from_slice(self.tags);
        frame.extend_from_slice(&[0x08, 0]);
        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&total.to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend_from_slice(&self.outer);
        ip.extend_from_slice(&[192, 0, 2, 53]);
        let sum = checksum::of(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&self.port.to_be_bytes());
        frame.extend_from_slice(&4444u16.to_be_bytes());
        frame.extend_from_slice(&((8 + satp.len()) as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(satp);
        frame
    }

    /// Opens a frame that the node sent: sequence number and inner packet.
    fn open(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let datagram = classify(frame).expect("a datagram");
        assert_eq!((datagram.destination[12..].to_vec(), datagram.destination_port), (self.outer.to_vec(), self.port));
        assert_eq!(frame[..12], [2, 0, 0, 0, 1, self.mux as u8, 2, 0, 0, 0, 0, 1], "back to where it came from");
        assert_eq!(&frame[12..datagram.network - 2], self.tags);
        let satp = &frame[datagram.payload..datagram.payload + datagram.length];
        assert!(self.keys.verify(Role::Left, satp), "authentic");
        let header = Header::read(satp, 0).expect("a header");
        assert_eq!((header.mux, header.sender), (self.mux, 7));
        let mut body = satp[HEADER..satp.len() - self.keys.tag()].to_vec();
        self.keys.crypt(Role::Left, &header, &mut body);
        assert_eq!(body[..2], [0x08, 0]);
        (header.sequence, body[2..].to_vec())
    }
}

/// An inner IPv4 packet of `length` octets whose payload tells its length.
fn inner(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, length: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(length as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, ttl, 253, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.resize(length, length as u8);
    packet
}

/// A worker with two ports, and its three clients.
struct Bench {
    worker: Worker<Memory>,
    counters: Arc<CachePadded<WorkerCounters>>,
    tables: Arc<ArcSwap<Tables>>,
    keeper: Keeper,
    alice: Peer,
    bob: Peer,
    carol: Peer,
    _state: tempfile::TempDir,
}

fn host() -> Host {
    Host { workers: 1, mtus: vec![1500, 1500] }
}

fn parse(text: &str) -> Config {
    config::parse(text, Path::new("node.toml")).expect("a configuration")
}

fn build(text: &str, keeper: &mut Keeper, before: Option<&Tables>) -> Tables {
    let config = parse(text);
    let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
    Tables::build(&config, &host(), keeper.sequences(&fingerprints).expect("leases"), before)
}

impl Bench {
    fn new(kernel: Kernel, frames: usize) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let mut keeper = Keeper::open(state.path(), 7, 7, 1).expect("a store");
        let tables = build(CONFIG, &mut keeper, None);
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        let counters: Arc<CachePadded<WorkerCounters>> = Arc::default();
        let worker = Worker::new(0, Memory::new(2, frames, 2048, kernel), tables.clone(), counters.clone());
        let (alice, bob, carol) = (Peer::new("alice", 1), Peer::new("bob", 2), Peer::new("carol", 3));
        let mut bench = Self { worker, counters, tables, keeper, alice, bob, carol, _state: state };
        bench.turn();
        bench
    }

    /// A bench whose clients have all been heard: alice and carol on port 0, bob on port 1.
    fn introduced(kernel: Kernel, frames: usize) -> Self {
        let mut bench = Self::new(Kernel::default(), frames);
        for (port, frame) in [
            (0, bench.alice.seal(0, 0x0800, &[])),
            (1, bench.bob.seal(0, 0x0800, &[])),
            (0, bench.carol.seal(0, 0x0800, &[])),
        ] {
            bench.arrive(port, &frame);
        }
        for peer in [&mut bench.alice, &mut bench.bob, &mut bench.carol] {
            peer.sequence = 1;
        }
        bench.turn();
        assert_eq!(bench.count(Verdict::Keepalive), 3);
        bench.worker.io_mut().kernel = kernel;
        bench
    }

    fn arrive(&mut self, port: usize, frame: &[u8]) {
        assert!(self.worker.io_mut().arrive(port, frame), "a frame in the FILL ring");
    }

    /// One turn of the loop, after which every frame must be accounted for and none be in the worker's hands.
    fn turn(&mut self) -> usize {
        let received = self.worker.turn(5);
        let ledger = self.worker.io_mut().ledger();
        assert!(ledger.holds(), "{ledger:?}");
        assert_eq!(ledger.received, 0, "{ledger:?}");
        received
    }

    /// What a turn sends on `port`; the next turn collects it.
    fn sent(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.turn();
        self.turn();
        self.worker.io_mut().sent(port)
    }

    fn count(&self, verdict: Verdict) -> u64 {
        self.counters.verdict(verdict)
    }

    fn totals(&self, client: usize) -> ClientTotals {
        ClientTotals::sum(&self.tables.load().clients[client].track.counters)
    }

    fn endpoint_port(&self, client: usize) -> Option<u16> {
        self.tables.load().clients[client].track.endpoint.load().map(|endpoint| endpoint.port)
    }
}

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
        (Verdict::TooBig, bench.alice.send(alice, bob, 1500 - 28 - 20 + 1)),
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
    assert_eq!(bench.count(Verdict::Forwarded), 1);
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
        Kernel { receive: 7, tx_ring: 1, fill_ring: 2, complete: 1 },
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
