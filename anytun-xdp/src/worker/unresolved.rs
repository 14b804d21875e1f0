//! Packets of open networks that wait: those that leave, until the kernel has found their next hop (RFC 1122 §2.3.2.2), and
//! fragments that came before the first one of their datagram, which tells a NAT whose they are (RFC 4787 REQ-14).

use std::collections::VecDeque;
use std::time::Duration;

use anytun_common::verdict::Verdict;
use anytun_common::wire::unmapped;

use super::batch::{End, Packet};
use super::io::PacketIo;
use super::passage::account;
use super::{BATCH, LONGEST_SLEEP, Lane, outside};
use crate::mode::open_tunnel::Trail;
use crate::table::Tables;
use crate::table::ways::Ways;

/// Packets that wait at most.
const WAITING: usize = BATCH;
const _: () = assert!(WAITING <= BATCH, "all may go on at once");

/// How long one waits for its next hop, in milliseconds: the kernel asks a neighbour once a second.
const PATIENCE: u64 = 1000;

/// How long one waits for its first fragment, in milliseconds: they overtake each other by less.
const EARLY: u64 = 100;

/// How often the kernel is asked again, in milliseconds, should a question have been lost.
const AGAIN: u64 = 100;

/// How often a worker looks that has nothing else to do.
const NAP: Duration = Duration::from_millis(2);

/// Packets that wait for their next hop, or their first fragment.
pub(super) struct Unresolved<F> {
    /// In the order in which they came.
    waiting: VecDeque<Waiting<F>>,
    frames: Vec<F>,
    packets: Vec<Packet>,
    /// When it was last looked for their next hops.
    looked: u64,
    /// That of the tables by which their senders are numbered.
    generation: u64,
}

struct Waiting<F> {
    frame: F,
    packet: Packet,
    /// When it has waited long enough.
    end: u64,
}

impl<F> Default for Unresolved<F> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(WAITING),
            frames: Vec::with_capacity(WAITING),
            packets: Vec::with_capacity(WAITING),
            looked: 0,
            generation: 0,
        }
    }
}

impl<F> Unresolved<F> {
    /// Takes a packet. One sender may have as many waiting as there is room left, so whoever sends to many hosts that are not
    /// there leaves room for others, and all outside together leaves half; one host outside may have half as many as there is
    /// room left. The frame of a packet that finds none comes back.
    pub(super) fn push(&mut self, frame: F, packet: Packet, now: u64) -> Result<(), F> {
        let room = WAITING.saturating_sub(self.waiting.len());
        let held = self.waiting.iter().map(|waiting| &waiting.packet).filter(|held| held.client == packet.client);
        let of_host = held.clone().filter(|held| host(&held.source) == host(&packet.source));
        if packet.is_from_outside() && of_host.count() >= (room / 2).max(1) || held.count() >= room {
            return Err(frame);
        }
        let patience = if packet.is_early { EARLY } else { PATIENCE };
        self.waiting.push_back(Waiting { frame, packet, end: now.saturating_add(patience) });
        Ok(())
    }
}

/// What one host has in common in the addresses it sends from: in IPv6 any interface identifier may be its own.
fn host(address: &[u8; 16]) -> &[u8] {
    if unmapped(*address).is_some() { address } else { &address[..8] }
}

impl<I: PacketIo> Lane<I> {
    /// How long the worker may sleep.
    pub(super) fn longest_sleep(&self) -> Duration {
        if self.unresolved.waiting.is_empty() { LONGEST_SLEEP } else { NAP }
    }

    /// Sends the packets whose next hop was found, and gives those up that have waited long enough; returns how many these
    /// were. Looks once a millisecond.
    #[inline]
    pub(super) fn send_resolved(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        let is_time = !self.unresolved.waiting.is_empty() && self.unresolved.looked != now;
        if is_time { self.look_again(tables, ways, now) } else { 0 }
    }

    /// Gives up the packets that wait if clients have got other numbers since.
    #[inline]
    pub(super) fn renumber_unresolved(&mut self, tables: &Tables) {
        if self.unresolved.generation != tables.generation {
            self.unresolved.generation = tables.generation;
            self.give_up_unresolved(tables);
        }
    }

    /// Gives up the packets that wait.
    pub(super) fn give_up_unresolved(&mut self, tables: &Tables) {
        while let Some(Waiting { frame, packet, .. }) = self.unresolved.waiting.pop_front() {
            let verdict = if packet.is_early { Verdict::NatFragment } else { Verdict::NoNeighbour };
            account(End { verdict, client: None }, tables, self.index, &mut self.tally);
            self.io.recycle(frame);
        }
    }

    #[inline(never)]
    fn look_again(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        let Self { io, packets, unresolved, asks, .. } = self;
        let Unresolved { waiting, frames, packets: due, looked, .. } = unresolved;
        let asks_again = now / AGAIN != *looked / AGAIN;
        *looked = now;
        for _ in 0..waiting.len() {
            let Some(mut first) = waiting.pop_front() else { break };
            let (memory, packet) = (io.buffer(&mut first.frame), &mut first.packet);
            let next = outside::missing(memory, packet, tables, ways);
            let is_early = next.is_none() && outside::is_early(memory, packet, tables, now);
            if is_early && !packet.is_early {
                // The first fragment may have waited behind it, for the same neighbour.
                packet.is_early = true;
                first.end = now.saturating_add(EARLY);
            }
            if now < first.end && (is_early || next.is_some()) {
                if let Some(next) = next.filter(|_| asks_again) {
                    asks.ask(next);
                }
                waiting.push_back(first);
            } else {
                frames.push(first.frame);
                due.push(first.packet);
            }
        }
        let count = frames.len();
        if count == 0 {
            return 0;
        }
        for (place, packet) in packets.iter_mut().zip(due.drain(..)) {
            *place = packet;
        }
        let asks = self.asks.clone();
        let mut trail = Trail::new(ways);
        self.send_on(
            |lane| &mut lane.unresolved.frames,
            tables,
            ways,
            now,
            |memory, packet, tables| {
                let fate = if packet.is_from_outside() {
                    // Of a fragment no checksum is partial.
                    outside::route(memory, packet, tables, false, now)
                } else {
                    outside::leave(memory, packet, tables, &mut trail, now).map_err(End::of(packet.client))
                };
                fate.unwrap_or_else(|end| outside::otherwise(memory, packet, tables, ways, &asks, end, now))
            },
        );
        count
    }
}
