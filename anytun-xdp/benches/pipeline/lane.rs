//! A worker on plain memory, and what arrives there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anytun_common::verdict::Verdict;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::{Kernel, Memory};
use anytun_xdp::worker::{BATCH, Stage, Worker, WorkerCounters};
use crossbeam::utils::CachePadded;

use crate::gauge::{Clock, Gauge};
use crate::traffic::{PACKETS, Share, Traffic};
use crate::world::World;

/// Frames of each worker.
const FRAMES: usize = 4 * BATCH;
/// Octets of a frame.
const FRAME: usize = 2048;

/// One worker of a world.
pub(crate) struct Lane<'w> {
    pub(crate) world: &'w World,
    worker: Worker<Memory>,
    shown: Arc<CachePadded<WorkerCounters>>,
}

impl<'w> Lane<'w> {
    pub(crate) fn new(world: &'w World, index: usize) -> Self {
        let kernel = Kernel { keep: false, ..Kernel::default() };
        let shown: Arc<CachePadded<WorkerCounters>> = Arc::default();
        let memory = Memory::new(1, FRAMES, FRAME, kernel);
        let mut worker = Worker::new(index, memory, world.snapshots(), shown.clone());
        // Fills the ring that packets arrive through.
        worker.turn(0);
        Self { world, worker, shown }
    }

    /// Lets the node hear every client once, so that it knows where they are.
    pub(crate) fn introduce_everybody(&mut self) {
        let mut traffic = Traffic::new(self.world, 64, Share::ALL);
        let clients: Vec<u16> = (0..self.world.clients).collect();
        for some in clients.chunks(PACKETS) {
            traffic.introduce(self.world, some.iter().copied());
            self.carry(&traffic, some.len(), |worker| _ = worker.turn(0));
        }
    }

    /// Makes packets that the next [`carry_all`](Self::carry_all) carries.
    pub(crate) fn prepare(&self, traffic: &mut Traffic) {
        traffic.renew(self.world);
        self.world.extend_leases();
    }

    /// Carries all packets; returns the time that the worker took for them.
    pub(crate) fn carry_all(&mut self, traffic: &Traffic) -> Duration {
        let mut spent = Duration::ZERO;
        self.carry(traffic, PACKETS, |worker| {
            let start = Instant::now();
            worker.turn(0);
            spent += start.elapsed();
        });
        spent
    }

    /// Carries packets for about `time`; returns nanoseconds a packet.
    pub(crate) fn whole(&mut self, traffic: &mut Traffic, time: Duration) -> f64 {
        let (mut spent, mut passes) = (Duration::ZERO, 0);
        self.repeat(traffic, time, |lane, traffic| {
            spent += lane.carry_all(traffic);
            passes += 1;
        });
        spent.as_nanos() as f64 / (passes * PACKETS) as f64
    }

    /// Carries packets for about `time`; returns for each stage what a packet adds to a gauge. The gauge is read once a
    /// batch and stage, and what reading it adds is taken off.
    pub(crate) fn stages<const N: usize>(
        &mut self,
        traffic: &mut Traffic,
        time: Duration,
        gauge: &mut impl Gauge<N>,
    ) -> [[f64; N]; Stage::COUNT] {
        let cost = gauge.cost();
        let (mut sums, mut passes) = ([[0; N]; Stage::COUNT], 0);
        self.repeat(traffic, time, |lane, traffic| {
            lane.carry(traffic, PACKETS, |worker| {
                let mut before = gauge.read();
                worker.observed_turn(0, |stage| {
                    let after = gauge.read();
                    let sums = sums[stage as usize].iter_mut();
                    for (sum, (after, before)) in sums.zip(after.iter().zip(before)) {
                        *sum += after - before;
                    }
                    before = after;
                });
            });
            passes += 1;
        });
        let batches = (passes * PACKETS / BATCH) as f64;
        let each = |sum: u64, cost: u64| (sum as f64 / batches - cost as f64) / BATCH as f64;
        sums.map(|sums| std::array::from_fn(|index| each(sums[index], cost[index])))
    }

    /// Nanoseconds a packet by stage.
    pub(crate) fn times(&mut self, traffic: &mut Traffic, time: Duration) -> [f64; Stage::COUNT] {
        self.stages(traffic, time, &mut Clock::new()).map(|[ns]| ns)
    }

    /// Passes over new packets until the time is up, one more before them to warm up.
    fn repeat(&mut self, traffic: &mut Traffic, time: Duration, mut pass: impl FnMut(&mut Self, &Traffic)) {
        self.prepare(traffic);
        self.carry_all(traffic);
        let start = Instant::now();
        loop {
            self.prepare(traffic);
            pass(self, traffic);
            if start.elapsed() >= time {
                return;
            }
        }
    }

    /// Carries the first `count` packets, batch by batch, each with one call of `turn`. Every one must come through.
    fn carry(&mut self, traffic: &Traffic, count: usize, mut turn: impl FnMut(&mut Worker<Memory>)) {
        let before = self.shown.verdict(Verdict::Forwarded);
        for batch in traffic.batches(count) {
            for frame in batch {
                assert!(self.worker.io_mut().arrive(0, frame), "there is room");
            }
            turn(&mut self.worker);
            // Rings as short as these cannot wait for more.
            self.worker.io_mut().kick();
        }
        let forwarded = self.shown.verdict(Verdict::Forwarded) - before;
        assert_eq!(forwarded, count as u64, "{:?}", self.drops());
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = Verdict::ALL.iter().map(|verdict| (verdict.name(), self.shown.verdict(*verdict)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}
