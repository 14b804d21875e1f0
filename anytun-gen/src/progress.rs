//! A line of progress each second, on a terminal.

use std::io::{IsTerminal, Write};

use anytun_gen::clock;
use anytun_gen::outcome::Interval;
use anytun_gen::search::Step;

/// How often, in nanoseconds.
const EVERY: u64 = 1_000_000_000;

/// Shows what goes on, where somebody watches.
pub(crate) struct Progress {
    on: bool,
    last: Interval,
    shown: u64,
}

impl Progress {
    /// On a terminal, unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { on: !quiet && std::io::stderr().is_terminal(), last: Interval::default(), shown: 0 }
    }

    /// Shows a moment, at most one each second.
    pub(crate) fn moment(&mut self, now: &Interval) {
        if now.at < self.last.at {
            self.last = Interval::default();
        }
        let elapsed = now.at - self.last.at;
        if !self.on || elapsed < EVERY {
            return;
        }
        let rate = |packets: u64| packets as f64 / clock::seconds(elapsed) / 1e3;
        self.line(&format!(
            "{:6.1} s  sent {:>11} ({:8.1} k/s)  received {:>11} ({:8.1} k/s)",
            clock::seconds(now.at),
            now.sent,
            rate(now.sent - self.last.sent),
            now.received,
            rate(now.received.saturating_sub(self.last.received)),
        ));
        self.last = *now;
    }

    /// Shows a step of a search.
    pub(crate) fn step(&mut self, step: &Step) {
        self.line(&format!(
            "offered {:8.1} k/s  received {:8.1} k/s  lost {:.3} %",
            step.offered / 1e3,
            step.received / 1e3,
            step.loss * 100.0
        ));
    }

    /// Shows how many packets are prepared, at most each second.
    pub(crate) fn prepared(&mut self, made: u32, of: u32) {
        let now = clock::now();
        if now - self.shown >= EVERY {
            self.shown = now;
            self.line(&format!("prepared {made} of {of} packets"));
        }
    }

    fn line(&self, text: &str) {
        if self.on {
            // Whoever watched is gone when this fails.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}
