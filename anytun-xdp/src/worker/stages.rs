//! The stages of a batch, in the order in which packets walk them.

use std::ops::Range;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};
use anytun_common::wire::{ipv6, udp};

use super::batch::{End, Live, Packet};
use super::io::PacketIo;
use super::local::deliver;
use super::opening::{Heard, Origin, body, follow, open};
use super::outbox::{Outbox, Receipt};
use super::passage::{Fate, Passage, account, client_of, counters};
use super::room::Room;
use super::sealing::seal;
use super::snoop::overhear;
use super::stage::Stage;
use super::{BATCH, Lane, outside};
use crate::mode::halve::halve;
use crate::mode::open_tunnel::Trail;
use crate::mode::tunnel::{self, Ahead, Bearing};
use crate::mode::{bridge, mss};
use crate::table::ways::Ways;
use crate::table::{KERNEL, OUTSIDE, Tables, is_group};

impl<I: PacketIo> Lane<I> {
    /// Takes the received packets of one origin through all stages, into the outboxes; says which are `done`.
    pub(super) fn relay(
        &mut self,
        tables: &Tables,
        ways: &Ways,
        origin: Origin<'_>,
        now: u64,
        mut done: impl FnMut(Stage),
    ) {
        let Self {
            index,
            io,
            tally,
            received,
            packets,
            crypto,
            outboxes,
            oversized,
            copies,
            unresolved,
            identification,
            asks,
            kept,
            local,
            snoop,
            ..
        } = self;
        let asks = &*asks;
        let mut passage = Passage::new(io, received, packets, tables, *index, tally);
        open(&mut passage, crypto, origin, now, &mut done);
        let mut ahead = Ahead::default();
        passage.packets().for_each(|(memory, packet)| prefetch_route(memory, packet, tables, &mut ahead));
        let mut course = Course { heard: Heard::default(), bearing: Bearing::default(), trail: kept.trail(ways) };
        passage.stage_to(|memory, packet, tables| match route(memory, packet, tables, &mut course, origin, now) {
            // By far the most; told before others, so that their fate is not copied from memory.
            Ok(Fate::On) if packet.route.to != KERNEL => Fate::On,
            Ok(Fate::Leave) => Fate::Leave,
            Ok(_) if packet.route.to == KERNEL => {
                Fate::Ended(End::of(packet.client)(deliver(memory, packet, tables, local)))
            }
            // What is for everybody in an Ethernet network is for the kernel too.
            Ok(Fate::Aside) if kernel_port(packet, tables).is_some() => {
                Fate::Copied(End::of(packet.client)(deliver(memory, packet, tables, local)))
            }
            Ok(fate) => fate,
            Err(End { verdict: Verdict::NoNeighbour, .. }) => Fate::Aside,
            Err(End { verdict: Verdict::NatFragment, .. }) if outside::is_early(memory, packet, tables, now) => {
                packet.is_early = true;
                Fate::Aside
            }
            Err(end) => match overhear(memory, packet, tables, snoop, end.verdict) {
                Some(verdict) => Fate::Ended(End::of(packet.client)(verdict)),
                None => outside::otherwise(memory, packet, tables, ways, asks, end, now),
            },
        });
        let last = course.trail.last();
        kept.keep(last);
        done(Stage::Route);
        seal(&mut passage, ways, asks, crypto, identification, now, &mut done);
        let (leave, aside) = passage.end();
        pass_on(io, received, packets, leave, outboxes, |io, place, mut frame, packet| {
            if !aside.contains(place) {
                return io.recycle(frame);
            }
            let taken = if is_group(packet.route.to) {
                let taken = copies.push(frame, *packet).map(|()| tally.count(Verdict::Copied, 1));
                taken.map_err(|frame| (frame, Verdict::CopiesLimit))
            } else if packet.is_early {
                unresolved.push(frame, *packet, now).map_err(|frame| (frame, Verdict::NatFragment))
            } else if let Some(next) = outside::missing(io.buffer(&mut frame), packet, tables, ways) {
                let taken = unresolved.push(frame, *packet, now).map(|()| asks.ask(next));
                taken.map_err(|frame| (frame, Verdict::NoNeighbour))
            } else {
                oversized.push(frame, *packet);
                Ok(())
            };
            if let Err((frame, verdict)) = taken {
                account(End::of(packet.client)(verdict), tables, *index, tally);
                io.recycle(frame);
            }
        });
        done(Stage::Enclose);
    }

    /// Takes the packets of which `packets` tells, in frames that others keep room for, a `step` further and then through the
    /// last stages, and sends them.
    pub(super) fn send_on(
        &mut self,
        frames: impl Fn(&mut Self) -> &mut Vec<I::Frame>,
        tables: &Tables,
        ways: &Ways,
        now: u64,
        step: impl FnMut(&mut [u8], &mut Packet, &Tables) -> Fate,
    ) {
        let mut own = std::mem::take(frames(self));
        let Self { index, io, tally, packets, crypto, outboxes, oversized, identification, asks, .. } = self;
        let mut passage = Passage::new(io, &mut own, packets, tables, *index, tally);
        passage.stage_to(step);
        seal(&mut passage, ways, asks, crypto, identification, now, &mut |_| ());
        let (leave, aside) = passage.end();
        pass_on(io, &mut own, packets, leave, outboxes, |io, place, frame, packet| {
            if aside.contains(place) { oversized.push(frame, *packet) } else { io.recycle(frame) }
        });
        *frames(self) = own;
        self.transmit(tables);
        self.send_fragments(tables, ways, now);
    }

