//! A batch of received packets on its way through the stages: the memory of each, and what was found out about it.

use super::BATCH;
use super::batch::{End, Live, Packet};
use super::counters::Tally;
use super::io::PacketIo;
use crate::mode::icmp::Kind;
use crate::table::{Client, ClientCounters, NOBODY, Tables};

/// Packets, where each stage finds them. A packet keeps its place; one that ends is passed over from then on.
pub(super) struct Passage<'a, 'f> {
    pub(super) tables: &'a Tables,
    /// The worker's place in the counters and sequences of every client.
    pub(super) worker: usize,
    pub(super) tally: &'a mut Tally,
    live: Live,
    /// Those that leave as they are, and wait for the others.
    ready: Live,
    /// Those that go on by themselves, after their batch.
    aside: Live,
    packets: &'a mut [Packet; BATCH],
    /// Of each frame the octets that were received, and all its memory from their start.
    lengths: [usize; BATCH],
    memory: [&'f mut [u8]; BATCH],
}

impl<'a, 'f> Passage<'a, 'f> {
    /// The packets in `frames`, of which those behind the first [`BATCH`] are passed over. What is in `packets` has no meaning.
    #[inline]
    pub(super) fn new<I: PacketIo>(
        io: &'f I,
        frames: &'f mut [I::Frame],
        packets: &'a mut [Packet; BATCH],
        tables: &'a Tables,
        worker: usize,
        tally: &'a mut Tally,
    ) -> Self {
        let live = Live::all(frames.len());
        let mut lengths = [0; BATCH];
        let mut memory: [&mut [u8]; BATCH] = std::array::from_fn(|_| Default::default());
        for ((frame, length), memory) in frames.iter_mut().zip(&mut lengths).zip(&mut memory) {
            *length = io.packet(frame).len();
            *memory = io.buffer(frame);
        }
        Self { tables, worker, tally, live, ready: Live::all(0), aside: Live::all(0), packets, lengths, memory }
    }

    /// Takes every packet a step further, given the octets that were received. Those that end there are counted.
    #[inline]
    pub(super) fn received(&mut self, mut step: impl FnMut(&[u8], &mut Packet, &Tables) -> Result<(), End>) {
        let Self { tables, worker, tally, live, packets, lengths, memory, .. } = self;
        live.retain(|place| {
            let octets = memory[place].get(..lengths[place]).unwrap_or_default();
            goes_on(step(octets, &mut packets[place], tables), tables, *worker, tally)
        });
    }

    /// Takes every packet a step further, given all memory of its frame. Those that end there are counted.
    #[inline]
    pub(super) fn stage(&mut self, mut step: impl FnMut(&mut [u8], &mut Packet, &Tables) -> Result<(), End>) {
        let Self { tables, worker, tally, live, packets, memory, .. } = self;
        live.retain(|place| goes_on(step(memory[place], &mut packets[place], tables), tables, *worker, tally));
    }

    /// Takes every packet a step further that may end otherwise than with a drop.
    #[inline]
    pub(super) fn stage_to(&mut self, mut step: impl FnMut(&mut [u8], &mut Packet, &Tables) -> Fate) {
        let Self { tables, worker, tally, live, ready, aside, packets, memory, .. } = self;
        live.retain(|place| match step(memory[place], &mut packets[place], tables) {
            Fate::On => true,
            Fate::Leave => {
                ready.add(place);
                false
            }
            Fate::Told(end, kind) => {
                tally.icmp_errors[kind as usize] += 1;
                account(end, tables, *worker, tally);
                true
            }
            Fate::Answered(end, kind) => {
                tally.icmp_errors[kind as usize] += 1;
                account(end, tables, *worker, tally);
                ready.add(place);
                false
            }
            Fate::Aside => {
                aside.add(place);
                false
            }
            Fate::Copied(end) => {
                tally.copies += 1;
                account(end, tables, *worker, tally);
                aside.add(place);
                false
            }
            Fate::Ended(end) => {
                account(end, tables, *worker, tally);
                false
            }
        });
    }

    /// Takes out the packets that came from outside as they are, which have nothing to be opened.
    #[inline]
    pub(super) fn part_outside(&mut self) -> Live {
        let packets = &*self.packets;
        self.live.part(|place| packets[place].is_from_outside())
    }

    /// Adds packets that were taken out.
    #[inline]
    pub(super) fn join(&mut self, others: Live) {
        self.live.join(others);
    }

    /// Whether no packet goes on.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.live == Live::all(0)
    }

    /// The clients of the packets that go on, of those right behind one another once.
    #[inline]
    pub(super) fn senders(&self) -> impl Iterator<Item = &Client> {
        let mut last = NOBODY;
        self.packets().filter_map(move |(_, packet)| {
            let is_other = packet.client != std::mem::replace(&mut last, packet.client);
            client_of(self.tables, packet.client).filter(|_| is_other)
        })
    }

    /// The packets that go on, each with the memory of its frame.
    #[inline]
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], &Packet)> {
        self.live.places().map(|place| (&*self.memory[place], &self.packets[place]))
    }

    /// The packets that go on, each with the memory of its frame to be written to.
    #[inline]
    pub(super) fn packets_mut(&mut self) -> impl Iterator<Item = (&mut [u8], &Packet)> {
        self.live.of(self.memory.iter_mut().map(|memory| &mut **memory).zip(self.packets.iter()))
    }

    /// The places of the packets that leave, when all stages are done, and of those that were set aside.
    #[inline]
    pub(super) fn end(mut self) -> (Live, Live) {
        self.live.join(self.ready);
        (self.live, self.aside)
    }
}

/// What becomes of a packet at a stage.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It goes on.
    On,
    /// Its frame is complete: it is ready to leave, and no later stage sees it.
    Leave,
    /// It ends, and in its place an ICMP error about it goes on, to its sender.
    Told(End, Kind),
    /// It ends, and in its place an ICMP error about it is ready to leave, to its sender outside.
    Answered(End, Kind),
    /// It goes on by itself, after its batch.
    Aside,
    /// It goes on by itself, after its batch, and a copy of it has ended here.
    Copied(End),
    /// It ends.
    Ended(End),
}

/// Whether a packet goes on; counts it if not.
#[inline]
fn goes_on(step: Result<(), End>, tables: &Tables, worker: usize, tally: &mut Tally) -> bool {
    step.map_err(|end| account(end, tables, worker, tally)).is_ok()
}

/// Counts an end for the worker and, if there is one, the client.
#[inline(never)]
pub(super) fn account(end: End, tables: &Tables, worker: usize, tally: &mut Tally) {
    tally.count(end.verdict, 1);
    if let Some(counters) = end.client.and_then(|client| counters(tables, client, worker)) {
        counters.dropped(end.verdict);
    }
}

/// The counters of a client that `worker` writes.
#[inline]
pub(super) fn counters(tables: &Tables, client: u32, worker: usize) -> Option<&ClientCounters> {
    client_of(tables, client)?.counters.get(worker)
}

/// The client that has a number.
#[inline]
pub(super) fn client_of(tables: &Tables, client: u32) -> Option<&Client> {
    tables.clients.get(client as usize)
}
