//! What `anytun-xdp status --json` says, as far as the lab looks at it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The state of a running node.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `running` or `draining`.
    pub state: String,
    /// Whether packets are carried.
    pub ready: bool,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Counts the configurations that came into force, from 1.
    pub config_generation: u64,
    /// How the last reload went.
    pub last_reload: Option<Reload>,
    /// Memory of the process.
    pub memory: Memory,
    /// The XDP program.
    pub program: Program,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The NATs.
    pub nats: Vec<Nat>,
    /// The networks whose clients join groups.
    #[serde(default)]
    pub groups: Vec<Groups>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The mirror of the kernel's routes and neighbours.
    pub mirror: Mirror,
    /// Leases of sequence numbers.
    pub sequences: Sequences,
    /// The devices of networks.
    pub devices: Vec<Device>,
    /// ICMP errors about tunnel packets, by what became of them.
    pub path_errors: BTreeMap<String, u64>,
    /// Datagrams that the kernel received for services, by what became of them.
    pub datagrams: BTreeMap<String, u64>,
}

/// Leases of sequence numbers.
#[derive(Clone, Debug, Deserialize)]
pub struct Sequences {
    /// How many were written.
    pub leases_written: u64,
}

/// The mirror of the kernel's routes and neighbours.
#[derive(Clone, Debug, Deserialize)]
pub struct Mirror {
    /// Neighbours whose Ethernet address is known.
    pub neighbours: u64,
    /// How often the kernel was asked for one.
    pub neighbours_asked: u64,
}

/// A NAT.
#[derive(Clone, Debug, Deserialize)]
pub struct Nat {
    /// Ports that are lent.
    pub mappings: u64,
    /// Pairs of a lent port and somebody outside.
    pub sessions: u64,
}

/// A network whose clients join groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Groups {
    /// Groups that were joined.
    pub groups: u64,
    /// Members of all of them.
    pub members: u64,
    /// New members that a limit stopped.
    pub refused: u64,
}

/// How a reload went.
#[derive(Clone, Debug, Deserialize)]
pub struct Reload {
    /// Whether the new configuration is in force.
    pub ok: bool,
    /// What was wrong, or what changed.
    pub message: String,
}

/// Memory of the process.
#[derive(Clone, Debug, Deserialize)]
pub struct Memory {
    /// Resident octets.
    pub rss_bytes: u64,
    /// Octets of all UMEMs.
    pub umem_bytes: u64,
}

/// The XDP program.
#[derive(Clone, Debug, Deserialize)]
pub struct Program {
    /// The number by which the kernel knows it.
    pub id: u32,
    /// Frames by verdict.
    pub verdicts: BTreeMap<String, u64>,
}

/// An interface.
#[derive(Clone, Debug, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// The XDP mode.
    pub xdp: Mode,
    /// Its queues.
    pub queues: Vec<Queue>,
}

/// What was asked for and what the kernel gave.
#[derive(Clone, Debug, Deserialize)]
pub struct Mode {
    /// By the configuration.
    pub asked: String,
    /// By the kernel.
    pub got: String,
}

/// The socket of a queue.
#[derive(Clone, Debug, Deserialize)]
pub struct Queue {
    /// The queue's number.
    pub queue: u32,
    /// What was asked for and what the kernel gave.
    #[serde(flatten)]
    pub mode: Mode,
    /// Whether the packets' memory lies in huge pages.
    pub huge_pages: bool,
    /// What the kernel counts for the socket.
    pub statistics: BTreeMap<String, u64>,
}

/// A worker.
#[derive(Clone, Debug, Deserialize)]
pub struct Worker {
    /// The sender ID it seals with.
    pub sender_id: u16,
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// Where its frames are.
    pub ledger: Ledger,
    /// What it asked of the kernel.
    pub io: Io,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Copies of packets to groups.
    pub copies: u64,
    /// ICMP errors sent, by kind.
    pub icmp_errors: BTreeMap<String, u64>,
    /// Packets that it took from the node's kernel.
    pub injected: u64,
}

/// How a worker is scheduled: `fifo` or `other`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Scheduling {
    /// What the configuration asks for.
    pub asked: String,
    /// What it is.
    pub got: String,
}

/// Where the frames of a worker are.
#[derive(Clone, Debug, Deserialize)]
pub struct Ledger {
    /// In the worker's hands, unused.
    pub free: u64,
    /// In a FILL ring or with the kernel for reception.
    pub fill: u64,
    /// Holding a packet that is being worked on.
    pub received: u64,
    /// In a TX ring or with the kernel for transmission.
    pub tx: u64,
    /// Frames of the UMEM.
    pub total: u64,
    /// Whether the node itself finds that they add up.
    pub holds: bool,
}

