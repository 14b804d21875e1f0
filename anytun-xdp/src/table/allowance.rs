//! How many ICMP errors a client is sent: a token bucket each (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).

use std::sync::atomic::{AtomicU64, Ordering};

/// How fast tokens come, and how many a bucket holds. None ever comes by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Microseconds between two tokens; 0 when none comes.
    interval: u64,
    /// Microseconds until an empty bucket holds all tokens but one.
    tolerance: u64,
}

impl Rate {
    /// `per_second` tokens, of which a bucket holds those of a tenth of a second, or 10 if there are as many in a second.
    pub fn new(per_second: u32) -> Self {
        const SECOND: u64 = 1_000_000;
        let per_second = u64::from(per_second);
        let Some(interval) = SECOND.checked_div(per_second) else { return Self::default() };
        let burst = (per_second / 10).max(per_second.min(10));
        Self { interval: interval.max(1), tolerance: (burst - 1) * interval.max(1) }
    }
}

/// A token bucket, full at first, that all workers take from. Its rate is that of the node.
///
/// It is kept as the time at which it will be full again, in microseconds after the node started (the generic cell rate
/// algorithm, ITU-T I.371 annex A).
#[derive(Debug, Default)]
pub struct Allowance(AtomicU64);

impl Allowance {
    /// Takes a token, if there is one, `now` milliseconds after the node started.
    #[inline]
    pub fn take(&self, rate: Rate, now: u64) -> bool {
        let now = now.saturating_mul(1000);
        let Rate { interval, tolerance } = rate;
        let taken = |full: u64| (full <= now.saturating_add(tolerance)).then(|| full.max(now).saturating_add(interval));
        interval > 0 && self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn taken(allowance: &Allowance, rate: Rate, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| allowance.take(rate, now)).count()
    }

    #[test]
    fn a_full_bucket_first_and_then_what_the_rate_says() {
        for (per_second, burst) in [(100, 10), (1000, 100), (50, 10), (10, 10), (3, 3), (1, 1)] {
            let (allowance, rate) = (Allowance::default(), Rate::new(per_second));
            assert_eq!(taken(&allowance, rate, 5, 10_000), burst, "{per_second} a second");
            let seconds: usize = (1..=10_000).map(|now| taken(&allowance, rate, 5 + now, 100)).sum();
            // Of an interval that is no whole number of microseconds what is over is not kept back.
            let least = 10 * per_second as usize;
            assert!((least..=least + 1).contains(&seconds), "{per_second} a second: {seconds}");
        }
    }

    #[test]
    fn a_rate_of_zero_allows_nothing_and_a_long_rest_no_more_than_a_full_bucket() {
        assert_eq!(taken(&Allowance::default(), Rate::new(0), 1 << 40, 100), 0);
        let allowance = Allowance::default();
        assert_eq!(taken(&allowance, Rate::new(100), 0, 100), 10);
        assert_eq!(taken(&allowance, Rate::new(100), 1 << 40, 100), 10);
        assert_eq!(taken(&allowance, Rate::new(100), 0, 100), 0, "time that goes back gives nothing");
    }

    #[test]
    fn workers_share_it() {
        let allowance = Allowance::default();
        let sum: usize = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| taken(&allowance, Rate::new(1000), 7, 10_000))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
        });
        assert_eq!(sum, 100);
    }
}
