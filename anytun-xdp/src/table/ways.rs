//! The ways out of the node: what the kernel's rules, routes and neighbours say, in a form that is quickly asked.
//!
//! Where the answer would depend on something that is not known here, it is that only the kernel knows, never a guess.

mod asks;
mod rules;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anytun_common::wire::ethernet::Mac;
use hashbrown::HashMap;

pub use self::asks::Asks;
pub use self::rules::{Action, Family, Fate, Hop, Route, Routes, Rule};
use super::endpoint::{Link, Tags};
use super::service::octets;

/// The way to a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Way {
    /// Slot of the interface it leads through.
    pub slot: u8,
    /// The Ethernet addresses that a frame starts with.
    pub link: Link,
    /// VLAN tags of a frame.
    pub tags: Tags,
    /// Octets of the largest IP packet.
    pub mtu: u16,
}

/// Why there is no way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wayless {
    /// No route, or one that says so.
    Unreachable,
    /// A route that forbids it.
    Prohibited,
    /// A route that swallows it.
    Blackhole,
    /// Only the kernel can tell: for the host itself, through an interface that is not the node's, or by a rule that looks
    /// at what is not known here.
    Kernel,
    /// The next hop's Ethernet address is not known.
    Neighbour(Next),
}

/// A next hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Next {
    /// The kernel's number of the interface.
    pub ifindex: u32,
    /// The address, an IPv4 one mapped.
    pub address: [u8; 16],
}

impl Next {
    /// A next hop behind an interface.
    pub fn new(ifindex: u32, address: IpAddr) -> Self {
        Self { ifindex, address: octets(address) }
    }
}

/// An interface that a route can lead through: one of the node's, or a VLAN on top of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Slot of the node's interface.
    pub slot: u8,
    /// The Ethernet address of the interface that the route leads through.
    pub mac: Mac,
    /// The tag of the VLAN.
    pub tags: Tags,
    /// Octets of the largest IP packet.
    pub mtu: u16,
}

/// What is known of a neighbour.
#[derive(Debug)]
pub struct Neighbour {
    mac: Mac,
    /// Whether a packet was sent its way since this was set to false: then the kernel is to see to it that it stays known.
    used: AtomicBool,
}

impl Neighbour {
    /// A neighbour that nobody asked for yet.
    pub fn new(mac: Mac) -> Self {
        Self { mac, used: AtomicBool::new(false) }
    }

    /// Whether it was used since this was asked.
    pub fn take_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) && self.used.swap(false, Ordering::Relaxed)
    }
}

/// Neighbours whose Ethernet address is known.
pub type Neighbours = HashMap<Next, Neighbour>;

/// A snapshot of the kernel's tables. Its parts change apart from each other.
#[derive(Clone, Default)]
pub struct Ways {
    /// Rules and routes.
    pub routes: Arc<Routes>,
    /// Interfaces by the kernel's numbers.
    pub exits: Arc<HashMap<u32, Exit>>,
    /// Who is behind them.
    pub neighbours: Arc<Neighbours>,
}

impl Ways {
    /// The way of a packet. Addresses are 16 octets, IPv4 ones mapped; `flow` tells flows apart where several ways are equal.
    #[inline]
    pub fn find(&self, destination: &[u8; 16], source: &[u8; 16], flow: u32) -> Result<Way, Wayless> {
        let (hop, mtu) = self.routes.find(destination, source, flow)?;
        let exit = self.exits.get(&hop.ifindex).ok_or(Wayless::Kernel)?;
        let next = Next { ifindex: hop.ifindex, address: hop.gateway.unwrap_or(*destination) };
        let neighbour = self.neighbours.get(&next).ok_or(Wayless::Neighbour(next))?;
        if !neighbour.used.load(Ordering::Relaxed) {
            neighbour.used.store(true, Ordering::Relaxed);
        }
        let mtu = if mtu == 0 { exit.mtu } else { mtu.min(exit.mtu) };
        Ok(Way { slot: exit.slot, link: Link::new(neighbour.mac, exit.mac), tags: exit.tags, mtu })
    }
}

#[cfg(test)]
mod tests;
