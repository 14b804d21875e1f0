//! What ends is taken away by a hand that goes round the tables, a little at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::index::bits;
use super::pool::PER_WORD;
use super::record::Status;
use super::{Account, Nat};

/// Milliseconds of one round, when somebody sweeps often enough.
pub const ROUND: u64 = 4000;

/// Where the hand is, and when it last moved.
#[derive(Default)]
pub(super) struct Hand {
    steps: AtomicU64,
    moved: AtomicU64,
}

impl Hand {
    /// The steps that are due of `round`, at most `most`, as the place of the first and how many. Nobody else gets them.
    fn advance(&self, round: u64, most: u64, now: u64) -> Option<(u64, u64)> {
        let moved = self.moved.load(Ordering::Relaxed);
        let due = now.saturating_sub(moved).saturating_mul(round) / ROUND;
        let steps = due.min(most).min(round);
        if steps == 0 {
            return None;
        }
        // Who is behind does not run after it: a round takes longer then.
        let next = if due > steps { now } else { moved + steps * ROUND / round };
        self.moved.compare_exchange(moved, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some((self.steps.fetch_add(steps, Ordering::Relaxed), steps))
    }
}

impl Nat {
    /// Takes away what has ended, in at most `steps` steps of 64 records, and only as many as are due for a round of
    /// [`ROUND`] milliseconds, whoever calls how often. Anybody may, and somebody must.
    ///
    /// Returns how many sessions ended and ports came free.
    pub fn sweep(&self, steps: usize, now: u64) -> usize {
        let round = self.round();
        let Some((first, steps)) = self.hand.advance(round as u64, steps as u64, now) else { return 0 };
        (first..first + steps).map(|step| self.visit((step % round as u64) as usize, now)).sum()
    }

    /// Steps of a round.
    pub(super) fn round(&self) -> usize {
        self.taken.words() + self.ports.iter().map(super::Pool::words).sum::<usize>()
    }

    pub(super) fn visit(&self, step: usize, now: u64) -> usize {
        let Some(mut word) = step.checked_sub(self.taken.words()) else {
            let taken = bits(self.taken.taken(step));
            return taken.filter(|bit| self.visit_session(step * PER_WORD + *bit as usize, now)).count();
        };
        for (protocol, pool) in self.ports.iter().enumerate() {
            if word < pool.words() {
                let first = protocol * self.settings.ports.count() + word * PER_WORD;
                return bits(pool.taken(word)).filter(|bit| self.visit_port(first + *bit as usize, now)).count();
            }
            word -= pool.words();
        }
        0
    }

    /// Ends a session whose time has come or whose client is gone.
    fn visit_session(&self, session: usize, now: u64) -> bool {
        let Some((state, words)) = self.sessions[session].read() else { return false };
        let is_over = || {
            // If the session ended meanwhile this is perhaps another's, and then its state has changed as well.
            let owner = self.mappings[(words[0] >> 16) as usize].words()[0];
            Self::has_ended(state.value(), now) || !self.accounts.is_open(Account::from_bits(owner))
        };
        is_over() && self.end_session(session, state, &words, now)
    }

    /// Frees a port that has rested.
    fn visit_port(&self, number: usize, now: u64) -> bool {
        let mapping = &self.mappings[number];
        let state = mapping.state();
        let has_rested = state.status() == Status::Held && Self::has_ended(state.value(), now);
        if !has_rested || mapping.replace(state, state.with_status(Status::Ending)).is_err() {
            return false;
        }
        self.free_port(number);
        true
    }
}
