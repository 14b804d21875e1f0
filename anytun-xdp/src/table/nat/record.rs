//! Three words that many workers read, and the word that says what they are worth.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// What a record is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Nothing: it belongs to its pool, or to whoever took it from there.
    Free,
    /// Its words are what they say.
    Live,
    /// It is being taken out of its index by the worker that ended it.
    Ending,
    /// It is out of its index and rests before it is free.
    Held,
}

/// The state of a record in one word, so that one compare-exchange decides between two that would change it: from the
/// upper end 2 bits of [`Status`], 6 of TCP state, 24 of generation, 32 of a value.
///
/// The generation counts how often the record was freed. Whoever knows a state knows with it whose record that was: one that
/// served somebody else meanwhile has another generation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

const STATUS: u32 = 62;
const TCP: u32 = 56;
const GENERATION: u32 = 32;
const TCP_MASK: u64 = 0x3f << TCP;
const GENERATION_MASK: u64 = 0xff_ffff << GENERATION;
const VALUE_MASK: u64 = 0xffff_ffff;

impl State {
    pub(super) fn status(self) -> Status {
        match self.0 >> STATUS {
            0 => Status::Free,
            1 => Status::Live,
            2 => Status::Ending,
            _ => Status::Held,
        }
    }

    pub(super) fn is_live(self) -> bool {
        self.status() == Status::Live
    }

    /// Sessions of a mapping that is live; when a session ends or a port that is held comes free, in seconds.
    pub(super) fn value(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn tcp(self) -> u8 {
        ((self.0 & TCP_MASK) >> TCP) as u8
    }

    /// The same record in the same life, whatever its value and TCP state.
    pub(super) fn is_same_life(self, other: Self) -> bool {
        (self.0 ^ other.0) & !(TCP_MASK | VALUE_MASK) == 0
    }

    pub(super) fn generation(self) -> u32 {
        ((self.0 & GENERATION_MASK) >> GENERATION) as u32
    }

    pub(super) fn with_status(self, status: Status) -> Self {
        Self(self.0 & !(3 << STATUS) | (status as u64) << STATUS)
    }

    pub(super) fn with_value(self, value: u32) -> Self {
        Self(self.0 & !VALUE_MASK | u64::from(value))
    }

    pub(super) fn with_tcp(self, tcp: u8) -> Self {
        Self(self.0 & !TCP_MASK | u64::from(tcp) << TCP & TCP_MASK)
    }

    /// Free, in the next generation.
    fn freed(self) -> Self {
        Self((self.0 & GENERATION_MASK).wrapping_add(1 << GENERATION) & GENERATION_MASK)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} tcp {:#x} value {}", self.status(), self.generation(), self.tcp(), self.value())
    }
}

/// A mapping or a session: half a cache line.
///
/// Words are written only by the worker that took the record from its pool, while the state says free, and stand still as
/// long as it says anything else. A reader takes the state, the words and the state again, and uses the words only when
/// both times the record was live in one generation. If it read a word of a later life, then its fence meets the writer's,
/// which the end of the earlier life happened before (pool by pool: who ends a record gives it back with release, who takes it
/// acquires), so the second look sees that the record ended. Nobody ever waits.
#[derive(Default)]
#[repr(align(32))]
pub(super) struct Record {
    state: AtomicU64,
    words: [AtomicU64; 3],
}

impl Record {
    #[inline]
    pub(super) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// State and words, if it is live.
    #[inline]
    pub(super) fn read(&self) -> Option<(State, [u64; 3])> {
        let before = self.state();
        if !before.is_live() {
            return None;
        }
        let words = self.words();
        fence(Ordering::Acquire);
        let after = State(self.state.load(Ordering::Relaxed));
        after.is_same_life(before).then_some((after, words))
    }

    /// The state, if it is live and has these words.
    #[inline]
    pub(super) fn find(&self, words: &[u64; 3]) -> Option<State> {
        // Compared in registers: a comparison of memory would wait for it to be written.
        let differs = |own: [u64; 3]| own.iter().zip(words).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
        self.read().and_then(|(state, own)| (!differs(own)).then_some(state))
    }

    /// The words. They stand still only for who keeps the record from ending: its holder, or who holds something that
    /// counts on it.
    #[inline]
    pub(super) fn words(&self) -> [u64; 3] {
        std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed))
    }

    /// Begins a life. Only for who took the record from its pool.
    pub(super) fn begin(&self, words: [u64; 3], tcp: u8, value: u32) -> State {
        let free = State(self.state.load(Ordering::Relaxed));
        // The other half of the fence in `read`.
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        let state = free.with_status(Status::Live).with_tcp(tcp).with_value(value);
        self.state.store(state.0, Ordering::Release);
        state
    }

    /// Replaces the state if nobody else did: else tells what it is now.
    #[inline]
    pub(super) fn replace(&self, old: State, new: State) -> Result<(), State> {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.state.compare_exchange(old.0, new.0, order.0, order.1).map(|_| ()).map_err(State)
    }

    /// From ending to held with a value. Only for who ended it.
    pub(super) fn hold(&self, value: u32) {
        let state = State(self.state.load(Ordering::Relaxed));
        self.state.store(state.with_status(Status::Held).with_value(value).0, Ordering::Release);
    }

    /// Ends the life for good. Only for who ended it, or found it held and won it; it goes back to its pool next.
    pub(super) fn free(&self) {
        let state = State(self.state.load(Ordering::Relaxed));
        self.state.store(state.freed().0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn the_parts_of_a_state_do_not_touch() {
        let record = Record::default();
        let state = record.begin([1, 2, 3], 0x3f, u32::MAX);
        assert_eq!((state.status(), state.tcp(), state.value()), (Status::Live, 0x3f, u32::MAX));
        assert_eq!(state.with_tcp(0).with_value(0).generation(), 0);
        assert_eq!(record.find(&[1, 2, 3]), Some(state).filter(|state| state.is_live()));
        assert!(record.find(&[1, 2, 4]).is_none());
        assert!(record.replace(state, state.with_status(Status::Ending)).is_ok());
        assert!(record.read().is_none());
        record.hold(7);
        assert_eq!((record.state().status(), record.state().value()), (Status::Held, 7));
        record.free();
        assert_eq!((record.state().status(), record.state().generation(), record.state().tcp()), (Status::Free, 1, 0));
        let next = record.begin([1, 2, 3], 0, 0);
        assert!(!next.is_same_life(state));
    }

    #[test]
    fn the_last_generation_is_followed_by_the_first() {
        let last = State(GENERATION_MASK | TCP_MASK | VALUE_MASK | 3 << STATUS);
        assert!(last.freed() == State(0));
    }

    #[test]
    fn readers_see_words_of_one_life() {
        let record = Record::default();
        let done = AtomicBool::new(false);
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        if let Some((state, words)) = record.read() {
                            assert_eq!(words, [u64::from(state.generation()); 3]);
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            // Until they have seen many lives, which few turns do not warrant where processors are few.
            for life in 0..2_000_000 {
                let state = record.begin([life; 3], 0, 1);
                if life % 16 == 0 {
                    std::thread::yield_now();
                }
                assert!(record.replace(state, state.with_status(Status::Ending)).is_ok());
                record.free();
                if seen.load(Ordering::Relaxed) > 100_000 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(seen.load(Ordering::Relaxed) > 0);
    }
}
