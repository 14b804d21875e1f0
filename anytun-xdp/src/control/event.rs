//! Log events that can come in floods, kept to a few per second.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// Lets a limited number of events of each kind through to `tracing`; the next one let through says how many were not.
///
/// For control threads only: it takes a lock, and events allocate. Kinds are literals, so their number is bounded.
#[derive(Debug)]
pub struct Limiter {
    per_second: u32,
    kinds: Mutex<HashMap<&'static str, Kind>>,
}

/// One kind of events in the current window.
#[derive(Debug)]
struct Kind {
    since: Instant,
    admitted: u32,
    suppressed: u64,
}

impl Limiter {
    /// At most `per_second` events of each kind in a second.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, kinds: Mutex::default() }
    }

    /// Whether an event of `kind` at `now` may pass: if so, how many before it were suppressed and not told of yet.
    pub fn admit(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = match kinds.entry(kind) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Kind { since: now, admitted: 0, suppressed: 0 }),
        };
        if now.saturating_duration_since(kind.since) >= WINDOW {
            kind.since = now;
            kind.admitted = 0;
        }
        if kind.admitted < self.per_second {
            kind.admitted += 1;
            Some(std::mem::take(&mut kind.suppressed))
        } else {
            kind.suppressed += 1;
            None
        }
    }

    /// An event of `kind` at level WARN.
    pub fn warn(&self, kind: &'static str, message: impl Display) {
        match self.admit(kind, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!(kind, "{message}"),
            Some(suppressed) => tracing::warn!(kind, suppressed, "{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted_and_other_kinds_are_not_touched() {
        let limiter = Limiter::new(2);
        let start = Instant::now();
        let flood: Vec<_> = (0..5).map(|_| limiter.admit("flood", start)).collect();
        assert_eq!(flood, [Some(0), Some(0), None, None, None]);
        assert_eq!(limiter.admit("other", start), Some(0));
        assert_eq!(limiter.admit("flood", start + WINDOW), Some(3));
        assert_eq!(limiter.admit("flood", start + WINDOW), Some(0));
        assert_eq!(limiter.admit("flood", start + WINDOW), None);
    }
}
