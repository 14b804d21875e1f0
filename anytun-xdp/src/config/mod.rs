//! The configuration: TOML in, checked and typed values out. Nothing behind this module sees a string it must parse.
//! The names of tables and keys are those of the README; they are fixed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anytun_common::wire::ethernet::Mac;

use crate::satp::Secret;

mod bridge;
mod client;
mod document;
mod error;
mod explain;
mod group;
mod local;
mod names;
mod nat;
mod nearest;
mod node;
mod open;
mod overlap;
mod pieces;
mod ports;
mod prefix;
mod read;
mod secret;
mod service;
mod snooping;
#[cfg(test)]
mod tests;

pub use bridge::Bridging;
pub use error::{Error, Problem, lines};
pub use explain::explain;
pub use nat::{Filtering, Nat};
pub use ports::PortRange;
pub use prefix::{HostAddress, Prefix, PrefixError};
pub use read::{control_path, parse, read};
pub use snooping::Snooping;

/// A whole configuration whose parts fit each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The table `[node]`.
    pub node: Node,
    /// The tables `[[interface]]`, in the order of the file; the index is the interface's slot and port.
    pub interfaces: Vec<Interface>,
    /// The tables `[[service]]`.
    pub services: Vec<Service>,
    /// The tables `[[network]]`.
    pub networks: Vec<Network>,
    /// The tables `[[group]]`.
    pub groups: Vec<Group>,
    /// The tables `[[client]]`.
    pub clients: Vec<Client>,
    /// What is allowed but deserves a word at start and in `check`, with its place.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The devices that connect networks with the kernel, by name: index of the network, and what the device is to be. A
    /// device has the same place as long as no other one comes or goes.
    pub fn devices(&self) -> Vec<(usize, &Local)> {
        let networks = self.networks.iter().enumerate();
        let mut devices: Vec<_> =
            networks.filter_map(|(index, network)| Some((index, network.local.as_ref()?))).collect();
        devices.sort_by(|(_, one), (_, other)| one.device.cmp(&other.device));
        devices
    }

    /// The first sender ID of every worker.
    ///
    /// # Errors
    ///
    /// There are fewer sender IDs than workers.
    pub fn sender_ids(&self, workers: usize) -> Result<Vec<u16>, Error> {
        let SenderIds { first, last } = self.node.sender_ids;
        let ids: Vec<u16> = (first..=last).take(workers).collect();
        if ids.len() == workers {
            return Ok(ids);
        }
        let message = format!(
            "`sender_ids` has {}, but there are {workers} workers, one for each queue, and each needs one of its own: widen \
             the range, or choose fewer `queues`",
            ids.len()
        );
        Err(Error::whole_file(&self.file, message))
    }
}

/// The host that runs this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Unique among the nodes of a service.
    pub name: String,
    /// Directory of the sequence leases.
    pub state_dir: PathBuf,
    /// SATP sender IDs that only this node uses.
    pub sender_ids: SenderIds,
    /// Path of the control socket.
    pub control: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: Option<SocketAddr>,
    /// How long the node carries traffic after it was told to stop: the time routing has to move away. Whole seconds.
    pub drain_time: Duration,
    /// What a worker does while there are no packets.
    pub idle: Idle,
    /// How the kernel schedules workers.
    pub scheduling: Scheduling,
    /// ICMP errors that one client is sent in a second, at most.
    pub icmp_rate: u32,
}

/// What a worker does while there are no packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Sleeps until one comes, or, under load, until several batches have: an idle node costs nothing.
    Sleep,
    /// Looks again and again: the shortest latency, and a processor for each worker.
    Spin,
}

impl Idle {
    /// The word of the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Spin => "spin",
        }
    }
}

/// How the kernel schedules workers (sched(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduling {
    /// In real time, before everything ordinary: a worker carries what was received before more is received.
    Fifo,
    /// As any other thread.
    Other,
}

impl Scheduling {
    /// The word of the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Other => "other",
        }
    }
}

/// An inclusive range of SATP sender IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderIds {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl SenderIds {
    /// How many there are.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

/// An interface whose anytun packets the node takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// As the kernel names it.
    pub name: String,
    /// The XDP and AF_XDP mode asked for.
    pub xdp: XdpMode,
    /// The receive queues that get a socket.
    pub queues: Queues,
}

