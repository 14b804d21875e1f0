//! The numbers that one worker takes for one key.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::{Lease, NUMBERS};
use crate::satp::{Fingerprint, Shared, prefetch};

/// Asks the keeper for a lease: the key and the index of the worker.
pub(super) type Request = (Fingerprint, u16);

/// Where a sequence stands once it is closed. No lease reaches it.
const CLOSED: u64 = u64::MAX;

/// So many of the last numbers count as taken lately: what is sent to one client while an answer is under way. Whoever guesses
/// one at random is right once in 65,536 times.
const LATELY: u64 = 1 << 16;

/// The sequences of one key, one for each worker.
pub type Sequences = Shared<[CachePadded<Sequence>]>;

/// The sequence numbers of one key and one worker. Positions are `sender ID << 32 | number`, so one word says both;
/// none is ever handed out twice, as it only moves forward.
#[repr(C)]
pub struct Sequence {
    /// The next position to be handed out.
    next: AtomicU64,
    /// The position after the last leased one; of the same sender ID, so it may be the first of the next.
    end: AtomicU64,
    /// From this position on a lease is asked for.
    refill: AtomicU64,
    /// Whether a request is under way.
    asked: AtomicBool,
    /// Whether there is no lease after this one.
    last: AtomicBool,
    worker: u16,
    key: Fingerprint,
    requests: Arc<ArrayQueue<Request>>,
}

/// Why there is no sequence number to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Empty {
    /// The next lease is not written yet. It has been asked for.
    Late,
    /// The worker's sender IDs are used up for this key: the client needs a new key, or the node more sender IDs.
    Exhausted,
}

impl Sequence {
    /// A sequence that starts with `lease`; exhausted without one.
    pub(super) fn new(key: Fingerprint, worker: u16, lease: Option<Lease>, requests: Arc<ArrayQueue<Request>>) -> Self {
        let sequence = Self {
            next: AtomicU64::new(0),
            end: AtomicU64::new(0),
            refill: AtomicU64::new(u64::MAX),
            asked: AtomicBool::new(false),
            last: AtomicBool::new(false),
            worker,
            key,
            requests,
        };
        match lease {
            Some(lease) => sequence.publish(lease),
            None => sequence.finish(),
        }
        sequence
    }

    /// Takes a number: the sender ID and the sequence number. Never waits, allocates or calls the kernel. Meant for one
    /// worker; several at once get different numbers as well.
    #[inline]
    pub fn take(&self) -> Result<(u16, u32), Empty> {
        loop {
            let at = self.next.load(Ordering::Relaxed);
            // A lease published after `at` was read is no danger: if it does not follow on `at`, `next` was moved
            // first, and the exchange fails.
            if !within(at, self.end.load(Ordering::Acquire)) {
                return Err(self.empty());
            }
            if self.next.compare_exchange_weak(at, at + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                if at >= self.refill.load(Ordering::Relaxed) {
                    self.ask();
                }
                return Ok(((at >> 32) as u16, at as u32));
            }
        }
    }

    /// Whether a number is among the last that were taken.
    pub fn was_taken_lately(&self, sender: u16, number: u32) -> bool {
        let at = u64::from(sender) << 32 | u64::from(number);
        let next = self.next.load(Ordering::Relaxed);
        at < next && next - at <= LATELY
    }

    /// Brings near what [`take`](Self::take) looks at.
    #[inline]
    pub fn prefetch(&self) {
        prefetch::slice(slice::from_ref(self), 1);
    }

    #[cold]
    fn empty(&self) -> Empty {
        self.ask();
        if self.last.load(Ordering::Relaxed) { Empty::Exhausted } else { Empty::Late }
    }

    /// Asks for a lease unless that is under way. When the queue is full, the next packet asks again.
    fn ask(&self) {
        if self.asked.load(Ordering::Relaxed) || self.asked.swap(true, Ordering::Acquire) {
            return;
        }
        if self.requests.push((self.key, self.worker)).is_err() {
            self.answered();
        }
    }

    /// Lets the sequence ask again.
    pub(super) fn answered(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Lets numbers of `lease` be taken. It must be recorded durably, and lie behind every earlier one.
    pub(super) fn publish(&self, lease: Lease) {
        let base = u64::from(lease.sender) << 32;
        let (start, end) = (base + lease.start, base + lease.end);
        // A request is due while half of the lease is left.
        self.refill.store(end - (lease.end - lease.start).div_ceil(2), Ordering::Relaxed);
        let follows = self.end.load(Ordering::Relaxed) == start && lease.start > 0;
        if !follows {
            // `next` before `end`: between the two nothing can be taken, which is safe; the other way round, numbers
            // between two leases could.
            self.next.store(start, Ordering::Relaxed);
        }
        self.end.store(end, Ordering::Release);
    }

    /// Says that no lease follows.
    pub(super) fn finish(&self) {
        self.refill.store(u64::MAX, Ordering::Relaxed);
        self.last.store(true, Ordering::Relaxed);
    }

    /// Whether less than half of the lease is left and another can follow.
    pub(super) fn wants_lease(&self) -> bool {
        !self.last.load(Ordering::Relaxed) && self.next.load(Ordering::Relaxed) >= self.refill.load(Ordering::Relaxed)
    }

    /// Whether nothing is left and nothing follows.
    pub(super) fn is_exhausted(&self) -> bool {
        self.last.load(Ordering::Relaxed)
            && !within(self.next.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed))
    }

    /// The sender ID of the lease, if there ever was one.
    pub(super) fn sender(&self) -> Option<u16> {
        let end = self.end.load(Ordering::Relaxed);
        Some((end.checked_sub(1)? >> 32) as u16)
    }

    /// Ends the sequence for good and returns what is left of its lease. Whoever still takes from it gets nothing.
    pub(super) fn close(&self) -> Option<Lease> {
        let at = self.next.swap(CLOSED, Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let sender = self.sender()?;
        let base = u64::from(sender) << 32;
        within(at, end).then(|| Lease { sender, start: at - base, end: end - base })
    }
}

/// Whether `at` is a position before `end` with the sender ID of the lease that ends there.
const fn within(at: u64, end: u64) -> bool {
    at < end && (end - 1) / NUMBERS == at / NUMBERS
}
