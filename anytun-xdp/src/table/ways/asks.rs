//! Neighbours that workers ask for.

use crossbeam::queue::ArrayQueue;

use super::Next;

/// Neighbours that are asked for at most, before some were looked for.
const MOST: usize = 256;

/// What workers ask of whoever mirrors the kernel's tables. Asking never waits.
pub struct Asks {
    queue: ArrayQueue<Next>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Asks {
    /// Nothing is asked yet; `wake` tells that something is.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue: ArrayQueue::new(MOST), wake: Box::new(wake) }
    }

    /// Asks for a neighbour. When too many are asked for, the next packet has to ask again.
    #[cold]
    pub fn ask(&self, next: Next) {
        // Whoever finds the queue empty wakes, so that a flood costs a call for each time it is emptied.
        let first = self.queue.is_empty();
        if self.queue.push(next).is_ok() && first {
            (self.wake)();
        }
    }

    /// Takes what was asked for.
    pub fn take(&self) -> impl Iterator<Item = Next> {
        std::iter::from_fn(|| self.queue.pop())
    }
}
