//! The last stages: from packets whose way is known to frames that can be sent.

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};
use anytun_common::wire::{ethernet, ipv6};

use super::batch::{End, Packet};
use super::outside;
use super::passage::{Fate, Passage, client_of};
use super::room::Room;
use super::stage::Stage;
use super::stages::inner;
use super::tell::tell;
use crate::mode::encapsulate::{self, Marks};
use crate::mode::fragment::Cut;
use crate::mode::tunnel::Route;
use crate::satp::lease::Empty;
use crate::satp::{Batch, ToSeal};
use crate::table::Tables;
use crate::table::ways::{Asks, Ways};

/// Takes packets whose way is known to whole frames: lay out to enclose, which is done when the frames are passed on.
#[inline]
pub(super) fn seal(
    passage: &mut Passage<'_, '_>,
    ways: &Ways,
    asks: &Asks,
    crypto: &mut Batch,
    identification: &mut u16,
    now: u64,
    done: &mut impl FnMut(Stage),
) {
    if passage.is_done() {
        done(Stage::LayOut);
        done(Stage::Seal);
        return;
    }
    let (tables, worker) = (passage.tables, passage.worker);
    for client in passage.packets().filter_map(|(_, packet)| client_of(tables, packet.route.to)) {
        client.prefetch_sealing(worker);
    }
    let mut lay_out = |memory: &mut [u8], packet: &mut Packet, tables: &Tables| {
        lay_out(memory, packet, tables, worker, now, identification)
    };
    passage.stage_to(|memory, packet, tables| {
        let Err(end) = lay_out(memory, packet, tables) else { return Fate::On };
        if end.verdict == Verdict::TooBig && may_be_cut(memory, packet, tables, now) {
            return Fate::Aside;
        }
        if packet.is_from_outside() {
            return outside::answer(memory, packet, tables, ways, asks, end, now);
        }
        let mtu =
            client_of(tables, packet.route.to).and_then(|to| Room::to(to, tables, now)).map_or(0, |room| room.inner());
        let told = tell(memory, packet, tables, end.verdict, mtu, now);
        match told.filter(|_| lay_out(memory, packet, tables).is_ok()) {
            Some(kind) => Fate::Told(end, kind),
            None => Fate::Ended(end),
        }
    });
    done(Stage::LayOut);
    let sealed = crypto.seal(passage.packets_mut().map_while(|(memory, packet)| to_seal(memory, packet, tables)));
    done(Stage::Seal);
    let mut places = 0..;
    passage.stage(|memory, packet, _| enclose(memory, packet, sealed.contains(places.next().unwrap_or(usize::MAX))));
}

/// Whether a packet that is larger than its way takes can be sent in fragments.
#[inline(never)]
fn may_be_cut(memory: &[u8], packet: &Packet, tables: &Tables, now: u64) -> bool {
    let to = client_of(tables, packet.route.to).filter(|to| tables.bridge(to.network).is_none());
    let Some(room) = to.and_then(|to| Room::to(to, tables, now)) else { return false };
    memory.get(inner(packet)).is_some_and(|inner| Cut::new(inner, room.inner()).is_some())
}

/// Decides where in its frame a routed packet is sealed, and with which number, and writes the headers in front of it. The
/// packet stays at its place unless these change in length.
#[inline]
fn lay_out(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    worker: usize,
    now: u64,
    identification: &mut u16,
) -> Result<(), End> {
    let Route { to, length, tos, mut dont_fragment } = packet.route;
    let end = |verdict| End { verdict, client: Some(to) };
    let client = client_of(tables, to).ok_or(end(Verdict::NoRoute))?;
    let service = tables.services.all().get(client.service as usize).ok_or(end(Verdict::NoRoute))?;
    let endpoint = client.track.endpoint.load().ok_or(end(Verdict::NoEndpoint))?;
    let room = Room::new(client, &endpoint, tables, now).ok_or(end(Verdict::NoEndpoint))?;
    let head = encapsulate::length(&endpoint);
    let plain = PAYLOAD_TYPE + length as usize;
    let total = head + HEADER + plain + client.keys.tag();
    let from = packet.start();
    let mut is_halved = false;
    if length as usize > room.inner() {
        // An IPv6 packet of a size that every link has to take is cut outside (RFC 2473 §7.2 b): in IPv4 by the router that
        // told of the path, in IPv6 here.
        let payload_type = memory.get(from + HEADER..).and_then(<[u8]>::first_chunk).copied();
        let small = payload_type == Some(ethernet::IPV6.to_be_bytes()) && length as usize <= ipv6::LEAST_MTU;
        let leaves = if endpoint.is_v4() { room.leaves(length as usize) } else { room.interface >= ipv6::LEAST_MTU };
        if !small || !leaves {
            return Err(end(Verdict::TooBig));
        }
        is_halved = !endpoint.is_v4();
        dont_fragment = false;
    }
    if total > memory.len() {
        return Err(end(Verdict::TooBig));
    }
    if from != head {
        memory.copy_within(from + HEADER..from + HEADER + plain, head + HEADER);
    }
    let sequence = client.sequences.get(worker).ok_or(end(Verdict::NoSequence))?;
    let (sender, sequence) = sequence.take().map_err(|empty| {
        end(match empty {
            Empty::Late => Verdict::NoSequence,
            Empty::Exhausted => Verdict::SequenceExhausted,
        })
    })?;
    if !dont_fragment {
        *identification = identification.wrapping_add(1);
    }
    let marks = Marks { tos, dont_fragment, identification: *identification };
    let framed = memory.get_mut(..total).ok_or(end(Verdict::TooBig))?;
    packet.unsummed = encapsulate::write(framed, &endpoint, service, marks).ok_or(end(Verdict::TooBig))?;
    packet.place_at(head, total).ok_or(end(Verdict::TooBig))?;
    packet.header = Header { sequence, sender, mux: client.mux };
    packet.slot = endpoint.slot();
    // Not before: a packet that is not laid out may yet be answered, in a frame that is not cut.
    packet.is_halved = is_halved;
    Ok(())
}

/// What of a packet that is laid out is sealed, and with what. Never nothing, as there was a client to lay it out for; if
/// it were, no packet from there on would be sealed.
#[inline]
fn to_seal<'a>(memory: &'a mut [u8], packet: &Packet, tables: &'a Tables) -> Option<ToSeal<'a>> {
    let client = client_of(tables, packet.route.to)?;
    let satp = memory.get_mut(packet.start()..packet.end())?;
    Some(ToSeal { keys: &client.keys, sender: client.role.opposite(), header: packet.header, packet: satp })
}

/// Completes the outer headers of a packet that is `sealed`: their checksum runs over all of it.
#[inline]
fn enclose(memory: &mut [u8], packet: &Packet, sealed: bool) -> Result<(), End> {
    let framed = memory.get_mut(..packet.end()).filter(|_| sealed);
    let summed = framed.and_then(|framed| encapsulate::sum(framed, packet.start(), packet.unsummed));
    summed.ok_or(End { verdict: Verdict::TooBig, client: Some(packet.route.to) })
}
