//! Open tunnel mode: packets between clients and hosts that do not speak anytun.

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ethernet, ipv4, ipv6, mapped};

use super::inner::Inner;
use super::partial;
use super::tunnel::{Route, destination, source};
use crate::table::ways::{Way, Wayless, Ways};
use crate::table::{OUTSIDE, Tables};

/// Routes a packet that came from outside as it is: finds the client of an open network that its destination leads to,
/// refuses a source that is a client's of that network, who would seem to have sent it, and counts the hop. When checksums
/// may be `partial`, they are completed.
#[inline]
pub fn inward(tables: &Tables, payload_type: u16, packet: &mut [u8], partial: bool) -> Result<Route, Verdict> {
    let (mut inner, length) = Inner::new(payload_type, packet)?;
    let ends = inner.ends();
    if ends.source_is_of_link() || ends.destination_is_of_link() {
        return Err(Verdict::LinkScope);
    }
    let to = destination(tables.inside.clients(), &ends).ok_or(Verdict::Stray)?;
    let client = tables.clients.get(to as usize).ok_or(Verdict::Stray)?;
    let network = tables.networks.get(client.network as usize).ok_or(Verdict::Stray)?;
    if source(network, &ends) != Some(OUTSIDE) {
        return Err(Verdict::ForeignSource);
    }
    inner.hop()?;
    let route = Route { to, length: length as u32, tos: inner.tos(), dont_fragment: inner.dont_fragment() };
    if partial && let Some(packet) = packet.get_mut(..length) {
        partial::complete(packet);
    }
    Ok(route)
}

/// The way out of a packet that leaves an open network as it is. It was checked when it was routed.
#[inline]
pub fn way(ways: &Ways, packet: &[u8]) -> Result<Way, Wayless> {
    let four = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk).copied().map(mapped);
    let sixteen = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk).copied();
    let (source, destination) = match packet.first().map(|first| first >> 4) {
        Some(4) => (four(ipv4::SOURCE), four(ipv4::DESTINATION)),
        _ => (sixteen(ipv6::SOURCE), sixteen(ipv6::DESTINATION)),
    };
    let (Some(source), Some(destination)) = (source, destination) else { return Err(Wayless::Unreachable) };
    ways.find(&destination, &source, flow(&source, &destination))
}

/// Tells flows apart where several ways are equally good. Packets of one pair of hosts stay in order.
#[inline]
fn flow(source: &[u8; 16], destination: &[u8; 16]) -> u32 {
    let half = |address: &[u8; 16]| {
        let number = u128::from_le_bytes(*address);
        number as u64 ^ (number >> 64) as u64
    };
    let mixed = (half(source) ^ half(destination).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Octets of the Ethernet header in front of a packet on its way.
#[inline]
pub fn length(way: &Way) -> usize {
    ethernet::HEADER + way.tags.as_bytes().len()
}

/// Writes that header into the first [`length`] octets of `frame`, behind which the packet is. Nothing when it has no room.
#[inline]
pub fn write(frame: &mut [u8], way: &Way) -> Option<()> {
    let (link, packet) = frame.split_at_mut_checked(length(way))?;
    let (addresses, tagged) = link.split_first_chunk_mut::<{ ethernet::TYPE }>()?;
    *addresses = *way.link.as_bytes();
    let (tags, ethertype) = tagged.split_last_chunk_mut::<2>()?;
    tags.copy_from_slice(way.tags.as_bytes());
    *ethertype = match packet.first()? >> 4 {
        4 => ethernet::IPV4,
        _ => ethernet::IPV6,
    }
    .to_be_bytes();
    Some(())
}
