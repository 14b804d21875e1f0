//! The worker: the thread that owns one queue of every interface. It receives a batch, runs each stage over all of it
//! (parse, look up, open, route, seal), transmits, and sleeps when there is nothing to do. Full batches follow one another
//! before the kernel is made to send them.

mod batch;
mod copies;
mod counters;
pub mod datagram;
mod fragments;
mod handover;
mod head;
pub mod io;
mod local;
pub mod memory;
mod opening;
mod outbox;
mod outside;
mod pace;
mod passage;
mod room;
mod sealing;
mod shares;
pub mod slow;
pub mod snoop;
mod stage;
mod stages;
mod tell;
mod unresolved;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use crossbeam::utils::CachePadded;

use self::batch::Packet;
use self::copies::Copies;
pub use self::counters::{Tally, WorkerCounters};
use self::fragments::Oversized;
use self::io::PacketIo;
use self::local::Local;
use self::opening::Origin;
use self::outbox::Outbox;
use self::pace::REST;
pub use self::pace::{Held, Pace, Pause};
use self::slow::{Inlet, WorkerHalf};
use self::snoop::Snoop;
pub use self::stage::Stage;
use self::unresolved::Unresolved;
use crate::config::{Idle, Scheduling};
use crate::mode::open_tunnel::Kept;
use crate::satp::Batch;
use crate::table::Tables;
use crate::table::ways::{Asks, Ways};

/// Packets that go through the stages together: enough to amortise a call into the kernel and to fill the pipelines of
/// the cryptography, few enough for their headers to stay in the first-level cache.
pub const BATCH: usize = 64;
const _: () = assert!(BATCH <= Batch::PACKETS);

/// The longest sleep: how late a worker notices what nobody wakes it for.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How long a worker waits, when it stops, for the kernel to send what was handed over.
const DRAIN: Duration = Duration::from_secs(1);

/// One worker.
pub struct Worker<I: PacketIo> {
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    ways: Cache<Arc<ArcSwap<Ways>>, Arc<Ways>>,
    lane: Lane<I>,
    shown: Arc<CachePadded<WorkerCounters>>,
}

/// What packets pass through, apart from the tables.
struct Lane<I: PacketIo> {
    /// The worker's place in the counters and sequences of every client.
    index: usize,
    io: I,
    tally: Tally,
    received: Vec<I::Frame>,
    /// What is known of the packet in each of these frames.
    packets: Box<[Packet; BATCH]>,
    crypto: Batch,
    outboxes: Vec<Outbox<I::Frame>>,
    /// What the kernel has not been told of.
    held: Held,
    /// Packets that are sent in fragments, when their batch is done.
    oversized: Oversized<I::Frame>,
    /// Packets to groups.
    copies: Copies<I::Frame>,
    /// Packets whose next hop is not known yet.
    unresolved: Unresolved<I::Frame>,
    /// Of the last packet that may be fragmented.
    identification: u16,
    /// The way out that the last packet took.
    kept: Kept,
    /// Where missing neighbours are asked for.
    asks: Arc<Asks>,
    /// The slow path, if a network has a device.
    local: Option<Local>,
    /// Datagrams that the kernel received for services.
    datagrams: Option<Inlet>,
    /// What clients report of groups, and what they are asked.
    snoop: Arc<Snoop>,
}

/// What a worker looks up: snapshots that others replace.
#[derive(Clone)]
pub struct Snapshots {
    /// Services, clients and networks.
    pub tables: Arc<ArcSwap<Tables>>,
    /// The ways out of the node.
    pub ways: Arc<ArcSwap<Ways>>,
    /// Where the worker asks for neighbours that are not known.
    pub asks: Arc<Asks>,
    /// Where it leaves what clients report of groups, and finds what they are asked.
    pub snoop: Arc<Snoop>,
}

impl<I: PacketIo> Worker<I> {
    /// A worker that has not run yet. `index` is its place in the counters and sequences of every client.
    pub fn new(index: usize, io: I, snapshots: Snapshots, shown: Arc<CachePadded<WorkerCounters>>) -> Self {
        let outboxes = (0..io.ports()).map(|_| Outbox::with_capacity(BATCH)).collect();
        let lane = Lane {
            index,
            io,
            tally: Tally::default(),
            received: Vec::with_capacity(BATCH),
            packets: Box::new([Packet::default(); BATCH]),
            crypto: Batch::default(),
            outboxes,
            held: Held::default(),
            oversized: Oversized::default(),
            copies: Copies::default(),
            unresolved: Unresolved::default(),
            identification: 0,
            kept: Kept::default(),
            asks: snapshots.asks,
            local: None,
            datagrams: None,
            snoop: snapshots.snoop,
        };
        let worker = Self { tables: Cache::new(snapshots.tables), ways: Cache::new(snapshots.ways), lane, shown };
        worker.show();
        worker
    }