/// Counters of system calls and batches of a worker.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
pub struct Io {
    /// Wake-ups for transmission.
    pub tx_kicks: u64,
    /// Wake-ups for reception.
    pub fill_kicks: u64,
    /// Calls of poll.
    pub polls: u64,
    /// Batches received.
    pub rx_batches: u64,
    /// Batches transmitted.
    pub tx_batches: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
}

/// A device by which the kernel takes part in a network.
#[derive(Clone, Debug, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its MAC address, in an Ethernet network.
    pub mac: Option<String>,
    /// Packets to the kernel.
    pub delivered: u64,
    /// Packets from the kernel.
    pub injected: u64,
}

/// A client.
#[derive(Clone, Debug, Deserialize)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Address and port it was last heard from.
    pub endpoint: Option<String>,
    /// The path MTU to it, if one was learned.
    pub path_mtu: Option<u16>,
    /// From the client.
    pub rx: Traffic,
    /// To the client.
    pub tx: Traffic,
    /// MAC addresses behind it, in an Ethernet network.
    #[serde(default)]
    pub stations: Option<u64>,
    /// Packets that were dropped, by verdict.
    pub drops: BTreeMap<String, u64>,
}

/// Packets and octets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

impl Status {
    /// Reads the output of `status --json`.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).with_context(|| format!("status --json printed something else: {json}"))
    }

    /// A client by name.
    pub fn client(&self, name: &str) -> Result<&Client> {
        self.clients.iter().find(|client| client.name == name).with_context(|| format!("status knows no client {name}"))
    }

    /// Packets of all workers with a verdict.
    pub fn verdict(&self, name: &str) -> u64 {
        self.workers.iter().filter_map(|worker| worker.verdicts.get(name)).sum()
    }

    /// ICMP errors of one kind that all workers sent.
    pub fn icmp_errors(&self, kind: &str) -> u64 {
        self.workers.iter().filter_map(|worker| worker.icmp_errors.get(kind)).sum()
    }

    /// Packets of one kind that went through the devices of networks.
    pub fn device(&self, count: impl Fn(&Device) -> u64) -> u64 {
        self.devices.iter().map(count).sum()
    }

    /// Checks that every packet met one verdict: each that was received, and each ICMP error or copy that a worker
    /// made.
    pub fn ensure_every_packet_has_a_verdict(&self) -> Result<()> {
        let counted: u64 = self.workers.iter().flat_map(|worker| worker.verdicts.values()).sum();
        let made: u64 = self.workers.iter().flat_map(|worker| worker.icmp_errors.values()).sum();
        let injected: u64 = self.workers.iter().map(|worker| worker.injected).sum();
        let copies: u64 = self.workers.iter().map(|worker| worker.copies).sum();
        let received = self.io().rx_packets;
        ensure!(
            counted == received + made + copies + injected,
            "{received} packets received, {injected} taken from the kernel, {made} ICMP errors and {copies} copies made, \
             {counted} of them have a verdict"
        );
        Ok(())
    }

    /// Frames of the XDP program with a verdict.
    pub fn program(&self, name: &str) -> u64 {
        self.program.verdicts.get(name).copied().unwrap_or(0)
    }

    /// The counters of all workers together.
    pub fn io(&self) -> Io {
        self.workers.iter().fold(Io::default(), |sum, Worker { io, .. }| Io {
            tx_kicks: sum.tx_kicks + io.tx_kicks,
            fill_kicks: sum.fill_kicks + io.fill_kicks,
            polls: sum.polls + io.polls,
            rx_batches: sum.rx_batches + io.rx_batches,
            tx_batches: sum.tx_batches + io.tx_batches,
            rx_packets: sum.rx_packets + io.rx_packets,
            tx_packets: sum.tx_packets + io.tx_packets,
        })
    }

    /// Fails unless every frame of every worker is in exactly one place.
    pub fn ensure_ledgers_hold(&self) -> Result<()> {
        ensure!(!self.workers.is_empty(), "status shows no worker");
        for (worker, Worker { ledger, .. }) in self.workers.iter().enumerate() {
            let sum = ledger.free + ledger.fill + ledger.received + ledger.tx;
            ensure!(
                ledger.total > 0 && sum == ledger.total && ledger.holds,
                "worker {worker}: {ledger:?} sums to {sum}"
            );
        }
        Ok(())
    }
}
