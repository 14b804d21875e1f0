//! Neighbours that workers ask for.

use std::sync::atomic::{AtomicBool, Ordering};

use anytun_common::map::QUEUES_PER_INTERFACE;
use crossbeam::queue::ArrayQueue;

use super::Next;

/// Neighbours that are asked for, before some were looked for.
const MOST: usize = 256;

/// Slots of the queue. A `push` waits only at a slot that another thread is still emptying, or still filling since the lap
/// before: that before the first one or, in a full queue, the first. That thread may be waiting for the processor of a worker,
/// and a worker in real time gives it to nobody. So the queue never comes near full: who finds fewer than [`MOST`] in it puts
/// one in, and all who may do so at the same time, a thread for each queue and that which sweeps, are fewer than the slots
/// beyond. One thread only takes.
const SLOTS: usize = 2 * MOST;
const _: () = assert!(SLOTS - MOST >= 2 * QUEUES_PER_INTERFACE as usize);

/// What workers ask of whoever mirrors the kernel's tables. Asking never waits.
pub struct Asks {
    queue: ArrayQueue<Next>,
    /// Whether somebody was told since something was last taken.
    told: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Asks {
    /// Nothing is asked yet; `wake` tells that something is.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue: ArrayQueue::new(SLOTS), told: AtomicBool::new(false), wake: Box::new(wake) }
    }

    /// Asks for a neighbour. When too many are asked for, the next packet has to ask again.
    #[cold]
    pub fn ask(&self, next: Next) {
        // Whoever is the first wakes, so that a flood costs a call for each time that something is taken.
        if self.queue.len() < MOST && self.queue.push(next).is_ok() && !self.told.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Takes what was asked for by now. Workers may ask for more meanwhile: what is left is told anew.
    pub fn take(&self) -> impl Iterator<Item = Next> {
        // Before they are counted: what is put in from now on is told, and all that was before is taken.
        self.told.swap(false, Ordering::AcqRel);
        std::iter::from_fn(|| self.queue.pop()).take(self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn asks() -> (Asks, Arc<AtomicU32>) {
        let woken: Arc<AtomicU32> = Arc::default();
        let counter = woken.clone();
        let wake = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (Asks::new(wake), woken)
    }

    fn next(host: u8) -> Next {
        Next { ifindex: 1, address: [host; 16] }
    }

    #[test]
    fn who_asks_is_heard_and_wakes_once() {
        let (asks, woken) = asks();
        (0..3).for_each(|host| asks.ask(next(host)));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(asks.take().collect::<Vec<_>>(), [next(0), next(1), next(2)]);
        assert_eq!(asks.take().count(), 0);
        (0..=255).chain(0..10).for_each(|host| asks.ask(next(host)));
        assert_eq!((woken.load(Ordering::Relaxed), asks.take().count()), (2, MOST));
    }

    #[test]
    fn workers_that_ask_without_end_do_not_keep_whoever_takes() {
        let (asks, woken) = asks();
        (0..7).for_each(|host| asks.ask(next(host)));
        // For each that is taken another is put in.
        let taken = asks.take().inspect(|taken| asks.ask(*taken)).take(10 * MOST).count();
        assert_eq!(taken, 7);
        assert_eq!(woken.load(Ordering::Relaxed), 2, "what is left is told");
        assert_eq!(asks.take().count(), 7);
    }

    #[test]
    fn however_many_are_asked_for_nobody_has_to_wait_for_a_slot() {
        let (asks, _) = asks();
        for _ in 0..3 {
            (0..=255).cycle().take(10 * MOST).for_each(|host| asks.ask(next(host)));
            let free = asks.queue.capacity() - asks.queue.len();
            assert!(free > 2 * QUEUES_PER_INTERFACE as usize, "{free} slots for whoever asks at the same time");
            assert_eq!(asks.take().count(), MOST);
        }
    }
}