    /// Connects the worker with the kernel of the node, by the slow path.
    pub fn connect(&mut self, half: WorkerHalf) {
        self.lane.local = Some(Local::new(half));
    }

    /// Lets the worker take what the kernel receives for services.
    pub fn receive_from(&mut self, inlet: Inlet) {
        self.lane.datagrams = Some(inlet);
    }

    /// Carries packets until `stop` is set, then what is still in the rings. `start` is when the node started.
    pub fn run(mut self, start: Instant, idle: Idle, scheduling: Scheduling, stop: &AtomicBool) {
        let mut pace = Pace::new(idle, scheduling, start.elapsed());
        while !stop.load(Ordering::Relaxed) {
            let before = self.lane.tally.rx_packets;
            let carried = self.turn(pace.now().as_millis() as u64);
            let received = self.lane.tally.rx_packets - before;
            match pace.after(carried, received as usize, || start.elapsed()) {
                Pause::No => continue,
                Pause::Show => {
                    self.show();
                    continue;
                }
                Pause::Rest(time) => {
                    self.lane.kick();
                    thread::sleep(time);
                }
                Pause::Gather(time) => {
                    self.show();
                    self.lane.gather(time);
                }
                Pause::Sleep => {
                    self.show();
                    self.lane.sleep(self.lane.longest_sleep());
                }
            }
            pace.resume(start.elapsed());
        }
        let deadline = Instant::now() + DRAIN;
        while (self.turn(start.elapsed().as_millis() as u64) > 0 || self.lane.io.ledger().tx > 0)
            && Instant::now() < deadline
        {
            self.lane.io.wait(Duration::from_millis(1));
        }
        self.lane.give_up_unresolved(self.tables.load());
        self.show();
    }

    /// Takes one batch from every port through the stages, a few packets of the kernel, a few that it received, queries for
    /// members of groups, and copies of packets to groups; returns how many packets and copies that were. After a full batch
    /// what is sent may wait in the TX rings for the next turn. `now` is in milliseconds since the node started.
    pub fn turn(&mut self, now: u64) -> usize {
        self.observed_turn(now, |_| ())
    }

    /// A [`turn`](Self::turn) that says which stages are done, for whoever measures them: of every port the first, of those
    /// with packets the others, and the last at the end.
    pub fn observed_turn(&mut self, now: u64, mut done: impl FnMut(Stage)) -> usize {
        // Also when nothing came, so that a worker without traffic lets go of tables that were replaced.
        let (tables, ways) = (&**self.tables.load(), self.ways.load());
        let lane = &mut self.lane;
        lane.kept.renew(ways, now);
        lane.io.reclaim();
        lane.renumber_copies(tables);
        lane.renumber_unresolved(tables);
        let resolved = lane.send_resolved(tables, ways, now);
        let (mut total, mut is_full) = (0, false);
        for port in 0..lane.io.ports() {
            let received = lane.io.receive(port, &mut lane.received, BATCH);
            done(Stage::Receive);
            if received > 0 {
                lane.relay(tables, ways, Origin::Port(port), now, &mut done);
                lane.transmit(tables);
                lane.send_fragments(tables, ways, now);
                done(Stage::Transmit);
                total += received;
                is_full |= received >= BATCH;
            }
        }
        let received = total;
        lane.tally.rx_packets += received as u64;
        total += lane.exchange(tables, ways, now);
        total += lane.take_datagrams(tables, ways, now);
        total += lane.send_queries(tables, ways, now);
        let copied = lane.send_copies(tables, ways, now);
        if lane.held.is_due(received, is_full) {
            lane.kick();
        }
        lane.tally.turns += 1;
        let all = total + copied + resolved;
        if all > 0 {
            self.show();
        }
        done(Stage::Close);
        all
    }

    /// Shows the counters as they are now.
    fn show(&self) {
        self.shown.publish(&self.lane.tally, self.lane.io.ledger(), self.lane.io.counters());
    }

    /// The packet I/O, for whoever drives a worker turn by turn.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.lane.io
    }
}
