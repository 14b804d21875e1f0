//! A few words that one thread replaces together and any thread reads together.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// `N` words and the number of times they were replaced.
///
/// There are two copies; the parity of `version` says which is in force: the first words stand right behind it, in the same
/// cache line if that has room. A writer fills the other one and then counts
/// up, so a reader is never kept waiting by a writer that lost its processor: it starts over only when all the words
/// were replaced while it read.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Latch<const N: usize> {
    version: AtomicU64,
    copies: [[AtomicU64; N]; 2],
}

impl<const N: usize> Default for Latch<N> {
    fn default() -> Self {
        Self { version: AtomicU64::new(0), copies: [const { [const { AtomicU64::new(0) }; N] }; 2] }
    }
}

impl<const N: usize> Latch<N> {
    /// The words in force; nothing before the first [`store`](Self::store).
    #[inline]
    pub(crate) fn load(&self) -> Option<[u64; N]> {
        let mut version = self.version.load(Ordering::Acquire);
        loop {
            if version == 0 {
                return None;
            }
            let words = self.copy(version);
            // Orders the loads above before the one below: when the version still stands, no writer has begun to
            // fill the copy that was read, since that needs a version further on.
            fence(Ordering::Acquire);
            let now = self.version.load(Ordering::Relaxed);
            if now == version {
                return Some(words);
            }
            version = self.version.load(Ordering::Acquire);
        }
    }

    /// Puts `words` in force. Only one thread at a time may do so, which the caller sees to; if two do, words mix.
    #[inline]
    pub(crate) fn store(&self, words: [u64; N]) {
        let version = self.version.load(Ordering::Relaxed) + 1;
        // A reader that sees one of the words below also sees, after its fence, that the version moved on from the one
        // before last, to which this copy belonged.
        fence(Ordering::Release);
        for (cell, word) in self.copies[place(version)].iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        self.version.store(version, Ordering::Release);
    }

    #[inline]
    fn copy(&self, version: u64) -> [u64; N] {
        std::array::from_fn(|i| self.copies[place(version)][i].load(Ordering::Relaxed))
    }
}

/// Which copy belongs to a version. The first is version 1.
#[inline]
const fn place(version: u64) -> usize {
    (version & 1 ^ 1) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn readers_see_words_that_belong_together() {
        let latch = Latch::<5>::default();
        assert_eq!(latch.load(), None);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut newest = 0;
                    while !done.load(Ordering::Relaxed) {
                        if let Some(words) = latch.load() {
                            assert_eq!(words, [words[0]; 5]);
                            assert!(words[0] >= newest, "never back");
                            newest = words[0];
                        }
                    }
                });
            }
            for turn in 1..=1_000_000 {
                latch.store([turn; 5]);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(latch.load(), Some([1_000_000; 5]));
    }
}
