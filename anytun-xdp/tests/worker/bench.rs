//! A worker on plain memory with two ports, and its three clients.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, satp::HEADER};
use anytun_xdp::config::{self, Config};
use anytun_xdp::satp::lease::Keeper;
use anytun_xdp::satp::{AesCtr, Header, Keys, Role, Secret, Suite};
use anytun_xdp::table::ways::{Asks, Ways};
use anytun_xdp::table::{ClientTotals, Host, Tables};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::{Kernel, Memory};
use anytun_xdp::worker::slow::Bell;
use anytun_xdp::worker::snoop::Snoop;
use anytun_xdp::worker::{Snapshots, Worker, WorkerCounters};
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

pub(crate) const CONFIG: &str = r#"
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
pub(crate) struct Peer {
    pub(crate) keys: Keys,
    pub(crate) mux: u16,
    pub(crate) inner: Ipv4Addr,
    pub(crate) outer: [u8; 4],
    pub(crate) port: u16,
    pub(crate) sequence: u32,
    /// VLAN tags of its frames.
    pub(crate) tags: &'static [u8],
}

impl Peer {
    pub(crate) fn new(name: &str, mux: u16) -> Self {
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
    pub(crate) fn send(&mut self, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
        let sequence = self.sequence;
        self.sequence += 1;
        self.seal(sequence, 0x0800, &inner(source, destination, 64, length))
    }

    pub(crate) fn seal(&self, sequence: u32, payload_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(&payload_type.to_be_bytes());
        packet.extend_from_slice(payload);
        let plain = packet.len() - HEADER;
        packet.resize(HEADER + plain + self.keys.tag(), 0);
        let header = Header { sequence, sender: 0, mux: self.mux };
        let length = self.keys.seal(Role::Right, &header, &mut packet, plain).expect("room");
        self.frame(&packet[..length])
    }

    pub(crate) fn frame(&self, satp: &[u8]) -> Vec<u8> {
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

    /// Opens a frame that the node sent: sequence number and inner IPv4 packet.
    pub(crate) fn open(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.open_as(0x0800, frame)
    }

    /// Opens a frame that the node sent: sequence number, and what has this payload type.
    pub(crate) fn open_as(&self, payload_type: u16, frame: &[u8]) -> (u32, Vec<u8>) {
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
        assert_eq!(body[..2], payload_type.to_be_bytes());
        (header.sequence, body[2..].to_vec())
    }
}

/// An inner IPv4 packet of `length` octets whose payload tells its length.
pub(crate) fn inner(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, length: usize) -> Vec<u8> {
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
pub(crate) struct Bench {
    pub(crate) worker: Worker<Memory>,
    pub(crate) counters: Arc<CachePadded<WorkerCounters>>,
    pub(crate) tables: Arc<ArcSwap<Tables>>,
    pub(crate) ways: Arc<ArcSwap<Ways>>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) snoop: Arc<Snoop>,
    pub(crate) keeper: Keeper,
    pub(crate) alice: Peer,
    pub(crate) bob: Peer,
    pub(crate) carol: Peer,
    _state: tempfile::TempDir,
}

pub(crate) fn host() -> Host {
    Host { workers: 1, mtus: vec![1500, 1500], partial: vec![false; 2] }
}

pub(crate) fn parse(text: &str) -> Config {
    config::parse(text, Path::new("node.toml")).expect("a configuration")
}

pub(crate) fn build(text: &str, keeper: &mut Keeper, before: Option<&Tables>) -> Tables {
    let config = parse(text);
    let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
    Tables::build(&config, &host(), keeper.sequences(&fingerprints).expect("leases"), before)
}

impl Bench {
    pub(crate) fn new(kernel: Kernel, frames: usize) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let mut keeper = Keeper::open(state.path(), 7, 7, 1).expect("a store");
        let tables = build(CONFIG, &mut keeper, None);
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        let counters: Arc<CachePadded<WorkerCounters>> = Arc::default();
        let ways: Arc<ArcSwap<Ways>> = Arc::default();
        let asks = Arc::new(Asks::new(|| ()));
        let snoop = Arc::new(Snoop::new(Bell::new(|| ())));
        let snapshots =
            Snapshots { tables: tables.clone(), ways: ways.clone(), asks: asks.clone(), snoop: snoop.clone() };
        let worker = Worker::new(0, Memory::new(2, frames, 2048, kernel), snapshots, counters.clone());
        let (alice, bob, carol) = (Peer::new("alice", 1), Peer::new("bob", 2), Peer::new("carol", 3));
        let mut bench = Self { worker, counters, tables, ways, asks, snoop, keeper, alice, bob, carol, _state: state };
        bench.turn();
        bench
    }

    /// A bench whose clients have all been heard: alice and carol on port 0, bob on port 1.
    pub(crate) fn introduced(kernel: Kernel, frames: usize) -> Self {
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

    /// Puts another configuration into force, as a reload does.
    pub(crate) fn configure(&mut self, text: &str) {
        let before = self.tables.load_full();
        let tables = build(text, &mut self.keeper, Some(&before));
        self.tables.store(Arc::new(tables));
    }

    pub(crate) fn arrive(&mut self, port: usize, frame: &[u8]) {
        assert!(self.worker.io_mut().arrive(port, frame), "a frame in the FILL ring");
    }

    /// One turn of the loop, after which every frame must be accounted for and none be in the worker's hands.
    pub(crate) fn turn(&mut self) -> usize {
        let received = self.worker.turn(5);
        let ledger = self.worker.io_mut().ledger();
        assert!(ledger.holds(), "{ledger:?}");
        assert_eq!(ledger.received, 0, "{ledger:?}");
        received
    }

    /// What a turn sends on `port`; the next turn collects it.
    pub(crate) fn sent(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.turn();
        self.turn();
        self.worker.io_mut().sent(port)
    }

    pub(crate) fn count(&self, verdict: Verdict) -> u64 {
        self.counters.verdict(verdict)
    }

    pub(crate) fn totals(&self, client: usize) -> ClientTotals {
        ClientTotals::sum(&self.tables.load().clients[client].counters)
    }

    pub(crate) fn endpoint_port(&self, client: usize) -> Option<u16> {
        self.tables.load().clients[client].track.endpoint.load().map(|endpoint| endpoint.port())
    }
}
