//! Whether workers make progress.

use std::time::{Duration, Instant};

/// Remembers when each worker was last seen to go round its loop.
///
/// A worker goes round its loop also when it is idle: its wait for packets has a timeout. So a loop counter that stays
/// the same for longer than `limit` means that the worker hangs, provided that `limit` is well above that timeout.
#[derive(Debug)]
pub struct Progress {
    limit: Duration,
    workers: Vec<(u64, Instant)>,
}

impl Progress {
    /// A worker may stand still for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, workers: Vec::new() }
    }

    /// Takes note of the loop counters of all workers, by number, as read at `now`.
    ///
    /// # Errors
    ///
    /// The workers that stand still, and for how long they have been seen to.
    pub fn observe(&mut self, loops: impl IntoIterator<Item = u64>, now: Instant) -> Result<(), String> {
        let mut stalled = Vec::new();
        for (worker, count) in loops.into_iter().enumerate() {
            match self.workers.get_mut(worker) {
                None => self.workers.push((count, now)),
                Some(seen) if seen.0 != count => *seen = (count, now),
                Some(seen) => {
                    let still = now.saturating_duration_since(seen.1);
                    if still > self.limit {
                        stalled.push(format!("worker {worker} has made no progress for {} s", still.as_secs()));
                    }
                }
            }
        }
        if stalled.is_empty() { Ok(()) } else { Err(stalled.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_named_and_forgiven_when_it_moves() {
        let mut progress = Progress::new(Duration::from_secs(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(progress.observe([10, 20], at(0)), Ok(()));
        assert_eq!(progress.observe([11, 20], at(5)), Ok(()));
        assert_eq!(progress.observe([12, 20], at(7)), Err("worker 1 has made no progress for 7 s".into()));
        assert_eq!(progress.observe([13, 21], at(8)), Ok(()));
    }

    #[test]
    fn a_long_time_between_two_observations_is_no_stall() {
        let mut progress = Progress::new(Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(progress.observe([1], start), Ok(()));
        assert_eq!(progress.observe([2], start + Duration::from_secs(600)), Ok(()));
    }
}
