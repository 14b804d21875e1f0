//! Which records are in use: one bit each.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::satp::Pages;

/// Records of one word.
pub(super) const PER_WORD: usize = 64;

/// Places tried by chance before the free ones are searched in their order.
const DRAWS: u32 = 8;

/// Numbers from 0 on of which each belongs to nobody, bit clear, or to somebody. Who sets the bit has the number, so no
/// number is given twice.
pub(super) struct Pool {
    words: Pages<AtomicU64>,
    count: usize,
}

impl Pool {
    pub(super) fn new(count: usize) -> Self {
        let words: Vec<_> = (0..count.div_ceil(PER_WORD)).map(|_| AtomicU64::new(0)).collect();
        Self { words: words.into(), count }
    }

    /// How many words there are.
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// Which numbers of a word are taken.
    pub(super) fn taken(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Takes a number that nobody can foresee who does not know `draw`, which must be random: one of eight drawn, or the next
    /// free one behind the last of these. Nothing when all are taken.
    pub(super) fn take(&self, draw: u64) -> Option<usize> {
        let mut at = 0;
        for turn in 0..DRAWS {
            // Thirty-two bits of the draw for each turn, spread over the count.
            let bits = draw.rotate_left(turn * 8) as u32;
            at = ((u64::from(bits) * self.count as u64) >> 32) as usize;
            if at < self.count && self.claim(at) {
                return Some(at);
            }
        }
        let start = at / PER_WORD;
        let behind = !0 << (at % PER_WORD);
        let ahead = (start..self.words.len()).chain(0..=start);
        ahead.enumerate().find_map(|(turn, word)| self.take_in(word, if turn == 0 { behind } else { !0 }))
    }

    /// Takes a number of a word, of those in `allowed`.
    fn take_in(&self, word: usize, allowed: u64) -> Option<usize> {
        let last = self.count - word * PER_WORD;
        let allowed = if last < PER_WORD { allowed & ((1 << last) - 1) } else { allowed };
        loop {
            let free = !self.words[word].load(Ordering::Relaxed) & allowed;
            if free == 0 {
                return None;
            }
            let number = word * PER_WORD + free.trailing_zeros() as usize;
            if self.claim(number) {
                return Some(number);
            }
        }
    }

    fn claim(&self, number: usize) -> bool {
        let bit = 1 << (number % PER_WORD);
        self.words[number / PER_WORD].fetch_or(bit, Ordering::Acquire) & bit == 0
    }

    /// Gives a number back. Only for who has it.
    pub(super) fn give_back(&self, number: usize) {
        self.words[number / PER_WORD].fetch_and(!(1 << (number % PER_WORD)), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_given_once_and_again_when_it_came_back() {
        for count in [1, 63, 64, 65, 1000] {
            let pool = Pool::new(count);
            let mut draw = 1u64;
            let mut next = || {
                draw = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) | 1;
                draw
            };
            let all: HashSet<_> = (0..count).map(|_| pool.take(next()).expect("a number is left")).collect();
            assert_eq!((all.len(), all.iter().max()), (count, Some(&(count - 1))));
            assert_eq!(pool.take(next()), None);
            pool.give_back(count / 2);
            assert_eq!(pool.take(next()), Some(count / 2));
            assert_eq!((0..pool.words()).map(|word| pool.taken(word).count_ones()).sum::<u32>(), count as u32);
        }
    }

    #[test]
    fn threads_never_get_the_same_number() {
        let pool = Pool::new(5000);
        let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u64)
                .map(|thread| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let draws = (0..2000u64).map(|turn| (turn * 4 + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                        draws.filter_map(|draw| pool.take(draw)).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        let all: HashSet<_> = taken.iter().flatten().collect();
        assert_eq!((all.len(), taken.iter().map(Vec::len).sum()), (5000, 5000));
    }
}
