//! From a hash to the record that has it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::satp::{Pages, prefetch};

/// Entries of one bucket: with the header they fill a cache line.
const SLOTS: u32 = 14;
/// Entries of a bucket on average when every record is in use. A bucket is then full once in 300 million.
const USUAL: usize = 2;
/// Bits of a record's number in an entry; the rest is part of the hash.
const NUMBER: u32 = 20;

/// Records an index can tell apart.
pub(super) const MOST: usize = 1 << NUMBER;

/// Secret numbers that hashes depend on, so that nobody outside can fill a bucket: who does not know them cannot tell which
/// keys share one, and never sees a hash.
pub(super) struct Seeds([u64; 4]);

impl Seeds {
    pub(super) fn new(random: &RandomState) -> Self {
        Self([0; 4].map(|_: u64| RandomState::new().hash_one(random.hash_one(0))))
    }

    /// The hash of the words of a record and of what kind it is, by products of 128 bits that are folded.
    #[inline]
    pub(super) fn hash(&self, [first, high, low]: &[u64; 3], kind: u64) -> u64 {
        let Self([a, b, c, d]) = self;
        let start = fold(first ^ a, high ^ b);
        fold(start ^ low ^ c, d ^ kind)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// An index over records: each hash has one bucket, each bucket one cache line.
///
/// The header of a bucket says which of its entries are taken, which of these are in force, and counts every change. An
/// entry is taken by a change of the header, filled by whoever took it, and put in force by another change, which goes
/// through only if the header is still the one under which all entries in force were looked at. So no two records with
/// equal keys are ever in force at once, although nobody waits: who loses against a change has seen another get on.
pub(super) struct Index {
    buckets: Pages<Bucket>,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    /// From the lower end: 14 bits of entries in force, 14 of entries taken, 36 of changes.
    header: AtomicU64,
    entries: [AtomicU32; SLOTS as usize],
}

const ALL: u64 = (1 << SLOTS) - 1;
const CHANGE: u64 = 1 << (2 * SLOTS);

/// How it went to put a record into an index.
#[derive(Debug)]
pub(super) enum Entered<T> {
    /// It is in force.
    Done,
    /// Another with its key is, which the search found as this.
    Exists(T),
    /// The bucket has no room.
    Full,
}

impl Index {
    /// An index with room for `records`.
    pub(super) fn new(records: usize) -> Self {
        let buckets = records.div_ceil(USUAL).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect::<Vec<_>>().into() }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &Bucket {
        &self.buckets[hash as usize & (self.buckets.len() - 1)]
    }

    /// The first record with this hash of which `find` makes something. A record that is in force all the while is found.
    #[inline]
    pub(super) fn find<T>(&self, hash: u64, find: impl Fn(usize) -> Option<T>) -> Option<T> {
        let bucket = self.bucket(hash);
        bucket.find(bucket.header.load(Ordering::Acquire), hash, find)
    }

    /// Brings near what [`find`](Self::find) looks at first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch::value(self.bucket(hash));
    }

    /// Puts the record `number` in force, unless `find` makes something of another one. The record must be complete.
    pub(super) fn enter<T>(&self, hash: u64, number: usize, find: impl Fn(usize) -> Option<T>) -> Entered<T> {
        let bucket = self.bucket(hash);
        let Some(slot) = bucket.take() else { return Entered::Full };
        bucket.entries[slot as usize].store(entry(hash, number), Ordering::Relaxed);
        let mut header = bucket.header.load(Ordering::Acquire);
        loop {
            if let Some(found) = bucket.find(header, hash, &find) {
                bucket.clear(slot);
                return Entered::Exists(found);
            }
            match bucket.change(header, header | 1 << slot) {
                Ok(()) => return Entered::Done,
                Err(now) => header = now,
            }
        }
    }

    /// Takes a record out that was put in force.
    pub(super) fn remove(&self, hash: u64, number: usize) {
        let bucket = self.bucket(hash);
        let live = bits(bucket.header.load(Ordering::Acquire) & ALL);
        let own = entry(hash, number);
        let slot = live.into_iter().find(|slot| bucket.entries[*slot as usize].load(Ordering::Relaxed) == own);
        debug_assert!(slot.is_some(), "a record is removed once");
        if let Some(slot) = slot {
            bucket.clear(slot);
        }
    }

    /// How many records are in force. Not exact while others change it.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.buckets.iter().map(|bucket| (bucket.header.load(Ordering::Acquire) & ALL).count_ones() as usize).sum()
    }
}

impl Bucket {
    #[inline]
    fn find<T>(&self, header: u64, hash: u64, find: impl Fn(usize) -> Option<T>) -> Option<T> {
        bits(header & ALL).find_map(|slot| {
            let entry = self.entries[slot as usize].load(Ordering::Relaxed);
            if entry >> NUMBER == part(hash) { find(entry as usize & (MOST - 1)) } else { None }
        })
    }

