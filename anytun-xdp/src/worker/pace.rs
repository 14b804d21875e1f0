//! When a worker pauses, and when it makes the kernel send.

use std::time::Duration;

use anytun_common::backlog::CALM;

use super::BATCH;
use crate::config::{Idle, Scheduling};

/// Turns without a packet before a worker sleeps.
const IDLE_TURNS: u32 = 1;

/// Turns without a packet before a worker that does not sleep shows that it lives.
const SPINNING_TURNS: u32 = 1 << 16;

/// How long a worker in real time carries packets without a sleep, and how long it then rests: threads of the kernel
/// that belong to its processor get no other time, and without them not even a file is written.
const SHIFT: Duration = Duration::from_millis(10);
pub(super) const REST: Duration = Duration::from_micros(100);

/// Packets that a worker lets gather under load, and the longest and the shortest time that it gives them. Where it shares
/// a processor with the kernel's receiving, that wakes it every 64 packets, and for so few both find caches cold.
const GATHERED: u32 = 4 * BATCH as u32;
const _: () = assert!(GATHERED as u64 <= CALM);
const LONGEST_GATHER: Duration = Duration::from_micros(200);
const SHORTEST_GATHER: Duration = Duration::from_micros(50);
/// Fewer packets in the longest time are not waited for.
const FEW: u32 = BATCH as u32 / 2;

/// Packets received after which the kernel is made to send at the latest: as many as one call sends.
const HELD: usize = 4 * BATCH;

/// What a worker does before its next turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// Nothing.
    No,
    /// It leaves its processor to others for that long.
    Rest(Duration),
    /// It sleeps for that long, unless it is woken: packets gather meanwhile.
    Gather(Duration),
    /// It sleeps until there is something to do.
    Sleep,
    /// It goes on, but has had nothing to do for long.
    Show,
}

/// The pauses of one worker.
#[derive(Debug)]
pub struct Pace {
    idle: Idle,
    scheduling: Scheduling,
    /// Turns without a packet.
    empty: u32,
    /// The last reading of the clock, which is dear in a virtual machine.
    now: Duration,
    /// When others last had time.
    rested: Duration,
    /// When the last pause began, and whether packets were to gather in it.
    paused: Duration,
    gathered: bool,
    /// Packets received since, and whether those that waited right after it filled a batch.
    received: u64,
    was_full: bool,
}

impl Pace {
    /// The pauses of a worker that begins at a time.
    pub const fn new(idle: Idle, scheduling: Scheduling, now: Duration) -> Self {
        Self {
            idle,
            scheduling,
            empty: 0,
            now,
            rested: now,
            paused: now,
            gathered: false,
            received: 0,
            was_full: false,
        }
    }

    /// The time when `clock` was last read.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// What is to be done after a turn that carried so many packets, and received so many of these from interfaces.
    #[inline]
    pub fn after(&mut self, carried: usize, received: usize, clock: impl FnOnce() -> Duration) -> Pause {
        if self.received == 0 {
            self.was_full = received >= BATCH;
        }
        self.received += received as u64;
        if carried > 0 {
            self.empty = 0;
            self.now = clock();
            let is_long = self.now.saturating_sub(self.rested) >= SHIFT;
            return if self.scheduling == Scheduling::Fifo && is_long { Pause::Rest(REST) } else { Pause::No };
        }
        self.empty += 1;
        let patience = if self.idle == Idle::Sleep { IDLE_TURNS } else { SPINNING_TURNS };
        self.now = clock();
        if self.empty < patience {
            return Pause::No;
        }
        self.empty = 0;
        if self.idle == Idle::Spin {
            return Pause::Show;
        }
        let gather = self.gather();
        (self.paused, self.gathered, self.received) = (self.now, gather.is_some(), 0);
        gather.map_or(Pause::Sleep, Pause::Gather)
    }

    /// Notes that a pause is over.
    #[inline]
    pub fn resume(&mut self, now: Duration) {
        // One that ends at once gives nobody time.
        if now.saturating_sub(self.now) >= REST {
            self.rested = now;
        }
        self.now = now;
    }

