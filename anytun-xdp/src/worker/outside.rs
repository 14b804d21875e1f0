//! Packets that cross the border of an open network.

use std::ops::Range;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};

use super::batch::{End, Packet};
use super::passage::{Fate, client_of};
use super::stages::{clamp, inner};
use super::tell::{tell, tell_outside};
use crate::mode::fragment::Cut;
use crate::mode::open_tunnel::{self, Border, Trail};
use crate::table::ways::{Asks, Next, Way, Wayless, Ways};
use crate::table::{OUTSIDE, Tables};

/// Decides where a packet from outside goes, whose checksum may be `partial`.
#[inline(never)]
pub(super) fn route(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    partial: bool,
    now: u64,
) -> Result<Fate, End> {
    let body = memory.get_mut(packet.start() + HEADER..packet.end()).and_then(<[u8]>::split_first_chunk_mut);
    let (payload_type, payload) = body.ok_or(End { verdict: Verdict::MalformedInner, client: None })?;
    open_tunnel::inward(tables, u16::from_be_bytes(*payload_type), payload, partial, now, &mut packet.route)
        .map_err(|verdict| End { verdict, client: None })?;
    clamp(memory, packet, tables, now);
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// Whether a packet that a NAT refused has only come before the first fragment of its datagram.
#[inline(never)]
pub(super) fn is_early(memory: &[u8], packet: &Packet, tables: &Tables, now: u64) -> bool {
    let (octets, client) = if packet.is_from_outside() {
        (memory.get(packet.start() + HEADER + PAYLOAD_TYPE..packet.end()), None)
    } else {
        (memory.get(inner(packet)), client_of(tables, packet.client))
    };
    octets.is_some_and(|octets| open_tunnel::is_early(tables, client, octets, now))
}

/// Makes a frame of a packet that leaves an open network.
#[inline]
pub(super) fn leave(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    trail: &mut Trail<'_>,
    now: u64,
) -> Result<Fate, Verdict> {
    let octets = memory.get_mut(inner(packet)).ok_or(Verdict::MalformedInner)?;
    if let Some(way) = trail.repeat(packet.client, octets) {
        return frame(memory, packet, way);
    }
    leave_anew(memory, packet, tables, trail, now)
}

/// The same of one that goes otherwise than the last.
#[inline(never)]
fn leave_anew(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    trail: &mut Trail<'_>,
    now: u64,
) -> Result<Fate, Verdict> {
    let octets = memory.get_mut(inner(packet)).ok_or(Verdict::MalformedInner)?;
    let client = client_of(tables, packet.client).ok_or(Verdict::UnknownMux)?;
    let border = open_tunnel::border(client, octets)?;
    match border {
        Border::Open => {
            let way = *fitting(trail, border, octets)?;
            trail.note_open(packet.client, octets);
            frame(memory, packet, &way)
        }
        Border::Behind(member) => {
            let way = *fitting(trail, border, octets)?;
            trail.note_behind(packet.client, open_tunnel::go_behind(member, octets, now)?);
            frame(memory, packet, &way)
        }
        Border::Back(member) => {
            let to = open_tunnel::go_back(tables, member, octets, now)?;
            packet.route.to = to;
            clamp(memory, packet, tables, now);
            if let Some(client) = client_of(tables, to) {
                client.prefetch_to_seal();
            }
            Ok(Fate::On)
        }
    }
}

/// Translates a packet that leaves an open network in fragments, which [`enclose`] takes from there: a NAT refuses it as a
/// whole, or none of it.
pub(super) fn cross(memory: &mut [u8], packet: &Packet, tables: &Tables, now: u64) -> Result<(), Verdict> {
    let octets = memory.get_mut(inner(packet)).ok_or(Verdict::MalformedInner)?;
    let client = client_of(tables, packet.client).ok_or(Verdict::UnknownMux)?;
    match open_tunnel::border(client, octets)? {
        Border::Open => Ok(()),
        Border::Behind(member) => open_tunnel::go_behind(member, octets, now).map(drop),
        Border::Back(member) => open_tunnel::go_back(tables, member, octets, now).map(drop),
    }
}

/// Makes a frame of a fragment of a packet that has crossed the border.
pub(super) fn enclose(memory: &mut [u8], packet: &mut Packet, ways: &Ways) -> Result<Fate, Verdict> {
    let octets = memory.get(inner(packet)).ok_or(Verdict::MalformedInner)?;
    let mut trail = Trail::new(ways);
    let way = fitting(&mut trail, Border::Open, octets)?;
    frame(memory, packet, way)
}

/// The way out of a packet, if the packet is not too large for it.
#[inline]
fn fitting<'a>(trail: &'a mut Trail<'_>, border: Border<'_>, octets: &[u8]) -> Result<&'a Way, Verdict> {
    let way = trail.way(border, octets).map_err(|wayless| match wayless {
        Wayless::Neighbour(_) => Verdict::NoNeighbour,
        _ => Verdict::NoWay,
    })?;
    if octets.len() > usize::from(way.mtu) { Err(Verdict::TooBig) } else { Ok(way) }
}