    /// Makes the kernel send what was handed over.
    pub(super) fn kick(&mut self) {
        let all = self.io.kick();
        self.held.release(all);
    }

    /// Hands over what is in the outboxes.
    pub(super) fn transmit(&mut self, tables: &Tables) {
        let Self { index, io, tally, outboxes, .. } = self;
        let index = *index;
        let (mut forwarded, mut outward) = (0, 0);
        for (port, outbox) in outboxes.iter_mut().enumerate().filter(|(_, outbox)| !outbox.is_empty()) {
            let sent = |receipt: Receipt| match counters(tables, receipt.client, index) {
                Some(_) if receipt.octets == 0 => {}
                Some(counters) => {
                    forwarded += 1;
                    counters.sent(receipt.octets);
                }
                None => outward += 1,
            };
            let refused = |receipt: Receipt| {
                if receipt.octets > 0 {
                    account(End::of(receipt.client)(Verdict::TxRingFull), tables, index, tally);
                }
            };
            outbox.transmit(io, port, sent, refused);
        }
        tally.count(Verdict::Forwarded, forwarded);
        tally.count(Verdict::Outward, outward);
    }
}

/// Puts the packets that `leave` into outboxes; the others are for `stays`.
#[inline]
pub(super) fn pass_on<I: PacketIo>(
    io: &mut I,
    frames: &mut Vec<I::Frame>,
    packets: &[Packet; BATCH],
    leave: Live,
    outboxes: &mut [Outbox<I::Frame>],
    mut stays: impl FnMut(&mut I, usize, I::Frame, &Packet),
) {
    if let Some(outbox) = only(packets, frames.len(), leave).and_then(|slot| outboxes.get_mut(usize::from(slot))) {
        for (frame, packet) in frames.iter_mut().zip(packets) {
            io.set_length(frame, packet.end());
        }
        return outbox.append(frames, packets.iter().map(receipt));
    }
    for (place, (mut frame, packet)) in frames.drain(..).zip(packets.iter()).enumerate() {
        match outboxes.get_mut(usize::from(packet.slot)).filter(|_| leave.contains(place)) {
            Some(outbox) if packet.is_halved => push_halves(io, frame, packet, outbox),
            Some(outbox) => {
                io.set_length(&mut frame, packet.end());
                outbox.push(frame, receipt(packet));
            }
            None => apart(|| stays(io, place, frame, packet)),
        }
    }
}

/// The slot of the interface that all of so many packets leave through, as they are.
#[inline]
fn only(packets: &[Packet; BATCH], count: usize, leave: Live) -> Option<u8> {
    let slot = packets[0].slot;
    let is_usual = |packet: &Packet| packet.slot == slot && !packet.is_halved;
    (count <= BATCH && leave == Live::all(count) && packets.iter().take(count).all(is_usual)).then_some(slot)
}

/// To whom a packet goes.
#[inline]
fn receipt(packet: &Packet) -> Receipt {
    Receipt { client: packet.route.to, octets: packet.length() }
}

/// Does what is rare outside of the loop that it is rare in.
#[cold]
#[inline(never)]
fn apart(rare: impl FnOnce()) {
    rare();
}

/// Puts a packet into an outbox as two fragments.
#[cold]
fn push_halves<I: PacketIo>(io: &mut I, mut frame: I::Frame, packet: &Packet, outbox: &mut Outbox<I::Frame>) {
    let receipt = receipt(packet);
    let Some(mut further) = outbox.allocate(io) else {
        outbox.lose(receipt);
        return io.recycle(frame);
    };
    let network = packet.start().saturating_sub(ipv6::HEADER + udp::HEADER);
    // Told apart from others to the same host: the number is that of one sender ID and MUX (RFC 7739).
    let Header { sequence, sender, mux } = packet.header;
    let identification = sequence.wrapping_mul(0x9e37_79b1) ^ (u32::from(mux) << 16 | u32::from(sender));
    let memory = io.buffer(&mut frame);
    // Every way takes so much, so no error about fragments has to be understood.
    let path = ipv6::LEAST_MTU;
    match halve(memory, network, packet.end(), path, identification, io.buffer(&mut further)) {
        Some(octets) => {
            for (mut frame, (length, octets)) in
                [frame, further].into_iter().zip(octets.into_iter().zip([0, receipt.octets]))
            {
                io.set_length(&mut frame, length);
                outbox.push(frame, Receipt { octets, ..receipt });
            }
        }
        None => {
            outbox.lose(receipt);
            io.recycle(frame);
            io.recycle(further);
        }
    }
}