    /// How long packets are to gather: only under load, and only where the kernel wakes the worker when a whole batch is there
    /// instead of when the first packet is.
    fn gather(&self) -> Option<Duration> {
        // After a pause for more it takes more, so that where little comes it is not made late for good.
        let least = if self.gathered { 2 * BATCH } else { BATCH };
        if !self.was_full || self.received < least as u64 {
            return None;
        }
        let received = u32::try_from(self.received).unwrap_or(u32::MAX);
        let each = self.now.saturating_sub(self.paused) / received;
        let time = (each * GATHERED).min(LONGEST_GATHER);
        (each * FEW <= LONGEST_GATHER && time >= SHORTEST_GATHER).then_some(time)
    }
}

/// What was sent without the kernel being told yet: one call sends several batches.
#[derive(Debug, Default)]
pub struct Held {
    /// Packets received since it was told.
    packets: usize,
    /// Whether it left some of them when it was.
    is_behind: bool,
}

impl Held {
    /// Whether the kernel is to be told after a turn that received so many packets: not yet where more follow, as they do
    /// behind a batch that was full.
    #[inline]
    pub const fn is_due(&mut self, received: usize, is_full: bool) -> bool {
        self.packets += received;
        !is_full || self.is_behind || self.packets >= HELD
    }

    /// Notes that the kernel was told, and whether it sent all.
    #[inline]
    pub const fn release(&mut self, all: bool) {
        *self = Self { packets: 0, is_behind: !all };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A worker and its clock.
    struct Runner {
        pace: Pace,
        now: Duration,
    }

    impl Runner {
        fn new(idle: Idle, scheduling: Scheduling) -> Self {
            Self { pace: Pace::new(idle, scheduling, Duration::ZERO), now: Duration::ZERO }
        }

        /// A turn that takes so long.
        fn turn(&mut self, carried: usize, time: Duration) -> Pause {
            self.now += time;
            self.pace.after(carried, carried, || self.now)
        }

        /// A pause that takes so long.
        fn pause(&mut self, time: Duration) {
            self.now += time;
            self.pace.resume(self.now);
        }
    }

    #[test]
    fn a_worker_without_packets_sleeps_at_once() {
        let mut runner = Runner::new(Idle::Sleep, Scheduling::Fifo);
        for carried in [1, 2, BATCH - 1] {
            assert_eq!(runner.turn(carried, us(20)), Pause::No);
            assert_eq!(runner.turn(0, us(1)), Pause::Sleep);
            runner.pause(us(100));
        }
    }

    #[test]
    fn one_that_spins_never_does() {
        let mut runner = Runner::new(Idle::Spin, Scheduling::Other);
        for _ in 0..10_000 {
            assert_eq!(runner.turn(BATCH, us(20)), Pause::No);
        }
        let pauses: Vec<_> = (0..3 * SPINNING_TURNS).map(|_| runner.turn(0, us(1))).collect();
        assert_eq!(pauses.iter().filter(|pause| **pause == Pause::Show).count(), 3);
        assert_eq!(pauses.iter().filter(|pause| **pause == Pause::No).count(), pauses.len() - 3);
    }

    /// A million packets a second, of which the first 64 wake it.
    #[test]
    fn under_load_packets_gather() {
        let mut runner = Runner::new(Idle::Sleep, Scheduling::Other);
        for _ in 0..10 {
            assert_eq!(runner.turn(BATCH, us(40)), Pause::No);
            assert_eq!(runner.turn(0, us(0)), Pause::Gather(us(160)));
            for _ in 0..10 {
                runner.pause(us(200));
                for _ in 0..3 {
                    assert_eq!(runner.turn(BATCH, us(20)), Pause::No);
                }
                assert_eq!(runner.turn(0, us(0)), Pause::Gather(LONGEST_GATHER));
            }
            runner.pause(us(200));
            // It was enough for little more than a batch: whoever sends so little does not wait again.
            assert_eq!(runner.turn(BATCH, us(20)), Pause::No);
            assert_eq!(runner.turn(BATCH - 1, us(20)), Pause::No);
            assert_eq!(runner.turn(0, us(0)), Pause::Sleep);
        }
    }

    #[test]
    fn the_time_to_gather_is_that_of_four_batches() {
        // Nanoseconds from packet to packet; a rate at which four batches take less than the longest time, one at which they
        // come too fast to be waited for, the slowest that is waited for, and one below it.
        let cases = [(500, Some(us(128))), (100, None), (6_250, Some(us(200))), (6_500, None)];
        for (each, expected) in cases {
            let mut runner = Runner::new(Idle::Sleep, Scheduling::Other);
            runner.turn(BATCH, Duration::from_nanos(each * BATCH as u64));
            assert_eq!(runner.turn(0, us(0)), expected.map_or(Pause::Sleep, Pause::Gather), "{each} ns");
        }
    }

    /// A burst after silence is no load.
    #[test]
    fn nobody_waits_behind_a_lone_burst() {
        let mut runner = Runner::new(Idle::Sleep, Scheduling::Fifo);
        assert_eq!(runner.turn(0, us(1)), Pause::Sleep);
        runner.pause(us(1_000));
        assert_eq!(runner.turn(BATCH, us(40)), Pause::No);
        assert_eq!(runner.turn(BATCH, us(40)), Pause::No);
        assert_eq!(runner.turn(0, us(1)), Pause::Sleep);
    }

    #[test]
    fn a_worker_in_real_time_rests_after_its_shift() {
        for (scheduling, expected) in [(Scheduling::Fifo, Pause::Rest(REST)), (Scheduling::Other, Pause::No)] {
            let mut runner = Runner::new(Idle::Sleep, scheduling);
            for _ in 0..99 {
                assert_eq!(runner.turn(BATCH, us(100)), Pause::No);
            }
            assert_eq!(runner.turn(BATCH, us(100)), expected);
            runner.pause(REST);
            assert_eq!(runner.turn(BATCH, us(100)), Pause::No);
        }
    }

    #[test]
    fn only_a_pause_that_gives_others_time_is_a_rest() {
        for (pause, expected) in [(us(1), Pause::Rest(REST)), (REST, Pause::No)] {
            let mut runner = Runner::new(Idle::Sleep, Scheduling::Fifo);
            assert_eq!(runner.turn(1, us(9_000)), Pause::No);
            assert_eq!(runner.turn(0, us(1)), Pause::Sleep);
            runner.pause(pause);
            assert_eq!(runner.turn(1, us(1_000)), expected);
        }
    }

    /// Packets come one by one while it works: it never sleeps long for them, however many they are.
    #[test]
    fn a_worker_that_the_first_packet_wakes_does_not_wait_for_others() {
        let mut runner = Runner::new(Idle::Sleep, Scheduling::Fifo);
        for _ in 0..100 {
            for carried in [2, 1, 3, BATCH, BATCH, BATCH, 1] {
                assert_eq!(runner.turn(carried, us(20)), Pause::No);
            }
            assert_eq!(runner.turn(0, us(1)), Pause::Sleep);
            runner.pause(us(100));
        }
    }

    /// Copies for the members of a group, or packets of the node's kernel.
    #[test]
    fn what_is_not_received_is_no_load() {
        let mut pace = Pace::new(Idle::Sleep, Scheduling::Other, Duration::ZERO);
        for turn in 0..10 {
            assert_eq!(pace.after(4 * BATCH, 1, || us(20 * turn)), Pause::No);
        }
        assert_eq!(pace.after(0, 0, || us(200)), Pause::Sleep);
    }

    #[test]
    fn what_full_batches_send_waits_for_a_few_more() {
        /// Whether the kernel is told after each turn, and sends all.
        fn told(held: &mut Held, turns: &[(usize, bool)]) -> Vec<bool> {
            let told = turns.iter().map(|&(received, is_full)| {
                let is_due = held.is_due(received, is_full);
                if is_due {
                    held.release(true);
                }
                is_due
            });
            told.collect()
        }
        let mut held = Held::default();
        assert_eq!(told(&mut held, &[(0, false), (1, false), (BATCH - 1, false)]), [true; 3]);
        let full = (BATCH, true);
        assert_eq!(told(&mut held, &[full; 9]), [false, false, false, true, false, false, false, true, false]);
        assert_eq!(told(&mut held, &[(3, false), full, full, full, full]), [true, false, false, false, true]);
        // Of four interfaces.
        assert_eq!(told(&mut held, &[(4 * BATCH, true), (BATCH, false), full]), [true, true, false]);
        // What the kernel left is not added to.
        held.release(false);
        assert!(held.is_due(BATCH, true));
        held.release(true);
        assert!(!held.is_due(BATCH, true));
    }
}