/// Puts the Ethernet header of its way in front of a packet.
#[inline]
fn frame(memory: &mut [u8], packet: &mut Packet, way: &Way) -> Result<Fate, Verdict> {
    let inner = inner(packet);
    let head = open_tunnel::length(way);
    let total = head + inner.len();
    shift(memory, inner, head);
    let framed = memory.get_mut(..total).ok_or(Verdict::TooBig)?;
    open_tunnel::write(framed, way).ok_or(Verdict::TooBig)?;
    packet.place_at(head, total).ok_or(Verdict::TooBig)?;
    packet.slot = way.slot;
    Ok(Fate::Leave)
}

/// Moves a packet to another place in its frame. What is behind it there has no meaning, so that a short one is moved in a size
/// that the compiler knows.
#[inline]
fn shift(memory: &mut [u8], from: Range<usize>, to: usize) {
    const SHORT: usize = 64;
    if from.len() <= SHORT
        && let Some(octets) = memory.get(from.start..).and_then(<[u8]>::first_chunk::<SHORT>).copied()
        && let Some(place) = memory.get_mut(to..).and_then(<[u8]>::first_chunk_mut)
    {
        *place = octets;
        return;
    }
    memory.copy_within(from, to);
}

/// What becomes of a packet at the stage route that cannot go on as it is.
#[inline(never)]
pub(super) fn otherwise(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    ways: &Ways,
    asks: &Asks,
    end: End,
    now: u64,
) -> Fate {
    if packet.is_from_outside() {
        return answer(memory, packet, tables, ways, asks, end, now);
    }
    let mtu = largest(memory, packet, tables, ways);
    if end.verdict == Verdict::TooBig && memory.get(inner(packet)).is_some_and(|inner| Cut::new(inner, mtu).is_some()) {
        return Fate::Aside;
    }
    tell(memory, packet, tables, end.verdict, mtu, now).map_or(Fate::Ended(end), |kind| Fate::Told(end, kind))
}

/// Turns a packet from outside that goes no further into the error about it, which leaves to its sender as any packet of the
/// client that it was for would.
#[inline(never)]
pub(super) fn answer(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    ways: &Ways,
    asks: &Asks,
    end: End,
    now: u64,
) -> Fate {
    let to = packet.route.to;
    let Some(kind) = tell_outside(memory, packet, tables, end.verdict, now) else { return Fate::Ended(end) };
    packet.client = to;
    match leave(memory, packet, tables, &mut Trail::new(ways), now) {
        Ok(Fate::Leave) => Fate::Answered(end, kind),
        _ => {
            if let Some(next) = missing(memory, packet, tables, ways) {
                asks.ask(next);
            }
            Fate::Ended(end)
        }
    }
}

/// The next hop of a packet that leaves its open network, if that is not known yet.
pub(super) fn missing(memory: &[u8], packet: &Packet, tables: &Tables, ways: &Ways) -> Option<Next> {
    match way(memory, packet, tables, ways)? {
        Err(Wayless::Neighbour(next)) => Some(next),
        _ => None,
    }
}

/// Octets of the largest packet on the way of one that leaves an open network; 0 when there is none.
pub(super) fn largest(memory: &[u8], packet: &Packet, tables: &Tables, ways: &Ways) -> usize {
    way(memory, packet, tables, ways).and_then(Result::ok).map_or(0, |way| way.mtu.into())
}

/// The way of a packet that leaves an open network; nothing of any other, or one that goes back.
fn way(memory: &[u8], packet: &Packet, tables: &Tables, ways: &Ways) -> Option<Result<Way, Wayless>> {
    let inner = memory.get(inner(packet)).filter(|_| packet.route.to == OUTSIDE)?;
    match open_tunnel::border(client_of(tables, packet.client)?, inner).ok()? {
        Border::Back(_) => None,
        border => Some(Trail::new(ways).way(border, inner).copied()),
    }
}
