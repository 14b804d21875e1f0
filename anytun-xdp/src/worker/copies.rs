//! Packets to groups: each is sealed once for every member but its sender, a few copies a turn, so that whoever sends to
//! groups takes no more than that from the others.

use std::collections::VecDeque;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::HEADER;

use super::batch::{End, Packet};
use super::io::PacketIo;
use super::passage::{Fate, account, client_of};
use super::shares::{Class, Shares};
use super::stages::inner;
use super::{BATCH, Lane};
use crate::table::ways::Ways;
use crate::table::{NOBODY, Tables};

/// Copies that are made in a turn: half of what a turn receives from one port.
const SHARE: usize = BATCH / 2;

/// Packets that wait for being copied.
const WAITING: usize = 2 * BATCH;

/// Packets that wait for being copied, and copies that wait for being sealed.
pub(super) struct Copies<F> {
    /// In the order in which they came.
    waiting: VecDeque<Waiting<F>>,
    /// What of these each sender has.
    shares: Shares,
    frames: Vec<F>,
    packets: Vec<Packet>,
    /// That of the tables by which senders and members of those that wait are numbered.
    generation: u64,
}

/// A packet that was not copied to all members yet.
struct Waiting<F> {
    frame: F,
    packet: Packet,
    /// Members with a number less than this have got theirs. Others may come and go meanwhile.
    next: u32,
}

impl<F> Default for Copies<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(WAITING),
            shares: Shares::default(),
            frames: Vec::with_capacity(SHARE),
            packets: Vec::with_capacity(SHARE),
            generation: 0,
        }
    }
}

impl<F> Copies<F> {
    /// Takes a packet of a batch to copy it later. One sender may have as many waiting as there is room left, so what others
    /// send still finds room; the frame of a packet that finds none comes back.
    pub(super) fn push(&mut self, frame: F, packet: Packet) -> Result<(), F> {
        let room = WAITING.saturating_sub(self.waiting.len());
        let class = Class::of(packet.client);
        if !self.shares.admits(class, room) {
            return Err(frame);
        }
        self.shares.add(class);
        self.waiting.push_back(Waiting { frame, packet, next: 0 });
        Ok(())
    }

    /// Puts the packet that was first in front again.
    fn put_back(&mut self, first: Waiting<F>) {
        self.shares.add(Class::of(first.packet.client));
        self.waiting.push_front(first);
    }

    fn pop(&mut self) -> Option<Waiting<F>> {
        let first = self.waiting.pop_front()?;
        self.shares.remove(Class::of(first.packet.client));
        Some(first)
    }
}

impl<I: PacketIo> Lane<I> {
    /// Makes copies of the packets that wait, and sends them; returns how many.
    #[inline]
    pub(super) fn send_copies(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        if self.copies.waiting.is_empty() { 0 } else { self.copy(tables, ways, now) }
    }

    /// Gives up the packets that wait if clients have got other numbers since.
    #[inline]
    pub(super) fn renumber_copies(&mut self, tables: &Tables) {
        if self.copies.generation != tables.generation {
            self.copies.generation = tables.generation;
            while let Some(Waiting { frame, .. }) = self.copies.pop() {
                // What was not made of it counts as one.
                self.tally.copies += 1;
                account(End { verdict: Verdict::CopiesLimit, client: None }, tables, self.index, &mut self.tally);
                self.io.recycle(frame);
            }
        }
    }

    #[inline(never)]
    fn copy(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        let mut made = 0;
        let joined = tables.joined.load();
        while made < SHARE
            && let Some(mut first) = self.copies.pop()
        {
            let (sender, from) = (first.packet.client, first.next);
            let members = tables.members(&joined, first.packet.route.to);
            let rest = members.get(members.partition_point(|member| *member < from)..).unwrap_or_default();
            let mut others = rest.iter().filter(|member| **member != sender).peekable();
            // The last one gets the packet itself.
            let last = loop {
                if made == SHARE {
                    break None;
                }
                let Some(&member) = others.next() else { break None };
                made += 1;
                first.next = member + 1;
                if others.peek().is_none() {
                    break Some(member);
                }
                self.duplicate(&mut first, member, tables);
            };
            match last {
                Some(member) => self.copies.address(first.frame, first.packet, member),
                None if others.peek().is_some() => self.copies.put_back(first),
                None => self.io.recycle(first.frame),
            }
        }
        self.tally.copies += made as u64;
        self.seal_copies(tables, ways, now);
        made
    }

    /// Makes a copy for a member. Without a free frame there is none, and that is counted.
    fn duplicate(&mut self, original: &mut Waiting<I::Frame>, member: u32, tables: &Tables) {
        let Self { io, copies, tally, index, .. } = self;
        let packet = original.packet;
        let octets = packet.start() + HEADER..inner(&packet).end;
        if io.allocate(&mut copies.frames, 1) == 0 {
            return account(End::of(member)(Verdict::TxRingFull), tables, *index, tally);
        }
        let Some(mut frame) = copies.frames.pop() else { return };
        let from = io.buffer(&mut original.frame).get(octets.clone());
        // All frames are of one size, so what is in one has room in another.
        if let (Some(from), Some(to)) = (from, io.buffer(&mut frame).get_mut(octets)) {
            to.copy_from_slice(from);
        }
        if let Some(client) = client_of(tables, member) {
            client.prefetch_to_seal();
        }
        copies.address(frame, packet, member);
    }

    /// Takes the copies that were made through the last stages, and sends them.
    fn seal_copies(&mut self, tables: &Tables, ways: &Ways, now: u64) {
        for (place, copy) in self.packets.iter_mut().zip(self.copies.packets.drain(..)) {
            *place = copy;
        }
        self.send_on(|lane| &mut lane.copies.frames, tables, ways, now, |_, _, _| Fate::On);
    }
}

impl<F> Copies<F> {
    /// Lets a frame wait for being sealed for a member. Nobody is told what becomes of it (RFC 1122 §3.2.2), so its sender is
    /// not named.
    fn address(&mut self, frame: F, mut packet: Packet, member: u32) {
        (packet.client, packet.route.to) = (NOBODY, member);
        self.frames.push(frame);
        self.packets.push(packet);
    }
}
