//! Replay windows (protocol.md §3.6).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::satp::{Shared, prefetch};

/// Sender IDs that a client may use. Every node of a client that is itself an anycast service takes one, and every
/// worker of such a node.
pub const SENDERS: usize = 4;

/// The largest window: it has to stay small beside the 2^31 numbers that count as ahead.
pub const MAX_SIZE: u32 = 1 << 16;

/// With replay protection off, a number further behind the newest than this is taken for the start of a new count.
const RESTART: u32 = 1024;

/// Marks a sender slot as taken, so that sender ID 0 differs from a free slot.
const TAKEN: u64 = 1 << 16;

/// Sequence numbers that one word of the bitmap covers; the word's upper half says which.
const BLOCK: u64 = 32;

/// The replay windows of one client, one for each of its sender IDs. Any number of workers may ask at once; nobody
/// ever waits. Clones share what was seen.
///
/// Numbers are counted on past 2^32 by an epoch, so that each has one place in time: `epoch << 32 | sequence`. Three
/// kinds of words decide, each alone and only forward, so no order between them has to hold:
///
/// * A slot of `senders` is written once. Slots are tried in order and only a slot that belongs to another sender ID
///   is passed, so one sender ID never gets two.
/// * A word of `bitmap` holds a block number and a bit for each number of that block. Its block number only grows, and
///   within a block bits are only set. Hence at most one compare-exchange ever sets the bit of a number, and the caller
///   that did it is the one that accepts. Words are used in turn, and there are enough of them that a word taken over
///   by a later block held only numbers that have left the window.
/// * `newest` only grows. A caller that works with an old value sees a larger window than there is, which lets
///   through a late number that nobody has seen yet, never one that was.
#[derive(Clone)]
pub struct Windows {
    /// In this order, the first two in the first cache line:
    ///
    /// * `newest`: the newest number of each slot with its epoch; 0 before the first, since epochs are counted from 1.
    /// * `senders`: who has each slot.
    /// * `bitmap`: the words of slot 0, then those of slot 1, and so on: upper half block number modulo 2^32, lower half
    ///   bits.
    words: Shared<[AtomicU64]>,
    size: u32,
    turn: Turn,
    /// Whether nobody else accepts at the same time.
    is_alone: bool,
}

/// What the words of a client mean.
struct Parts<'a> {
    newest: &'a [AtomicU64; SENDERS],
    senders: &'a [AtomicU64; SENDERS],
    bitmap: &'a [AtomicU64],
}

/// What a sequence number that was accepted means for the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Higher than everything seen from this sender ID.
    Newest,
    /// Overtaken by a later one.
    Late,
}

/// Why a sequence number was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Seen before, or behind the window.
    Replayed,
    /// The client already uses [`SENDERS`] other sender IDs.
    SenderLimit,
}

impl Windows {
    /// Windows of `size` numbers, at most [`MAX_SIZE`] (more counts as that). 0 switches replay protection off.
    pub fn new(size: u32) -> Self {
        let size = size.min(MAX_SIZE);
        let turn = Turn::new(size);
        let words: Vec<_> = (0..2 * SENDERS + SENDERS * turn.words as usize).map(|_| AtomicU64::new(0)).collect();
        Self { words: words.into(), size, turn, is_alone: false }
    }

    /// The same, for a single worker if `is_alone`: what nobody else writes is then written without a lock. Whoever shares
    /// what was seen has to be that worker too.
    pub fn alone(self, is_alone: bool) -> Self {
        Self { is_alone, ..self }
    }

    /// Windows of this kind that have seen nothing.
    pub fn emptied(&self) -> Self {
        Self::new(self.size).alone(self.is_alone)
    }

