//! Packets that are sent in fragments: each needs further frames, so they go through the last stages in batches of their own.

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::HEADER;

use super::batch::{End, Packet};
use super::io::PacketIo;
use super::passage::{Fate, Passage, account, client_of};
use super::room::Room;
use super::sealing::seal;
use super::stages::{inner, pass_on};
use super::tell::tell;
use super::{BATCH, Lane, outside};
use crate::mode::fragment::{Cut, MOST};
use crate::table::ways::Ways;
use crate::table::{OUTSIDE, Tables};

/// Packets that wait for being fragmented, and fragments that wait for being sealed.
pub(super) struct Oversized<F> {
    packets: Vec<(F, Packet)>,
    frames: Vec<F>,
    fragments: Vec<Packet>,
}

impl<F> Default for Oversized<F> {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(BATCH),
            frames: Vec::with_capacity(BATCH),
            fragments: Vec::with_capacity(BATCH),
        }
    }
}

impl<F> Oversized<F> {
    /// Sets a packet of a batch aside.
    pub(super) fn push(&mut self, frame: F, packet: Packet) {
        self.packets.push((frame, packet));
    }
}

impl<I: PacketIo> Lane<I> {
    /// Sends the packets that were set aside, in fragments.
    #[inline]
    pub(super) fn send_fragments(&mut self, tables: &Tables, ways: &Ways, now: u64) {
        if !self.oversized.packets.is_empty() {
            self.send_all(tables, ways, now);
        }
    }

    #[inline(never)]
    fn send_all(&mut self, tables: &Tables, ways: &Ways, now: u64) {
        let mut waiting = std::mem::take(&mut self.oversized.packets);
        for (frame, packet) in waiting.drain(..) {
            if self.oversized.frames.len() + MOST > BATCH {
                self.seal_fragments(tables, ways, now);
            }
            if let Err((frame, verdict)) = self.fragment(frame, packet, tables, ways, now) {
                account(End::of(payer(&packet))(verdict), tables, self.index, &mut self.tally);
                self.io.recycle(frame);
            }
        }
        self.oversized.packets = waiting;
        self.seal_fragments(tables, ways, now);
    }

    /// Makes the fragments of a packet, or of what a NAT refuses the error about it, unless the packet has only come before the
    /// first fragment of its datagram. The frame comes back when that cannot be.
    fn fragment(
        &mut self,
        mut frame: I::Frame,
        mut packet: Packet,
        tables: &Tables,
        ways: &Ways,
        now: u64,
    ) -> Result<(), (I::Frame, Verdict)> {
        let Self { index, io, tally, oversized: Oversized { frames, fragments, .. }, unresolved, .. } = self;
        let whole = inner(&packet);
        let (head, start) = (packet.start() + HEADER, whole.start);
        let limit = if packet.route.to == OUTSIDE {
            let memory = io.buffer(&mut frame);
            let largest = outside::largest(memory, &packet, tables, ways);
            if let Err(verdict) = outside::cross(memory, &packet, tables, now) {
                let is_early = verdict == Verdict::NatFragment && outside::is_early(memory, &packet, tables, now);
                // Once: what has waited in vain comes here again.
                if is_early && !packet.is_early {
                    packet.is_early = true;
                    return unresolved.push(frame, packet, now).map_err(|frame| (frame, verdict));
                }
                let Some(kind) = tell(memory, &mut packet, tables, verdict, largest, now) else {
                    return Err((frame, verdict));
                };
                tally.icmp_errors[kind as usize] += 1;
                account(End::of(packet.client)(verdict), tables, *index, tally);
                frames.push(frame);
                fragments.push(packet);
                return Ok(());
            }
            Some(largest)
        } else {
            client_of(tables, packet.route.to).and_then(|to| Room::to(to, tables, now)).map(|room| room.inner())
        };
        let Some(limit) = limit else { return Err((frame, Verdict::NoEndpoint)) };
        let inner = io.buffer(&mut frame).get(whole.clone());
        let Some(cut) = inner.and_then(|inner| Cut::new(inner, limit)) else { return Err((frame, Verdict::TooBig)) };
        let further = cut.count() - 1;
        let (before, first) = (frames.len(), frames.len() + 1);
        frames.push(frame);
        if io.allocate(frames, further) < further {
            frames.drain(first..).for_each(|frame| io.recycle(frame));
            return match frames.pop() {
                Some(frame) => Err((frame, Verdict::TxRingFull)),
                None => Ok(()),
            };
        }
        let Some((whole_frame, rest)) = frames.get_mut(before..).and_then(<[I::Frame]>::split_first_mut) else {
            return Ok(());
        };
        let memory = io.buffer(whole_frame);
        let mut note = |length: usize| {
            let mut fragment = packet;
            fragment.route.length = length as u32;
            fragments.push(fragment);
        };
        note(0);
        for (index, further) in (1..).zip(rest) {
            let out = io.buffer(further);
            let inner = memory.get(whole.clone()).unwrap_or_default();
            let length = out.get_mut(start..).and_then(|out| cut.write(inner, index, out)).unwrap_or(0);
            if let (Some(to), Some(from)) = (out.get_mut(head..start), memory.get(head..start)) {
                to.copy_from_slice(from);
            }
            note(length);
        }
        let length = memory.get_mut(whole).and_then(|inner| cut.shorten(inner)).unwrap_or(0);
        if let Some(fragment) = fragments.get_mut(before) {
            fragment.route.length = length as u32;
        }
        Ok(())
    }

    /// Takes the fragments that were made through the last stages, or out of their network, and sends them.
    fn seal_fragments(&mut self, tables: &Tables, ways: &Ways, now: u64) {
        let Self { index, io, tally, packets, crypto, outboxes, oversized, identification, asks, .. } = self;
        let Oversized { frames, fragments, .. } = oversized;
        for (place, fragment) in packets.iter_mut().zip(fragments.drain(..)) {
            *place = fragment;
        }
        let mut passage = Passage::new(io, frames, packets, tables, *index, tally);
        passage.stage_to(|memory, packet, _| match packet.route.to {
            OUTSIDE => outside::enclose(memory, packet, ways)
                .unwrap_or_else(|verdict| Fate::Ended(End::of(payer(packet))(verdict))),
            _ => Fate::On,
        });
        seal(&mut passage, ways, asks, crypto, identification, now, &mut |_| ());
        let (leave, aside) = passage.end();
        // The way has become narrower in between.
        for packet in aside.of(packets.iter()) {
            account(End::of(payer(packet))(Verdict::TooBig), tables, *index, tally);
        }
        pass_on(io, frames, packets, leave, outboxes, |io, _, frame, _| io.recycle(frame));
        self.transmit(tables);
    }
}

/// The client to whose account it goes when a packet ends: the one it goes to, or comes from when it leaves the network.
fn payer(packet: &Packet) -> u32 {
    if packet.route.to == OUTSIDE { packet.client } else { packet.route.to }
}