/// Brings near what decides where an opened packet goes, or one from outside, if it is not what the last one went by.
#[inline]
fn prefetch_route(memory: &[u8], packet: &Packet, tables: &Tables, ahead: &mut Ahead) {
    let body = memory.get(packet.start() + HEADER..).and_then(<[u8]>::split_first_chunk);
    let Some((payload_type, payload)) = body.map(|(octets, payload)| (u16::from_be_bytes(*octets), payload)) else {
        return;
    };
    if ahead.turns(packet.client, payload_type, payload) {
        let network = match client_of(tables, packet.client) {
            Some(client) => tables.networks.get(client.network as usize),
            None => Some(tables.inside.clients()),
        };
        if let Some(network) = network {
            tunnel::prefetch(network, payload_type, payload);
        }
    }
}

/// What the packets of a batch leave for those right behind them.
struct Course<'a> {
    heard: Heard,
    bearing: Bearing,
    trail: Trail<'a>,
}

/// Decides where an opened packet goes, and notes where its client is, unless the packet is not what the client may send:
/// such a one changes nothing.
#[inline]
fn route(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    course: &mut Course<'_>,
    origin: Origin<'_>,
    now: u64,
) -> Result<Fate, End> {
    if packet.is_from_outside() {
        // What the kernel receives is for services; one may have gone meanwhile.
        let Origin::Port(port) = origin else { return Err(End { verdict: Verdict::Stray, client: None }) };
        let partial = tables.partial.get(port).copied().unwrap_or(false);
        course.trail.forget();
        return outside::route(memory, packet, tables, partial, now);
    }
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = client_of(tables, packet.client).ok_or(end(Verdict::UnknownMux))?;
    let decided = body(memory, packet, tables)
        .and_then(|body| body.split_first_chunk_mut::<PAYLOAD_TYPE>())
        .ok_or(Verdict::MalformedInner)
        .and_then(|(payload_type, payload)| {
            let payload_type = u16::from_be_bytes(*payload_type);
            match tables.bridge(client.network) {
                Some(bridge) => {
                    let everybody = tables.groups.everybody(client.network);
                    bridge::route(bridge, everybody, packet.client, &client.track.allowance, payload_type, payload, now)
                        .map(|route| packet.route = route)
                }
                None => {
                    let (number, tos) = (packet.client, packet.tos);
                    tunnel::route(tables, number, payload_type, payload, tos, &mut course.bearing, &mut packet.route)
                }
            }
        });
    if !matches!(decided, Err(Verdict::ForeignSource | Verdict::PayloadType | Verdict::MalformedInner)) {
        follow(memory, packet, client, tables, origin, &mut course.heard);
    }
    decided.map_err(end)?;
    if is_group(packet.route.to) {
        // Whoever sends gets no copy.
        let joined = tables.joined.load();
        if tables.members(&joined, packet.route.to).iter().any(|member| *member != packet.client) {
            return Ok(Fate::Aside);
        }
        tables.kernel_port(client.network).ok_or(end(Verdict::NoMember))?;
        packet.route.to = KERNEL;
        return Ok(Fate::On);
    }
    clamp(memory, packet, tables, now);
    if packet.route.to == OUTSIDE {
        let sender = packet.client;
        return match outside::leave(memory, packet, tables, &mut course.trail, now) {
            Ok(Fate::Leave) => Ok(Fate::Leave),
            other => other.map_err(End::of(sender)),
        };
    }
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// The device by which the kernel is a port of the Ethernet network that a packet came from.
#[inline]
fn kernel_port(packet: &Packet, tables: &Tables) -> Option<u32> {
    tables.kernel_port(client_of(tables, packet.client)?.network)
}

/// Makes TCP announce segments that fit the ways to the clients at both ends.
#[inline]
pub(super) fn clamp(memory: &mut [u8], packet: &Packet, tables: &Tables, now: u64) {
    if let Some(octets) = memory.get_mut(inner(packet)).filter(|octets| mss::may_be_tcp(octets)) {
        clamp_tcp(octets, packet, tables, now);
    }
}

/// The same for what is most likely TCP.
#[inline(never)]
fn clamp_tcp(octets: &mut [u8], packet: &Packet, tables: &Tables, now: u64) {
    let ends = || [packet.client, packet.route.to].into_iter().filter_map(|end| client_of(tables, end));
    let policy = ends().next().and_then(|client| tables.policies.get(client.network as usize));
    if policy.is_some_and(|policy| policy.mss_clamp) {
        let narrower = || ends().filter_map(|end| Room::to(end, tables, now)).map(|room| room.inner()).min();
        mss::clamp(octets, narrower);
    }
}

/// Where in its frame the inner packet of a routed packet lies that is not laid out yet.
#[inline]
pub(super) fn inner(packet: &Packet) -> Range<usize> {
    let start = packet.start() + HEADER + PAYLOAD_TYPE;
    start..start + packet.route.length as usize
}
