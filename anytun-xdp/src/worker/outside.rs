//! Packets that cross the border of an open network.

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::HEADER;

use super::batch::{End, Packet};
use super::passage::{Fate, client_of};
use super::stages::{clamp, inner};
use crate::mode::open_tunnel;
use crate::table::ways::{Asks, Wayless, Ways};
use crate::table::{OUTSIDE, Tables};

/// Decides where a packet from outside goes.
#[inline]
pub(super) fn route(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    port: usize,
    now: u64,
) -> Result<Fate, End> {
    let body = memory.get_mut(packet.start() + HEADER..packet.end()).and_then(<[u8]>::split_first_chunk_mut);
    let (payload_type, payload) = body.ok_or(End { verdict: Verdict::MalformedInner, client: None })?;
    let partial = tables.partial.get(port).copied().unwrap_or(false);
    let decided = open_tunnel::inward(tables, u16::from_be_bytes(*payload_type), payload, partial);
    packet.route = decided.map_err(|verdict| End { verdict, client: None })?;
    clamp(memory, packet, tables, now);
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// Makes a frame of a packet that leaves an open network as it is.
#[inline]
pub(super) fn leave(memory: &mut [u8], packet: &mut Packet, ways: &Ways, asks: &Asks) -> Result<(), Verdict> {
    let inner = inner(packet);
    let octets = memory.get(inner.clone()).ok_or(Verdict::MalformedInner)?;
    let way = open_tunnel::way(ways, octets).map_err(|wayless| match wayless {
        Wayless::Neighbour(next) => {
            asks.ask(next);
            Verdict::NoNeighbour
        }
        _ => Verdict::NoWay,
    })?;
    if octets.len() > usize::from(way.mtu) {
        return Err(Verdict::TooBig);
    }
    let head = open_tunnel::length(&way);
    let total = head + octets.len();
    memory.copy_within(inner, head);
    let framed = memory.get_mut(..total).ok_or(Verdict::TooBig)?;
    open_tunnel::write(framed, &way).ok_or(Verdict::TooBig)?;
    packet.place_at(head, total).ok_or(Verdict::TooBig)?;
    packet.slot = way.slot;
    Ok(())
}

/// Octets of the largest packet on the way of one that leaves an open network as it is; 0 when there is none.
pub(super) fn largest(memory: &[u8], packet: &Packet, ways: &Ways) -> usize {
    let inner = memory.get(inner(packet)).filter(|_| packet.route.to == OUTSIDE);
    inner.and_then(|inner| open_tunnel::way(ways, inner).ok()).map_or(0, |way| way.mtu.into())
}
