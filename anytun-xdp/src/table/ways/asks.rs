//! Neighbours that workers ask for.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::Next;

/// Neighbours that are asked for at most, before some were looked for, and that are taken together.
const MOST: usize = 256;

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
        Self { queue: ArrayQueue::new(MOST), told: AtomicBool::new(false), wake: Box::new(wake) }
    }

    /// Asks for a neighbour. When too many are asked for, the next packet has to ask again.
    #[cold]
    pub fn ask(&self, next: Next) {
        // Whoever is the first wakes, so that a flood costs a call for each time that something is taken.
        if self.queue.push(next).is_ok() && !self.told.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Takes what was asked for by now. Workers may ask for more meanwhile: what is left is told anew.
    pub fn take(&self) -> impl Iterator<Item = Next> {
        // Before the first is taken: what is put in from now on is told, and all that was before fits into what is taken.
        self.told.swap(false, Ordering::AcqRel);
        std::iter::from_fn(|| self.queue.pop()).take(MOST)
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
        assert_eq!(taken, MOST);
        assert_eq!(woken.load(Ordering::Relaxed), 2, "what is left is told");
        assert_eq!(asks.take().count(), 7);
    }
}
