//! Packets that cross the border of an open network.

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::HEADER;

use super::batch::{End, Packet};
use super::passage::{Fate, client_of};
use super::stages::{clamp, inner};
use crate::mode::open_tunnel::{self, Border};
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
    let decided = open_tunnel::inward(tables, u16::from_be_bytes(*payload_type), payload, partial, now);
    packet.route = decided.map_err(|verdict| End { verdict, client: None })?;
    clamp(memory, packet, tables, now);
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// Makes a frame of a packet that leaves an open network.
#[inline]
pub(super) fn leave(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    ways: &Ways,
    asks: &Asks,
    now: u64,
) -> Result<Fate, Verdict> {
    let inner = inner(packet);
    let octets = memory.get_mut(inner.clone()).ok_or(Verdict::MalformedInner)?;
    let client = client_of(tables, packet.client).ok_or(Verdict::UnknownMux)?;
    let border = open_tunnel::border(client, octets)?;
    if let Border::Back(_) = border {
        let to = open_tunnel::cross(tables, border, octets, now)?.ok_or(Verdict::NatNoMapping)?;
        packet.route.to = to;
        clamp(memory, packet, tables, now);
        if let Some(client) = client_of(tables, to) {
            client.prefetch_to_seal();
        }
        return Ok(Fate::On);
    }
    let way = open_tunnel::way(ways, border, octets).map_err(|wayless| match wayless {
        Wayless::Neighbour(next) => {
            asks.ask(next);
            Verdict::NoNeighbour
        }
        _ => Verdict::NoWay,
    })?;
    if octets.len() > usize::from(way.mtu) {
        return Err(Verdict::TooBig);
    }
    open_tunnel::cross(tables, border, octets, now)?;
    let head = open_tunnel::length(&way);
    let total = head + octets.len();
    memory.copy_within(inner, head);
    let framed = memory.get_mut(..total).ok_or(Verdict::TooBig)?;
    open_tunnel::write(framed, &way).ok_or(Verdict::TooBig)?;
    packet.place_at(head, total).ok_or(Verdict::TooBig)?;
    packet.slot = way.slot;
    Ok(Fate::Leave)
}

/// Octets of the largest packet on the way of one that leaves an open network; 0 when there is none.
pub(super) fn largest(memory: &[u8], packet: &Packet, tables: &Tables, ways: &Ways) -> usize {
    let way = || {
        let inner = memory.get(inner(packet)).filter(|_| packet.route.to == OUTSIDE)?;
        let border = open_tunnel::border(client_of(tables, packet.client)?, inner).ok()?;
        open_tunnel::way(ways, border, inner).ok()
    };
    way().map_or(0, |way| way.mtu.into())
}
