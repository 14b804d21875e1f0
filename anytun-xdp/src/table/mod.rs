//! What workers read: services, clients and networks. A [`Tables`] is a snapshot that control builds and swaps whole; what
//! changes with every packet lives in the records that snapshots share.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::satp::Pages;

mod allowance;
mod bridge;
mod build;
mod client;
mod counters;
mod device;
mod endpoint;
mod expected;
mod groups;
mod inside;
mod joined;
mod latch;
mod lpm;
pub mod membership;
pub mod nat;
mod nats;
mod path;
mod policy;
mod service;
pub mod ways;

pub use allowance::{Allowance, Rate};
pub use bridge::{Bridge, Station};
pub use build::Host;
pub use client::{Client, Own, Track};
pub use counters::{ClientCounters, ClientTotals};
pub use device::Devices;
pub use endpoint::{Endpoint, EndpointCell, Evidence, Link, Tags};
pub use expected::Expected;
pub use groups::{Groups, is_group};
pub use inside::Inside;
pub use joined::Joined;
pub(crate) use latch::Latch;
pub use lpm::Lpm;
pub use membership::Snooped;
pub use nats::{Behind, Members, Nats};
pub use path::PathMtu;
pub use policy::{Policy, Sources};
pub use service::{Service, Services};

/// Stands for the number of a client where there is none.
pub(crate) const NOBODY: u32 = u32::MAX;

/// Stands where the number of a client could be for what is outside of an open network.
pub const OUTSIDE: u32 = NOBODY - 3;

/// Stands for the node's kernel where the number of a client could be.
pub const KERNEL: u32 = NOBODY - 1;

/// Stands where the number of a client could be for what is nobody's, although a shorter prefix leads to somebody.
pub const NOWHERE: u32 = NOBODY - 2;

/// Everything a worker needs to know to carry a packet.
#[derive(Clone)]
pub struct Tables {
    /// Counts the configurations that were put in force, from 1.
    pub generation: u64,
    /// Where packets are addressed to.
    pub services: Services,
    /// Who sends them. The index is the client's number in this snapshot.
    pub clients: Pages<Client>,
    /// Where clients are that have not spoken, as far as the configuration says.
    pub expected: Vec<Expected>,
    /// Per network: inner destination to client number, or to [`KERNEL`] or [`NOWHERE`].
    pub networks: Vec<Lpm>,
    /// Who gets copies of what is sent to a group: an address of it leads to its number in `networks`.
    pub groups: Groups,
    /// Who gets them besides, by having joined. This changes while the tables are in force.
    pub joined: Arc<ArcSwap<Joined>>,
    /// What holds for each network whose clients join groups; nothing of any other.
    pub snooped: Vec<Option<Snooped>>,
    /// The clients that packets from outside can be for.
    pub inside: Inside,
    /// The NATs of open networks.
    pub nats: Nats,
    /// The devices by which the kernel takes part in networks.
    pub devices: Devices,
    /// Names of the networks.
    pub network_names: Vec<Arc<str>>,
    /// Of each network what an Ethernet has learned; nothing of an IP network.
    pub bridges: Vec<Option<Arc<Bridge>>>,
    /// What holds for each network.
    pub policies: Vec<Policy>,
    /// The ICMP errors that a client may be sent.
    pub errors: Rate,
    /// Octets of the largest IP packet an interface sends, by slot.
    pub mtus: Vec<usize>,
    /// Whether packets may come in with checksums that cover the pseudo-header only, by slot.
    pub partial: Vec<bool>,
}
