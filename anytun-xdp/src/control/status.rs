//! The types of `status --json`. Field names are an interface: tests and tools outside the repository read them.
//!
//! Counters start at zero with the node and never go down. There is no field that could hold a key, a salt or a
//! passphrase.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Packets by the name of a verdict, as [`Verdict::name`](anytun_common::verdict::Verdict::name) gives it.
pub type Counts = BTreeMap<Cow<'static, str>, u64>;

/// A node at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `node.name` of the configuration.
    pub node: String,
    /// Version of anytun-xdp.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// What it is doing.
    pub state: State,
    /// Whether it wants traffic, as `/readyz` says.
    pub ready: bool,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// The file the configuration came from.
    pub config_file: String,
    /// 1 for the configuration of the start, one more with each reload that was accepted.
    pub config_generation: u64,
    /// The last reload that was asked for, accepted or not.
    pub last_reload: Option<Reload>,
    /// What the process occupies.
    pub memory: Memory,
    /// The XDP program.
    pub program: Program,
    /// The interfaces, by slot.
    pub interfaces: Vec<Interface>,
    /// The workers, by number.
    pub workers: Vec<Worker>,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
    /// The NATs of open networks.
    #[serde(default)]
    pub nats: Vec<Nat>,
    /// The Ethernet networks.
    #[serde(default)]
    pub bridges: Vec<Bridge>,
    /// The IP networks whose clients join groups.
    #[serde(default)]
    pub groups: Vec<Groups>,
    /// The clients, in the order of the configuration.
    pub clients: Vec<Client>,
    /// Sequence numbers and their leases.
    pub sequences: Sequences,
    /// The mirror of the kernel's routes and neighbours.
    pub mirror: Mirror,
    /// The devices by which the kernel takes part in networks, by name.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// ICMP errors about tunnel packets that were too big, by what became of them.
    #[serde(default)]
    pub path_errors: Counts,
    /// Datagrams that the kernel received for services, such as those that arrived in fragments, by what became of them.
    #[serde(default)]
    pub datagrams: Counts,
}

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It carries traffic and wants more.
    Running,
    /// It carries what still comes and is about to stop.
    Draining,
}

impl State {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// How a reload went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reload {
    /// Whether the new configuration is in force.
    pub ok: bool,
    /// When, in seconds since 1970-01-01 UTC.
    pub at_unix: u64,
    /// What changed, or why it was refused.
    pub message: String,
}

/// What the process occupies, in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Resident set size, UMEM included.
    pub rss_bytes: u64,
    /// All UMEMs together.
    pub umem_bytes: u64,
}

/// The XDP program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The kernel's ID of the program, as `bpftool prog` shows it.
    pub id: u32,
    /// Packets by what the program decided, over all interfaces and CPUs.
    pub verdicts: Counts,
}

/// An interface of the node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its place in the socket map.
    pub slot: u32,
    /// The kernel's index of it.
    pub ifindex: u32,
    /// Its MAC address, as `ip link` prints it.
    pub mac: String,
    /// Its MTU in octets, without the Ethernet header.
    pub mtu: u32,
    /// Its driver, as `ethtool -i` names it.
    pub driver: String,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// How the program is attached: `auto`, `zerocopy`, `native` or `generic` asked for, `native` or `generic` got.
    pub xdp: Mode,
    /// Its queues that have a socket.
    pub queues: Vec<Queue>,
}

/// A mode asked for, and the real one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mode {
    /// What the configuration asks for.
    pub asked: String,
    /// What the kernel granted.
    pub got: String,
}

/// The AF_XDP socket of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// The queue's number.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: u32,
    /// What the configuration asks for.
    pub asked: String,
    /// What the kernel says the socket does: `zerocopy` or `copy` (`XDP_OPTIONS`).
    pub got: String,
    /// Whether the socket was bound with `XDP_USE_NEED_WAKEUP`.
    pub need_wakeup: bool,
    /// Whether the packets' memory lies in huge pages.
    pub huge_pages: bool,
    /// What the kernel counts for the socket.
    pub statistics: XskStatistics,
}

/// `struct xdp_statistics` of `XDP_STATISTICS`, see the kernel's `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct XskStatistics {
    /// Packets dropped for other reasons than those below.
    pub rx_dropped: u64,
    /// Descriptors in the FILL ring that were not valid.
    pub rx_invalid_descs: u64,
    /// Descriptors in the TX ring that were not valid.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Packets for which the FILL ring had no frame.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel found the TX ring empty.
    pub tx_ring_empty_descs: u64,
}

/// A worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub worker: u32,
    /// The SATP sender ID it seals with.
    pub sender_id: u16,
    /// How the kernel schedules it: `fifo` or `other` (sched(7)).
    pub scheduling: Mode,
    /// What it does while there are no packets: `sleep` or `spin`.
    pub idle: Cow<'static, str>,
    /// Where its frames are.
    pub ledger: Ledger,
    /// What its packet I/O cost.
    pub io: Io,
    /// Packets by what the worker decided.
    pub verdicts: Counts,
    /// Copies of packets to groups and broadcasts. Each has a verdict of its own.
    #[serde(default)]
    pub copies: u64,
    /// ICMP errors that were sent about packets, by kind. Such a packet counts by why it went no further, too.
    #[serde(default)]
    pub icmp_errors: Counts,
    /// Packets that it took from the node's kernel, and queries for members of groups, beside those it received.
    #[serde(default)]
    pub injected: u64,
}

