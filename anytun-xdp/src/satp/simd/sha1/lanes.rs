//! The steps of HMAC in as many lanes as a CPU has, and the queue that keeps them busy.

use super::{BLOCK, DIGEST, Hmac, Rows, Tail};
use crate::satp::simd::PACKETS;

/// Bits that the outer hash runs over: a pad and an inner hash.
pub(super) const FINAL_BITS: u32 = ((BLOCK + DIGEST) * 8) as u32;
/// What pads a key for the inner and the outer hash.
const INNER: u32 = 0x3636_3636;
const OUTER: u32 = 0x5c5c_5c5c;

/// SHA-1 on `N` chains side by side.
pub(super) trait Lanes<const N: usize>: Copy {
    /// Takes the chains `N * group ..` of `states` from the initial value through the block that is the key and zero
    /// octets, all words of it xored with `filler`.
    fn pad(self, keys: &Rows, group: usize, filler: u32, states: &mut Rows);

    /// Takes the chains of `state` through the first `count` blocks of each slice of `octets`.
    fn blocks(self, state: &mut [[u32; N]; 5], octets: &[&[u8]; N], count: usize);

    /// Takes the chains `N * group ..` of `outer` through the block that is the padded hash in `inner`.
    fn finish(self, inner: &Rows, group: usize, outer: &mut Rows);

    /// Fills a tail with `rest`, less than a block, a one bit, and zero octets.
    #[inline]
    fn tail(self, rest: &[u8], tail: &mut Tail) {
        *tail = [0; 2 * BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        tail[rest.len()] = 0x80;
    }
}

impl Hmac {
    /// Works with `N` lanes; up to `few` chains that would be left over go to the narrower `M` lanes instead.
    pub(super) fn side_by_side<const N: usize, const M: usize>(
        &mut self,
        wide: impl Lanes<N>,
        narrow: impl Lanes<M>,
        few: usize,
        messages: &[&[u8]],
    ) {
        let Self { keys, inner, outer, tails } = self;
        let count = messages.len();
        let split = if count % N <= few { count - count % N } else { count };
        let (groups, narrow_groups) = (split.div_ceil(N), split.div_ceil(M)..count.div_ceil(M));

        for group in 0..groups {
            wide.pad(keys, group, INNER, inner);
            wide.pad(keys, group, OUTER, outer);
        }
        for group in narrow_groups.clone() {
            narrow.pad(keys, group, INNER, inner);
            narrow.pad(keys, group, OUTER, outer);
        }
        for (message, tail) in messages.iter().zip(tails.iter_mut()) {
            wide.tail(message.as_chunks::<BLOCK>().1, tail);
            let end = tail_blocks(message) * BLOCK;
            let bits = (BLOCK + message.len()) as u64 * 8;
            tail[end - 8..end].copy_from_slice(&bits.to_be_bytes());
        }
        let text = Text { messages, tails };
        let mut queue = Queue::new(&text);
        queue.run(wide, &text, inner, few);
        queue.run(narrow, &text, inner, 0);
        for group in 0..groups {
            wide.finish(inner, group, outer);
        }
        for group in narrow_groups {
            narrow.finish(inner, group, outer);
        }
    }
}

/// Up to so many chains are faster one by one through the SHA instructions than through sixteen lanes, and than through
/// eight: lanes cost the same whether they are used or not.
pub(super) const FEW_OF_16: usize = 3;
pub(super) const FEW_OF_8: usize = 4;

/// Blocks of the tail of a message.
fn tail_blocks(message: &[u8]) -> usize {
    // The one bit and the length take nine octets.
    if message.len() % BLOCK > BLOCK - 9 { 2 } else { 1 }
}

/// What is hashed.
struct Text<'a> {
    messages: &'a [&'a [u8]],
    tails: &'a [Tail; PACKETS],
}

impl<'a> Text<'a> {
    /// Blocks of message `index`.
    fn blocks(&self, index: usize) -> usize {
        let message = self.messages[index];
        message.len() / BLOCK + tail_blocks(message)
    }

    /// Consecutive blocks of a message after the first `done`; nothing when there are none.
    fn after(&self, job: Job) -> &'a [u8] {
        let (message, done) = (self.messages[usize::from(job.message)], usize::from(job.done));
        let whole = message.len() / BLOCK;
        match done.checked_sub(whole) {
            None => &message[done * BLOCK..whole * BLOCK],
            Some(done) => &self.tails[usize::from(job.message)][done * BLOCK..tail_blocks(message) * BLOCK],
        }
    }
}

/// A message, and how many of its blocks are done.
#[derive(Clone, Copy, Default)]
struct Job {
    message: u16,
    done: u16,
}

/// Messages that wait for a lane.
struct Queue {
    jobs: [Job; PACKETS],
    next: usize,
    end: usize,
}

impl Queue {
    /// All messages, the longest first.
    fn new(text: &Text<'_>) -> Self {
        let end = text.messages.len();
        let mut jobs = std::array::from_fn(|message| Job { message: message as u16, done: 0 });
        let blocks = |job: &Job| std::cmp::Reverse(text.blocks(usize::from(job.message)));
        if !jobs[..end].is_sorted_by_key(blocks) {
            jobs[..end].sort_unstable_by_key(blocks);
        }
        Self { jobs, next: 0, end }
    }

    fn take(&mut self) -> Option<Job> {
        let job = *self.jobs[..self.end].get(self.next)?;
        self.next += 1;
        Some(job)
    }

    /// Hashes until all messages are done, or none waits and at most `few` are in the lanes; these then wait again.
    fn run<const N: usize>(&mut self, lanes: impl Lanes<N>, text: &Text<'_>, states: &mut Rows, few: usize) {
        let mut jobs: [Option<Job>; N] = [None; N];
        let mut state = [[0; N]; 5];
        loop {
            let mut octets: [&[u8]; N] = [&[]; N];
            let (mut busy, mut count, mut any) = (0, usize::MAX, 0);
            for lane in 0..N {
                if jobs[lane].is_none() {
                    jobs[lane] = self.take();
                    if let Some(job) = jobs[lane] {
                        for (row, of_all) in state.iter_mut().zip(states.iter()) {
                            row[lane] = of_all[usize::from(job.message)];
                        }
                    }
                }
                if let Some(job) = jobs[lane] {
                    octets[lane] = text.after(job);
                    count = count.min(octets[lane].len() / BLOCK);
                    busy += 1;
                    any = lane;
                }
            }
            if busy <= few && self.next == self.end {
                break;
            }
            if busy < N {
                // A lane without a message goes along with another.
                for lane in 0..N {
                    if jobs[lane].is_none() {
                        octets[lane] = octets[any];
                    }
                }
            }
            lanes.blocks(&mut state, &octets, count);
            for (lane, taken) in jobs.iter_mut().enumerate() {
                if let Some(job) = taken {
                    job.done += count as u16;
                    let message = usize::from(job.message);
                    if usize::from(job.done) == text.blocks(message) {
                        put_back(states, message, &state, lane);
                        *taken = None;
                    }
                }
            }
        }
        (self.next, self.end) = (0, 0);
        for (lane, job) in jobs.into_iter().enumerate() {
            if let Some(job) = job {
                put_back(states, usize::from(job.message), &state, lane);
                self.jobs[self.end] = job;
                self.end += 1;
            }
        }
    }
}

#[inline]
fn put_back<const N: usize>(states: &mut Rows, message: usize, state: &[[u32; N]; 5], lane: usize) {
    for (of_all, row) in states.iter_mut().zip(state) {
        of_all[message] = row[lane];
    }
}
