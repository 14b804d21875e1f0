//! Where later fragments go: only the first has the ports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Datagrams whose later fragments can be on their way.
const ENTRIES: usize = 4096;
/// Entries a datagram may have, one beside the other.
const WAYS: usize = 4;

/// Milliseconds for which a first fragment is remembered.
pub const LIFE: u64 = 2000;

/// Datagrams in fragments whose first fragment was translated.
///
/// An entry is two words, the second what is known and the first that combined with the key by exclusive or. Two workers
/// that write one entry at once leave words that belong to no key, which is an entry lost and never one mistaken. A key is
/// 64 bits of a keyed hash, so nobody makes two datagrams share one, or one have that of an empty entry.
pub(super) struct Fragments {
    entries: Box<[[AtomicU64; 2]]>,
}

impl Fragments {
    pub(super) fn new() -> Self {
        Self { entries: (0..ENTRIES).map(|_| Default::default()).collect() }
    }

    fn ways(&self, key: u64) -> &[[AtomicU64; 2]] {
        let sets = ENTRIES / WAYS;
        let set = key as usize % sets;
        &self.entries[set * WAYS..][..WAYS]
    }

    /// Remembers 32 bits for a key, in the place of what is oldest.
    pub(super) fn note(&self, key: u64, known: u32, now: u64) {
        // An empty entry is one of key 0 and time 0.
        let stamp = |entry: &[AtomicU64; 2]| (now as u32).wrapping_sub(entry[1].load(Relaxed) as u32);
        let ways = self.ways(key);
        let same = ways.iter().find(|entry| read(entry, key).is_some());
        let Some(entry) = same.or_else(|| ways.iter().max_by_key(|entry| stamp(entry))) else { return };
        let value = u64::from(known) << 32 | u64::from(now as u32);
        entry[0].store(value ^ key, Relaxed);
        entry[1].store(value, Relaxed);
    }

    /// What was remembered for a key in the last two seconds.
    pub(super) fn find(&self, key: u64, now: u64) -> Option<u32> {
        let value = self.ways(key).iter().find_map(|entry| read(entry, key))?;
        // Another worker's clock may be a little ahead.
        let age = (now.wrapping_add(LIFE) as u32).wrapping_sub(value as u32);
        (u64::from(age) < 2 * LIFE).then_some((value >> 32) as u32)
    }
}

fn read(entry: &[AtomicU64; 2], key: u64) -> Option<u64> {
    let (mixed, value) = (entry[0].load(Relaxed), entry[1].load(Relaxed));
    (mixed ^ value == key).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_for_two_seconds() {
        let fragments = Fragments::new();
        assert_eq!(fragments.find(7, 1000), None);
        fragments.note(7, 42, 1000);
        assert_eq!((fragments.find(7, 2999), fragments.find(7, 999)), (Some(42), Some(42)));
        assert_eq!(fragments.find(7, 3000), None);
        assert_eq!(fragments.find(8, 1000), None);
        fragments.note(7, 43, 4000);
        assert_eq!(fragments.find(7, 4001), Some(43));
    }

    #[test]
    fn the_oldest_makes_room() {
        let fragments = Fragments::new();
        let key = |n: u64| n * (ENTRIES / WAYS) as u64;
        for n in 1..=WAYS as u64 + 1 {
            fragments.note(key(n), n as u32, 1000 + n);
        }
        assert_eq!(fragments.find(key(1), 1010), None);
        for n in 2..=WAYS as u64 + 1 {
            assert_eq!(fragments.find(key(n), 1010), Some(n as u32));
        }
    }

    #[test]
    fn entries_that_two_write_at_once_are_never_mistaken() {
        let fragments = Fragments::new();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let fragments = &fragments;
                scope.spawn(move || {
                    for turn in 0..50_000u64 {
                        // All in one set.
                        let key = (turn % 16 + 1) * (ENTRIES / WAYS) as u64;
                        if (turn + thread) % 2 == 0 {
                            fragments.note(key, key as u32, 1);
                        } else if let Some(known) = fragments.find(key, 1) {
                            assert_eq!(known, key as u32);
                        }
                    }
                });
            }
        });
    }
}
