//! Packets that the node's kernel sends into a network, through the network's device.

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ethernet, ipv6};

use super::icmp::{self, Problem};
use super::inner::{Ends, Inner};
use super::tunnel::{Route, destination, joined, source};
use crate::table::{KERNEL, NOWHERE, OUTSIDE, Sources, Tables, is_group};

/// The payload type (an EtherType) of a packet that came out of a device.
#[inline]
pub fn payload_type(packet: &[u8]) -> u16 {
    match packet.first().map(|first| first >> 4) {
        Some(6) => ethernet::IPV6,
        _ => ethernet::IPV4,
    }
}

/// Octets of the packets that every way takes, if need be in fragments of the tunnel's (RFC 8200 section 5).
#[inline]
pub fn least(packet: &[u8]) -> usize {
    match payload_type(packet) {
        ethernet::IPV6 => ipv6::LEAST_MTU,
        _ => 0,
    }
}

/// Routes a packet that came out of the device of a network: finds the client that its destination leads to, and refuses a
/// source that is a client's, who would seem to have sent it. The kernel has counted the hop where it is one.
#[inline]
pub fn route(tables: &Tables, network: u32, payload_type: u16, packet: &mut [u8]) -> Result<Route, Verdict> {
    let index = network;
    let network = tables.networks.get(index as usize).ok_or(Verdict::NoRoute)?;
    let (inner, length) = Inner::new(payload_type, packet)?;
    let ends = inner.ends();
    let mut to = destination(network, &ends).filter(|to| ![KERNEL, OUTSIDE].contains(to));
    if ends.destination_is_routed_group() && !to.is_some_and(is_group) {
        to = joined(tables, index, &ends);
    }
    let is_for_group = to.is_some_and(is_group);
    // Such as multicast of the kernel's own, which it sends through every interface.
    if ends.source_is_of_link() || ends.destination_is_of_link() && !is_for_group {
        return Err(Verdict::LinkScope);
    }
    if source(network, &ends).is_some_and(|owner| ![KERNEL, NOWHERE, OUTSIDE].contains(&owner)) {
        return Err(Verdict::ForeignSource);
    }
    let to = to.ok_or(Verdict::NoRoute)?;
    Ok(Route { to, length: length as u32, tos: inner.tos(), dont_fragment: inner.dont_fragment() })
}

/// Turns the packet of the kernel at the start of `buffer` into the ICMP error about it, as [`icmp::answer`] does. The error
/// comes from where the packet was to go: from an address of the node the kernel would not take it, and from any other it
/// might not, as its route to that one leads elsewhere.
pub fn answer(buffer: &mut [u8], payload_type: u16, problem: Problem, allowed: impl FnOnce() -> bool) -> Option<usize> {
    let sources = match Inner::new(payload_type, buffer).ok()?.0.ends() {
        Ends::V4 { destination, .. } => Sources { v4: Some(destination), v6: None },
        Ends::V6 { destination, .. } => Sources { v4: None, v6: Some(destination) },
    };
    icmp::answer(buffer, payload_type, problem, sources, allowed)
}
