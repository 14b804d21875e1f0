//! What is read before and after a piece of work: the clock, and the counters of the CPU where there are any.

use std::time::Instant;

use perf_event::events::Hardware;
use perf_event::{Builder, Counter, Group};

/// How often a gauge is read to find out what that costs.
const TRIALS: usize = 2001;

/// Something that only grows.
pub(crate) trait Gauge<const N: usize> {
    /// Where it stands.
    fn read(&mut self) -> [u64; N];

    /// What lies between two readings with nothing between them.
    fn cost(&mut self) -> [u64; N] {
        let mut trials: Vec<[u64; N]> = (0..TRIALS)
            .map(|_| {
                let (before, after) = (self.read(), self.read());
                std::array::from_fn(|index| after[index] - before[index])
            })
            .collect();
        std::array::from_fn(|index| {
            trials.sort_unstable_by_key(|trial| trial[index]);
            trials[TRIALS / 2][index]
        })
    }
}

/// Nanoseconds.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Gauge<1> for Clock {
    fn read(&mut self) -> [u64; 1] {
        [self.0.elapsed().as_nanos() as u64]
    }
}

/// Cycles and instructions of this thread outside the kernel. Reading them is a call into the kernel, which is not counted
/// but is felt, so no times are taken beside.
pub(crate) struct Counters {
    group: Group,
    counters: [Counter; 2],
}

impl Counters {
    /// Nothing where they cannot be had: most virtual machines have none, and an administrator may forbid them.
    pub(crate) fn new() -> Option<Self> {
        let mut group = Group::new().ok()?;
        let cycles = Builder::new().group(&mut group).kind(Hardware::CPU_CYCLES).build().ok()?;
        let instructions = Builder::new().group(&mut group).kind(Hardware::INSTRUCTIONS).build().ok()?;
        group.enable().ok()?;
        let mut counters = Self { group, counters: [cycles, instructions] };
        // A group that finds no place on the CPU can be opened all the same, and stands still.
        let [first, second] = [counters.read(), counters.read()];
        (0..2).all(|index| second[index] > first[index]).then_some(counters)
    }
}

impl Gauge<2> for Counters {
    fn read(&mut self) -> [u64; 2] {
        let counts = self.group.read().expect("a group that was read before");
        self.counters.each_ref().map(|counter| counts[counter])
    }
}