/// How packets leave the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// Native XDP; zero-copy where the driver is known to be good at it, else copy.
    Auto,
    /// Native XDP and zero-copy, or refuse to start.
    Zerocopy,
    /// Native XDP and copy.
    Native,
    /// Generic XDP, for drivers without support of their own.
    Generic,
}

impl XdpMode {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::Zerocopy => "zerocopy",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// The receive queues of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queues {
    /// Every queue the interface has when the node starts.
    All,
    /// From the first to the last, inclusive.
    Range(u32, u32),
}

/// An anycast address and port that every node answers on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The service's name.
    pub name: String,
    /// The anycast address.
    pub address: IpAddr,
    /// The UDP port; never 0.
    pub port: u16,
    /// Whether the UDP checksum of outgoing IPv4 packets is computed; IPv6 packets always have one.
    pub udp_checksum: UdpChecksum,
}

/// The UDP checksum of outgoing IPv4 packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpChecksum {
    /// Computed over the whole datagram.
    Full,
    /// Left out: zero (RFC 768).
    Zero,
}

/// A routing domain: its clients reach each other and nobody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// The network's name.
    pub name: String,
    /// Whether prefixes of one client may lie inside those of another; the longest prefix wins.
    pub more_specifics: bool,
    /// Whether TCP is made to announce segments that fit the way.
    pub mss_clamp: bool,
    /// Whether its clients reach what is outside of it, and how.
    pub open: Open,
    /// How frames find their way in an Ethernet network; nothing in an IP network.
    pub bridging: Option<Bridging>,
    /// What connects it with the node itself, if anything.
    pub local: Option<Local>,
    /// Addresses that reach every other client of the network.
    pub broadcast: Vec<Ipv4Addr>,
    /// Copies of one packet to a group or a broadcast, at most.
    pub copies: u32,
    /// How it learns who is a member of which group; nothing when only the configuration says.
    pub snooping: Option<Snooping>,
}

/// Clients of a network that each get a copy of what is sent to a multicast address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Index into [`Config::networks`].
    pub network: usize,
    /// The multicast address, of a scope that is wider than a link.
    pub address: IpAddr,
    /// Indices into [`Config::clients`], each once.
    pub members: Vec<usize>,
}

/// Whether the clients of a network reach what does not speak anytun (open tunnel mode).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// They reach each other only.
    No,
    /// Their packets leave as they are, by the routes of the host, and what comes for their prefixes is tunnelled to them.
    Routed,
    /// Their packets leave as if an address of the node had sent them: those of IPv4 by the first, those of IPv6 by the second.
    Nat([Option<Nat>; 2]),
}

impl Open {
    /// The NATs, of which there are none unless they are asked for.
    pub fn nats(self) -> impl Iterator<Item = Nat> {
        let nats = if let Self::Nat(nats) = self { nats } else { [None; 2] };
        nats.into_iter().flatten()
    }
}

/// What connects a network with the kernel of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// Name of the device: TUN, or TAP in an Ethernet network.
    pub device: String,
    /// The node's own addresses in the network, each within the prefix that the kernel reaches through the device. An Ethernet
    /// network may have none.
    pub addresses: Vec<HostAddress>,
    /// Whether the kernel gets what no client has, to route it.
    pub kernel_routes: bool,
    /// MAC address of the TAP device of an Ethernet network.
    pub mac: Option<Mac>,
}

/// A peer with a MUX under a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The client's name.
    pub name: String,
    /// Index into [`Config::networks`].
    pub network: usize,
    /// Index into [`Config::services`].
    pub service: usize,
    /// The client's number under its service.
    pub mux: u16,
    /// Inner addresses that are the client's, without host bits; none in an Ethernet network.
    pub prefixes: Vec<Prefix>,
    /// MAC addresses that are the client's, which then may send from no other.
    pub macs: Vec<Mac>,
    /// Master key and salt.
    pub secret: Secret,
    /// Key derivation, cipher, tag.
    pub crypto: crate::satp::Suite,
    /// The node's own role; the client has the other one.
    pub role: crate::satp::Role,
    /// Sequence numbers a replay window spans; 0 turns it off.
    pub window: u32,
    /// Where to send before the client has spoken.
    pub endpoint: Option<SocketAddr>,
}
