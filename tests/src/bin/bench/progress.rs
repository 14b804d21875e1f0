//! Tells how far it is, and about how long it will take.

use std::time::{Duration, Instant};

/// What is done of what is planned.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    planned: Duration,
    done: Duration,
}

impl Progress {
    /// At the start of work that is planned to take so long.
    pub(crate) fn new(planned: Duration) -> Self {
        Self { start: Instant::now(), planned, done: Duration::ZERO }
    }

    /// Says that something planned is done.
    pub(crate) fn done(&mut self, planned: Duration, what: &str) {
        self.done += planned;
        self.say(&format!("{what}; {}", left(self.start.elapsed(), self.done, self.planned)));
    }

    /// Says something.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:>5.0} s  {what}", self.start.elapsed().as_secs_f64());
    }
}

/// How long the rest will take, if it goes on as it went so far.
fn left(elapsed: Duration, done: Duration, planned: Duration) -> String {
    let rest = planned.saturating_sub(done).as_secs_f64() / done.as_secs_f64().max(f64::MIN_POSITIVE);
    let seconds = elapsed.as_secs_f64() * rest;
    if seconds < 100.0 { format!("{seconds:.0} s left") } else { format!("{:.0} min left", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_as_what_was_done() {
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(20), seconds(10), seconds(30)), "40 s left");
        assert_eq!(left(seconds(60), seconds(10), seconds(110)), "10 min left");
        assert_eq!(left(seconds(5), seconds(10), seconds(10)), "0 s left");
    }
}
