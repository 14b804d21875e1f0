//! A bounded queue from which a worker takes without waiting for a thread that does not run.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;

/// How often it is looked whether what is being put in is there: for as long as that takes a thread that runs.
const LOOKS: u32 = 64;

/// An [`ArrayQueue`], whose `pop` waits while a `push` is under way. A thread that stops in the middle of one may be waiting for
/// the processor of the worker, and a worker in real time gives it to nobody: it would wait for itself. So it is noted that
/// something is being put in, and whoever takes finds nothing meanwhile.
#[derive(Debug)]
pub(super) struct Handover<T> {
    queue: ArrayQueue<T>,
    /// How many are being put in.
    under_way: AtomicU32,
}

impl<T> Handover<T> {
    /// An empty one with room for `capacity`, which is not 0.
    pub(super) fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity), under_way: AtomicU32::new(0) }
    }

    /// Puts something in; it comes back when there is no room.
    #[inline]
    pub(super) fn push(&self, value: T) -> Result<(), T> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let pushed = self.queue.push(value);
        self.under_way.fetch_sub(1, Ordering::Release);
        pushed
    }

    /// Takes the first, if there is one and whoever puts others in runs.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        for _ in 0..LOOKS {
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return self.queue.pop();
            }
            hint::spin_loop();
        }
        None
    }

    /// Whether there is nothing, not even something that is being put in.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Has so many threads stop in the middle of a push, or go on.
    #[cfg(test)]
    pub(super) fn stop(&self, threads: u32) {
        self.under_way.store(threads, Ordering::SeqCst);
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.queue.is_full()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out_in_order_and_once() {
        let queue = Handover::new(8);
        thread::scope(|scope| {
            scope.spawn(|| {
                for mut number in 0..100_000u32 {
                    while let Err(back) = queue.push(number) {
                        number = back;
                        thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < 100_000 {
                match queue.pop() {
                    Some(number) => {
                        assert_eq!(number, next);
                        next += 1;
                    }
                    None => thread::yield_now(),
                }
            }
        });
        assert!(queue.is_empty() && !queue.is_full());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_stopped_while_it_put_something_in() {
        let queue = Handover::new(8);
        queue.push(1).expect("room");
        queue.stop(1);
        assert_eq!(queue.pop(), None);
        assert!(!queue.is_empty());
        queue.stop(0);
        assert_eq!(queue.pop(), Some(1));
    }
}