/// Frames of a worker's UMEM by the state they are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// In nobody's ring.
    pub free: u64,
    /// In a FILL ring.
    pub fill: u64,
    /// Received, and not passed on yet.
    pub received: u64,
    /// In a TX ring or with the driver.
    pub tx: u64,
    /// Frames of the UMEM.
    pub total: u64,
    /// Whether the states sum up to the total.
    pub holds: bool,
}

/// How often a worker entered the kernel, and for how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Io {
    /// System calls that made the kernel send what is in a TX ring.
    pub tx_kicks: u64,
    /// System calls that made the kernel look at a FILL ring.
    pub fill_kicks: u64,
    /// System calls that waited for packets.
    pub polls: u64,
    /// Batches received.
    pub rx_batches: u64,
    /// Batches handed over for transmission.
    pub tx_batches: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets handed over for transmission.
    pub tx_packets: u64,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its anycast address.
    pub address: IpAddr,
    /// Its UDP port.
    pub port: u16,
    /// How many clients it has.
    pub clients: u64,
}

/// An Ethernet network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub network: Arc<str>,
    /// MAC addresses that are known, each in its VLAN.
    pub stations: u64,
}

/// An IP network that learns from its clients who is a member of which group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Groups {
    /// Its name.
    pub network: Arc<str>,
    /// Groups that clients have joined.
    pub groups: u64,
    /// Clients in them, each once for every group that it has joined.
    pub members: u64,
    /// Reports of a new member that a limit stopped.
    pub refused: u64,
}

/// A NAT.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Nat {
    /// The network whose clients are behind it.
    pub network: Arc<str>,
    /// Its address outside.
    pub address: IpAddr,
    /// The ports of this node there, as `FIRST-LAST`; those of TCP, of UDP, and identifiers of ICMP queries.
    pub ports: String,
    /// Ports that are lent to clients, of all three kinds.
    pub mappings: u64,
    /// Ports that rest after their last use.
    pub resting: u64,
    /// Sessions: pairs of a mapping and somebody outside.
    pub sessions: u64,
}

/// A client. Names are shared, so that a status of very many clients is small and quickly made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Its name.
    pub name: Arc<str>,
    /// Its network.
    pub network: Arc<str>,
    /// Its service.
    pub service: Arc<str>,
    /// Its MUX under the service.
    pub mux: u16,
    /// Where packets to it are sent; none until it is heard from or one is configured.
    pub endpoint: Option<SocketAddr>,
    /// The interface of its last authentic packet.
    pub interface: Option<Arc<str>>,
    /// Octets of the largest IP packet that the way to its endpoint takes; none when no router told of less than the interface
    /// sends.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// The VLAN IDs of its last authentic packet, the outer one first.
    pub vlan: Vec<u16>,
    /// Seconds since its last authentic packet.
    pub last_seen_seconds_ago: Option<f64>,
    /// Authentic packets from the client, and their octets from SATP header to tag.
    pub rx: Traffic,
    /// Packets sealed for the client, and their octets from SATP header to tag.
    pub tx: Traffic,
    /// What it has of the NATs of its network; nothing in a network without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatUsage>,
    /// MAC addresses behind it; nothing in an IP network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stations: Option<u64>,
    /// Groups that it has joined; nothing in a network that does not learn of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u64>,
    /// Packets of this client that were dropped, by reason. Reasons that did not occur are left out.
    pub drops: Counts,
}

/// What a client has of the NATs of its network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NatUsage {
    /// Ports, those that rest included.
    pub ports: u64,
    /// Sessions.
    pub sessions: u64,
}

/// Packets one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// How many.
    pub packets: u64,
    /// Octets in them.
    pub bytes: u64,
}

/// Sequence numbers and their leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sequences {
    /// Keys in use for which at least one worker has used up every sequence number of its share of the sender IDs.
    pub exhausted_keys: u64,
    /// Leases written to `state_dir` since the start.
    pub leases_written: u64,
    /// Attempts to write leases that failed since the start.
    pub lease_failures: u64,
}

/// The mirror of the kernel's routes and neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Mirror {
    /// Policy rules that are followed, of both families.
    pub rules: u64,
    /// Routes in all tables, of both families.
    pub routes: u64,
    /// Neighbours whose Ethernet address is known, behind the node's interfaces.
    pub neighbours: u64,
    /// How often the kernel's tables were listed since the start.
    pub listings: u64,
    /// How often the kernel said that it had more to tell than there was room for.
    pub resynchronisations: u64,
    /// How often the kernel was asked for a neighbour.
    pub neighbours_asked: u64,
}

/// A device by which the kernel takes part in a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The network.
    pub network: String,
    /// Its MAC address, in an Ethernet network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The node's own addresses there, with their prefixes; an Ethernet network may have none.
    pub addresses: Vec<String>,
    /// Packets given to the kernel.
    pub delivered: u64,
    /// Packets that the kernel did not take.
    pub refused: u64,
    /// Packets of the kernel that workers got.
    pub injected: u64,
    /// Packets of the kernel that found no room with a worker, or of whose flow as many wait there as may.
    pub overrun: u64,
}

#[cfg(test)]
mod tests;
