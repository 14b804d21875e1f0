//! What passes between workers and whoever knows the members of groups: reports of IGMP and MLD one way, queries the other.
//! Both wait in queues of a fixed length, so nothing is allocated, and nobody waits.

use std::sync::atomic::{AtomicU32, Ordering};

use anytun_common::map::QUEUES_PER_INTERFACE;
use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use crossbeam::queue::ArrayQueue;

use super::Lane;
use super::batch::Packet;
use super::handover::Handover;
use super::io::PacketIo;
use super::local::START;
use super::opening::body;
use super::passage::{Fate, client_of};
use super::slow::Bell;
use crate::mode::local;
use crate::mode::query::{Query, TOS};
use crate::mode::tunnel::{self, Route};
use crate::table::Tables;
use crate::table::membership::Change;
use crate::table::ways::Ways;

/// Changes that wait for being looked at, and queries for being sent.
const CHANGES: usize = 2048;
const QUERIES: usize = 256;

/// Slots of the queue of changes beyond those, more than there are workers. A `push` waits only at a slot that another thread
/// is still emptying, or still filling since the lap before: that before the first one or, in a full queue, the first. That
/// thread may be waiting for the processor of a worker, and a worker in real time gives it to nobody. Who finds fewer than
/// [`CHANGES`] puts one in; when all workers do so at the same time, the queue is not near full yet. One thread only takes.
const MARGIN: usize = 2 * QUEUES_PER_INTERFACE as usize;

/// Into how many classes clients fall.
const CLASSES: usize = 256;

/// The worker that sends queries.
const ASKER: usize = 0;

/// Queries that it sends in a turn: what clients send is not to wait for many.
const TURN: usize = 16;

/// A change that a client reported, and the generation of the tables by which the client is numbered.
pub type Heard = (u64, Change);

/// A query and the client that it is for, by the tables of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Addressed {
    /// That of the tables.
    pub generation: u64,
    /// Number of the client.
    pub client: u32,
    /// What it is sent.
    pub query: Query,
}

/// The two queues.
#[derive(Debug)]
pub struct Snoop {
    changes: ArrayQueue<Heard>,
    /// Of the changes that wait, how many are from clients of each class.
    held: Box<[AtomicU32; CLASSES]>,
    queries: Handover<Addressed>,
    bell: Bell,
}

impl Snoop {
    /// Empty ones. `bell` is that of whoever takes the changes.
    pub fn new(bell: Bell) -> Self {
        Self {
            changes: ArrayQueue::new(CHANGES + MARGIN),
            held: Box::new([const { AtomicU32::new(0) }; CLASSES]),
            queries: Handover::new(QUERIES),
            bell,
        }
    }

    fn held(&self, client: u32) -> &AtomicU32 {
        &self.held[client as usize % CLASSES]
    }

    /// Leaves a change; says whether there was room. One client may have as many waiting as there is room left, so what others
    /// report still finds room.
    fn leave(&self, heard: Heard) -> bool {
        let room = CHANGES.saturating_sub(self.changes.len());
        let held = self.held(heard.1.client);
        if held.load(Ordering::Relaxed) as usize >= room {
            return false;
        }
        // Before it is there: whoever takes it counts it down.
        held.fetch_add(1, Ordering::Relaxed);
        let is_left = self.changes.push(heard).is_ok();
        if !is_left {
            held.fetch_sub(1, Ordering::Relaxed);
        }
        is_left
    }

    /// The next change that a client reported.
    pub fn take(&self) -> Option<Heard> {
        let heard = self.changes.pop()?;
        self.held(heard.1.client).fetch_sub(1, Ordering::Relaxed);
        Some(heard)
    }

    /// Says that whoever takes changes is about to sleep; returns whether it may, as none waits. Then [`rise`](Self::rise) has
    /// to be called when it is awake.
    pub fn doze(&self) -> bool {
        self.bell.doze();
        let may = self.changes.is_empty();
        if !may {
            self.bell.rise();
        }
        may
    }

    /// Says that it is awake.
    pub fn rise(&self) {
        self.bell.rise();
    }

    /// Whether another query can wait for being sent.
    pub fn has_room(&self) -> bool {
        !self.queries.is_full()
    }

    /// Leaves a query to be sent. The worker may have to be woken.
    pub fn ask(&self, query: Addressed) {
        // Without room it is as one that was lost on its way.
        let _full = self.queries.push(query);
    }
}