    #[inline]
    fn parts(&self) -> Parts<'_> {
        let both = self.words.split_first_chunk().and_then(|(newest, rest)| Some((newest, rest.split_first_chunk()?)));
        let (newest, (senders, bitmap)) = both.expect("all windows are made with room for both");
        Parts { newest, senders, bitmap }
    }

    /// Windows of another size for the same numbers: up to the newest of each sender ID all count as seen. What is
    /// accepted here meanwhile is not known there.
    pub fn resized(&self, size: u32) -> Self {
        let windows = Self::new(size).alone(self.is_alone);
        let (old, resized) = (self.parts(), windows.parts());
        for slot in 0..SENDERS {
            let newest = old.newest[slot].load(Relaxed);
            resized.senders[slot].store(old.senders[slot].load(Relaxed), Relaxed);
            resized.newest[slot].store(newest, Relaxed);
            if size == 0 || newest == 0 {
                continue;
            }
            let last = newest / BLOCK;
            for block in last.saturating_sub(windows.turn.words - 1)..=last {
                let seen = if block < last { u32::MAX } else { u32::MAX >> (BLOCK - 1 - newest % BLOCK) };
                let word = &resized.bitmap[windows.turn.index(slot, block)];
                word.store(u64::from(block as u32) << 32 | u64::from(seen), Relaxed);
            }
        }
        windows
    }

    /// Sequence numbers of a window; 0 when replay protection is off.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Accepts `sequence` of an authentic packet, once. The first number of a sender ID may be any, and so may be the
    /// next higher one. Past 2^32 the count starts over only when the newest number was within a window of it; from
    /// then on half the numbers count as ahead and half as behind.
    ///
    /// With replay protection off everything is accepted. A number that is more than 1024 behind the newest is then
    /// itself the newest: its sender has restarted. Sender IDs beyond [`SENDERS`] are never the newest, as nothing is
    /// kept of them; such a packet is delivered and its endpoint not followed.
    #[inline]
    pub fn accept(&self, sender: u16, sequence: u32) -> Result<Fresh, Refusal> {
        let parts = self.parts();
        let slot = slot(parts.senders, sender).or_else(|| claim_slot(parts.senders, sender));
        if self.size == 0 {
            return Ok(slot.map_or(Fresh::Late, |slot| follow(&parts.newest[slot], sequence)));
        }
        let slot = slot.ok_or(Refusal::SenderLimit)?;
        let newest = &parts.newest[slot];
        let mut seen = newest.load(Relaxed);
        if seen == 0 {
            seen = begin(newest, sequence);
        }
        let number = place(sequence, seen, self.size);
        let word = &parts.bitmap[self.turn.index(slot, number / BLOCK)];
        if seen.saturating_sub(number) >= u64::from(self.size) {
            return Err(Refusal::Replayed);
        }
        if !self.is_alone {
            return claim_among_others(newest, word, seen, number);
        }
        word.store(claimed(word.load(Relaxed), number).ok_or(Refusal::Replayed)?, Relaxed);
        if number < seen {
            return Ok(Fresh::Late);
        }
        newest.store(number, Relaxed);
        Ok(Fresh::Newest)
    }

    /// Brings near what every [`accept`](Self::accept) looks at.
    #[inline]
    pub fn prefetch(&self) {
        prefetch::slice(&self.words, 1);
    }

    /// Brings near what [`accept`](Self::accept) of this number will look at besides, when that is near.
    #[inline]
    pub fn prefetch_number(&self, sender: u16, sequence: u32) {
        if self.size == 0 {
            return;
        }
        let Parts { senders, bitmap, .. } = self.parts();
        let slot = slot(senders, sender).unwrap_or(0);
        // Whatever the epoch: most are in the first.
        let index = self.turn.index(slot, (1 << 32 | u64::from(sequence)) / BLOCK);
        if let Some(word) = bitmap.get(index) {
            prefetch::value(word);
        }
    }

    /// Whether `sequence`, accepted as [`Fresh::Newest`], is still the newest of this sender ID.
    pub fn is_newest(&self, sender: u16, sequence: u32) -> bool {
        let Parts { newest, senders, .. } = self.parts();
        let seen = slot(senders, sender).map(|slot| newest[slot].load(Relaxed));
        seen.is_some_and(|seen| seen != 0 && seen as u32 == sequence)
    }
}

/// In which word of a window a block has its turn.
#[derive(Clone, Copy)]
struct Turn {
    /// Words of a window: its numbers lie in at most this many blocks. 0 without a window, or else two at least.
    words: u64,
    /// 2^64 divided by that and rounded down, so that no packet costs a division.
    reciprocal: u64,
}

impl Turn {
    const fn new(size: u32) -> Self {
        if size == 0 {
            return Self { words: 0, reciprocal: 0 };
        }
        let words = size.div_ceil(BLOCK as u32) as u64 + 1;
        Self { words, reciprocal: ((1 << 64) / words as u128) as u64 }
    }

