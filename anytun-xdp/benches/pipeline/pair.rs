//! Two workers on two queues beside one: what they carry together, and what keeps them from twice as much.
//!
//! As in a node, a client's packets arrive at one queue, and both workers send to every client.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpus;
use crate::lane::Lane;
use crate::traffic::{PACKETS, Share, Traffic};

/// What one round found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Nanoseconds that a packet takes of a processor, with both workers at work.
    pub(crate) ns: f64,
    /// How many times as much as one worker, which is the mean of each CPU's, both carry.
    pub(crate) times_one: f64,
    /// The same when they have no client in common: what the machine allows.
    pub(crate) apart_times_one: f64,
}

/// Carries packets of one size for about `time` on each CPU alone, then on both.
pub(crate) fn round(lanes: &mut [Lane<'_>; 2], cpus: [usize; 2], size: usize, time: Duration) -> Round {
    let [first, second] = lanes;
    let alone = [
        together([(&mut *first, cpus[0], Share::ALL)], size, time),
        together([(&mut *second, cpus[1], Share::ALL)], size, time),
    ];
    let one = (packets_a_second(&alone[0]) + packets_a_second(&alone[1])) / 2.0;
    let mut both = |apart| {
        let share = |rest| Share { rest, of: 2, apart };
        together([(&mut *first, cpus[0], share(0)), (&mut *second, cpus[1], share(1))], size, time)
    };
    let (shared, apart) = (both(false), both(true));
    Round {
        ns: shared.iter().sum::<f64>() / 2.0,
        times_one: packets_a_second(&shared) / one,
        apart_times_one: packets_a_second(&apart) / one,
    }
}

/// What workers carry together, given nanoseconds a packet of each.
fn packets_a_second(ns: &[f64]) -> f64 {
    ns.iter().map(|ns| 1e9 / ns).sum()
}

/// Runs workers on CPUs of their own at once; returns nanoseconds a packet of each. They make packets together and carry
/// them together, pass by pass, so that none works alone.
fn together<const N: usize>(lanes: [(&mut Lane<'_>, usize, Share); N], size: usize, time: Duration) -> [f64; N] {
    let barrier = Barrier::new(N);
    let over = AtomicBool::new(false);
    let run = |lane: &mut Lane<'_>, cpu, share| {
        cpus::bind(cpu);
        let mut traffic = Traffic::new(lane.world, size, share);
        lane.prepare(&mut traffic);
        lane.carry_all(&traffic);
        let start = Instant::now();
        let (mut spent, mut passes) = (Duration::ZERO, 0);
        while !over.load(Ordering::Relaxed) {
            lane.prepare(&mut traffic);
            barrier.wait();
            spent += lane.carry_all(&traffic);
            passes += 1;
            if start.elapsed() >= time {
                over.store(true, Ordering::Relaxed);
            }
            // Also shows both the same end.
            barrier.wait();
        }
        spent.as_nanos() as f64 / (passes * PACKETS) as f64
    };
    thread::scope(|scope| {
        let run = &run;
        let threads = lanes.map(|(lane, cpu, share)| scope.spawn(move || run(lane, cpu, share)));
        threads.map(|thread| thread.join().expect("a worker that carries everything"))
    })
}