    /// Takes an entry, if there is one.
    fn take(&self) -> Option<u32> {
        let mut header = self.header.load(Ordering::Relaxed);
        loop {
            let free = !(header >> SLOTS) & ALL;
            if free == 0 {
                return None;
            }
            let slot = free.trailing_zeros();
            match self.change(header, header | 1 << (SLOTS + slot)) {
                Ok(()) => return Some(slot),
                Err(now) => header = now,
            }
        }
    }

    /// Gives an entry free, in force or not. Only for who took it or who removes its record.
    fn clear(&self, slot: u32) {
        let mut header = self.header.load(Ordering::Relaxed);
        while let Err(now) = self.change(header, header & !(1 << slot | 1 << (SLOTS + slot))) {
            header = now;
        }
    }

    fn change(&self, old: u64, new: u64) -> Result<(), u64> {
        let new = new.wrapping_add(CHANGE);
        self.header.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

/// The part of a hash that an entry keeps: not the one that chose the bucket.
#[inline]
fn part(hash: u64) -> u32 {
    (hash >> (64 - (32 - NUMBER))) as u32
}

#[inline]
fn entry(hash: u64, number: usize) -> u32 {
    part(hash) << NUMBER | number as u32
}

/// The places of the ones in a word.
#[inline]
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros());
        word &= word.wrapping_sub(1);
        bit
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn records_of_one_hash_are_told_apart_by_their_keys() {
        let index = Index::new(100);
        for number in 0..SLOTS as usize {
            assert!(matches!(index.enter(7, number, |_| None::<()>), Entered::Done));
        }
        assert!(matches!(index.enter(7, 99, |_| None::<()>), Entered::Full));
        for number in 0..SLOTS as usize {
            assert_eq!(index.find(7, |found| (found == number).then_some(found)), Some(number));
        }
        assert!(index.find(7 | 1 << 63, Some).is_none(), "another hash of the same bucket");
        index.remove(7, 5);
        assert!(index.find(7, |found| (found == 5).then_some(())).is_none());
        assert!(matches!(index.enter(7, 99, |_| None::<()>), Entered::Done));
        let other = index.enter(7, 98, |found| (found == 99).then_some(found));
        assert!(matches!(other, Entered::Full | Entered::Exists(99)));
        index.remove(7, 3);
        assert!(matches!(index.enter(7, 98, |found| (found == 99).then_some(found)), Entered::Exists(99)));
        assert_eq!(index.count(), SLOTS as usize - 1);
    }

    /// Keys that differ little, as those of clients do, fill the buckets evenly: with two in each on average none is
    /// full.
    #[test]
    fn keys_of_neighbours_are_spread() {
        for round in 1..=20u64 {
            // Fixed, so that the test always says the same.
            let seeds =
                Seeds([1, 2, 3, 4].map(|n| (round * 4 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)));
            let mut buckets = vec![0u8; 1 << 14];
            let mut parts = std::collections::HashSet::new();
            for n in 0..1u64 << 15 {
                // Clients of a network with a few hundred ports each: number and port in one word, the address in another.
                let words = [(n >> 9) << 16 | (1024 + (n & 511)), 0, 0xffff_0a09_0000 | n >> 9];
                let hash = seeds.hash(&words, 0);
                buckets[hash as usize & 0x3fff] += 1;
                parts.insert(part(hash));
            }
            assert!(buckets.iter().all(|count| u32::from(*count) < SLOTS), "{:?}", buckets.iter().max());
            assert!(parts.len() > 4000, "of 4096 parts {} occur", parts.len());
        }
    }

    /// Another worker puts a record of the same key in force just when this one has looked at all there are.
    #[test]
    fn who_is_overtaken_between_look_and_change_looks_again() {
        let index = Index::new(8);
        let hash = 3;
        // Of the same hash and another key: the search asks for it, and in the middle of that the other worker acts.
        assert!(matches!(index.enter(hash, 0, |_| None::<()>), Entered::Done));
        let overtaken = std::cell::Cell::new(false);
        let key = |number: usize| (number != 0).then_some(number);
        let entered = index.enter(hash, 1, |number| {
            if !overtaken.replace(true) {
                assert!(matches!(index.enter(hash, 2, key), Entered::Done));
            }
            key(number)
        });
        assert!(matches!(entered, Entered::Exists(2)), "{entered:?}");
        assert_eq!(index.count(), 2);
        index.remove(hash, 2);
        assert!(matches!(index.enter(hash, 1, key), Entered::Done), "its entry was given free");
    }

    /// Many threads enter records of one key: never are two in force.
    #[test]
    fn of_equal_keys_one_is_in_force() {
        let index = Index::new(8);
        let in_force = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (index, in_force) = (&index, &in_force);
                scope.spawn(move || {
                    for _ in 0..30_000 {
                        if let Entered::Done = index.enter(3, number, Some) {
                            assert_eq!(in_force.fetch_add(1, Ordering::Relaxed), 0);
                            in_force.fetch_sub(1, Ordering::Relaxed);
                            index.remove(3, number);
                        }
                    }
                });
            }
        });
        assert_eq!(index.count(), 0);
    }
}