/// Takes a packet that goes no further, as `verdict` says, as a report of IGMP or MLD; says what became of it, if it is one.
/// Reports go to groups of the link or have one hop only, so no other packet is looked at.
#[inline(never)]
pub(super) fn overhear(
    memory: &mut [u8],
    packet: &Packet,
    tables: &Tables,
    snoop: &Snoop,
    verdict: Verdict,
) -> Option<Verdict> {
    if !matches!(verdict, Verdict::LinkScope | Verdict::NoMember | Verdict::HopLimit) {
        return None;
    }
    let client = packet.client;
    tables.snooped(client_of(tables, client)?.network)?;
    let (payload_type, payload) = body(memory, packet, tables)?.split_first_chunk_mut::<PAYLOAD_TYPE>()?;
    let report = tunnel::report(tables, client, u16::from_be_bytes(*payload_type), payload)?;
    let mut verdict = Verdict::Membership;
    for (kind, group) in report {
        if !snoop.leave((tables.generation, Change { client, group, kind })) {
            // There is no room for the rest either.
            verdict = Verdict::ReportsLimit;
            break;
        }
    }
    snoop.bell.ring();
    Some(verdict)
}

impl<I: PacketIo> Lane<I> {
    /// Sends a few of the queries that wait; returns how many. One worker does so for all.
    #[inline]
    pub(super) fn send_queries(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        if self.index != ASKER || self.snoop.queries.is_empty() { 0 } else { self.send_some(tables, ways, now) }
    }

    #[inline(never)]
    fn send_some(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        let Self { io, tally, received, packets, snoop, .. } = self;
        let mut taken = 0;
        // In each turn no more than there are, of which those for clients of other tables count for nothing.
        for _ in 0..QUERIES {
            if taken == TURN {
                break;
            }
            let Some(asked) = snoop.queries.pop() else { break };
            if asked.generation > tables.generation {
                // Put there since this turn began: the next one has those tables.
                let _full = snoop.queries.push(asked);
                break;
            }
            if asked.generation != tables.generation {
                continue;
            }
            taken += 1;
            let place = received.len();
            // Without a frame it fares as what finds no room in a TX ring.
            let Some(mut frame) = (io.allocate(received, 1) > 0).then(|| received.pop()).flatten() else {
                tally.count(Verdict::TxRingFull, 1);
                continue;
            };
            match (write(io.buffer(&mut frame), &asked), packets.get_mut(place)) {
                (Some(packet), Some(known)) => {
                    *known = packet;
                    received.push(frame);
                }
                _ => {
                    tally.count(Verdict::TooBig, 1);
                    io.recycle(frame);
                }
            }
        }
        tally.injected += taken as u64;
        if taken > 0 {
            self.send_on(|lane| &mut lane.received, tables, ways, now, |_, _, _| Fate::On);
        }
        taken
    }
}

/// Writes a query into the memory of a frame.
fn write(memory: &mut [u8], asked: &Addressed) -> Option<Packet> {
    let octets = asked.query.packet();
    let (head, body) = memory.get_mut(START + HEADER..)?.split_first_chunk_mut::<PAYLOAD_TYPE>()?;
    *head = local::payload_type(octets).to_be_bytes();
    body.get_mut(..octets.len())?.copy_from_slice(octets);
    let route = Route { to: asked.client, length: octets.len() as u32, tos: TOS, dont_fragment: true };
    let mut packet = Packet::from_kernel(route);
    packet.place_at(START, START + HEADER + PAYLOAD_TYPE + octets.len())?;
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::membership::Kind;

    fn heard(client: u32) -> Heard {
        (1, Change { client, group: [0; 16], kind: Kind::Join })
    }

    #[test]
    fn a_client_that_reports_without_end_leaves_room_for_the_others() {
        let snoop = Snoop::new(Bell::new(|| ()));
        let flood = (0..10 * CHANGES).filter(|_| snoop.leave(heard(7))).count();
        assert_eq!(flood, CHANGES / 2);
        assert!(!snoop.leave(heard(7)));
        assert!((8..200).all(|client| snoop.leave(heard(client))));
        let taken = std::iter::from_fn(|| snoop.take()).count();
        assert_eq!(taken, CHANGES / 2 + 192);
        assert!(snoop.leave(heard(7)), "what was taken does not count");
        assert!(!snoop.doze(), "something waits");
    }

    #[test]
    fn however_much_is_reported_no_worker_has_to_wait_for_a_slot() {
        let snoop = Snoop::new(Bell::new(|| ()));
        for _ in 0..3 {
            // Each takes half of what is left, down to the last.
            (0..20).for_each(|client| while snoop.leave(heard(client)) {});
            let free = snoop.changes.capacity() - snoop.changes.len();
            assert!(free > QUEUES_PER_INTERFACE as usize, "{free} slots for all workers at the same time");
            assert_eq!(std::iter::from_fn(|| snoop.take()).count(), CHANGES);
        }
    }
}