    /// The place of the word of `block`: that of the slot's first word, and the remainder of `block` by the words of a window.
    #[inline]
    const fn index(self, slot: usize, block: u64) -> usize {
        // Of a 64-bit number the product tells the quotient, or one less.
        let quotient = ((block as u128 * self.reciprocal as u128) >> 64) as u64;
        let rest = block.wrapping_sub(quotient.wrapping_mul(self.words));
        let rest = if rest >= self.words { rest.wrapping_sub(self.words) } else { rest };
        slot.wrapping_mul(self.words as usize).wrapping_add(rest as usize)
    }
}

/// The slot that a sender ID has.
#[inline]
fn slot(senders: &[AtomicU64; SENDERS], sender: u16) -> Option<usize> {
    let taken = TAKEN | u64::from(sender);
    senders.iter().position(|slot| slot.load(Relaxed) == taken)
}

/// The slot of a sender ID, a free one when it is new, `None` when all belong to others.
#[inline(never)]
fn claim_slot(senders: &[AtomicU64; SENDERS], sender: u16) -> Option<usize> {
    let taken = TAKEN | u64::from(sender);
    senders.iter().position(|slot| {
        let mut holder = slot.load(Relaxed);
        if holder == 0 {
            holder = match slot.compare_exchange(0, taken, Relaxed, Relaxed) {
                Ok(_) => taken,
                Err(other) => other,
            };
        }
        holder == taken
    })
}

/// Notes the first number of a sender ID, unless there is one; returns which it is. It has to be the newest before another is
/// placed by it.
#[cold]
fn begin(newest: &AtomicU64, sequence: u32) -> u64 {
    let first = u64::from(sequence) | 1 << 32;
    newest.compare_exchange(0, first, Relaxed, Relaxed).map_or_else(|seen| seen, |_| first)
}

/// A word of the bitmap with the bit of `number` set. Nothing when it was set or the word serves a later block.
#[inline]
fn claimed(old: u64, number: u64) -> Option<u64> {
    let (block, bit) = (number / BLOCK, 1 << (number % BLOCK));
    // Block numbers are compared modulo 2^32 blocks: 32 epochs.
    match (block as u32).wrapping_sub((old >> 32) as u32) {
        0 => (old & bit == 0).then_some(old | bit),
        1..0x8000_0000 => Some(u64::from(block as u32) << 32 | bit),
        _ => None,
    }
}

/// Takes in `number`, whose word this is and before which `newest` was `seen`, where others do the same.
#[inline(never)]
fn claim_among_others(newest: &AtomicU64, word: &AtomicU64, seen: u64, number: u64) -> Result<Fresh, Refusal> {
    word.fetch_update(Relaxed, Relaxed, |old| claimed(old, number)).map_err(|_| Refusal::Replayed)?;
    // Equal when this is the first number.
    let is_newest = number >= seen && newest.fetch_max(number, Relaxed) <= number;
    Ok(if is_newest { Fresh::Newest } else { Fresh::Late })
}

/// The place in time of `sequence`: the epoch of the newest number, the one before, or the next.
#[inline]
fn place(sequence: u32, newest: u64, size: u32) -> u64 {
    let next = newest.wrapping_add(1);
    if sequence == next as u32 && sequence != 0 {
        return next;
    }
    let (epoch, last) = (newest >> 32, newest as u32);
    let (ahead, behind) = (sequence.wrapping_sub(last), last.wrapping_sub(sequence));
    let epoch = if sequence < last {
        // Lower: old, or the count has started over.
        if u32::MAX - last < size && ahead < 1 << 31 { epoch + 1 } else { epoch }
    } else {
        // Higher: ahead, or left over from before the count started over. In the first epoch nothing tells how far
        // the sender has come, so any jump is believed.
        let left_over = (1..size).contains(&behind) || epoch > 1 && ahead >= 1 << 31;
        if left_over { epoch - 1 } else { epoch }
    };
    epoch << 32 | u64::from(sequence)
}

/// Without replay protection: notes the newest number.
fn follow(newest: &AtomicU64, sequence: u32) -> Fresh {
    let new = 1 << 32 | u64::from(sequence);
    let is_newer = |seen: u64| seen == 0 || sequence > seen as u32 || seen as u32 - sequence > RESTART;
    match newest.fetch_update(Relaxed, Relaxed, |seen| is_newer(seen).then_some(new)) {
        Ok(_) => Fresh::Newest,
        Err(_) => Fresh::Late,
    }
}

#[cfg(test)]
mod tests;
