//! What several snapshots of the tables share, one beside the other in few pages.

use std::alloc::Layout;
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::LINE;
use super::pages::{HUGE, Region};

/// Octets of a page that is not huge.
const PAGE: usize = 4096;

/// Octets of the first region of a size: enough for a node of few clients.
const FIRST: usize = 1 << 16;

/// More owners than can be in memory; half of what the count has room for, as several threads may count at once.
const MOST_OWNERS: usize = isize::MAX as usize;

/// A value with several owners, like an [`Arc`](std::sync::Arc), in a slot that starts with a cache line and lies among
/// others of its size, in huge pages when there are many. To make one and to let go of the last takes a lock, to use
/// one does not. Slots are used again; their memory is kept.
///
/// The count of owners stands behind the value, so packets never touch it.
pub struct Shared<T: ?Sized> {
    value: NonNull<T>,
}

// SAFETY: like `Arc`: any owner can give references to any thread, and the last, in whatever thread, drops the value.
unsafe impl<T: ?Sized + Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Shared<T> {}

/// The memory of all slots, by octets of a slot.
static SLOTS: LazyLock<Mutex<HashMap<usize, Slots>>> = LazyLock::new(Mutex::default);

/// Slots of one size.
#[derive(Default)]
struct Slots {
    /// Never let go, so that slots stay where they are.
    regions: Vec<Region>,
    /// Slots of the last region that were given out.
    used: usize,
    free: Vec<Free>,
}

/// A slot that belongs to nobody.
struct Free(NonNull<u8>);

// SAFETY: the slot belongs to nobody but the list it is in.
unsafe impl Send for Free {}

impl Slots {
    fn take(&mut self, octets: usize) -> NonNull<u8> {
        if let Some(Free(slot)) = self.free.pop() {
            return slot;
        }
        if self.regions.last().is_none_or(|region| (self.used + 1) * octets > region.octets()) {
            let least = if self.regions.is_empty() { FIRST } else { HUGE };
            self.regions.push(Region::new(octets.max(least), PAGE));
            self.used = 0;
        }
        let region = self.regions.last().expect("one was added if there was none");
        let at = self.used * octets;
        self.used += 1;
        // SAFETY: the slot at `at` ends within the region, as was checked above or as a new region has room for one.
        unsafe { region.start().add(at) }
    }
}

/// Where the count of owners stands behind a value, and the octets of the slot. Slots of a size lie at multiples of it in
/// regions that are aligned to a page or more, so values that need more than a line are aligned as well.
fn shape(value: Layout) -> (usize, usize) {
    let (both, count) = value.extend(Layout::new::<AtomicUsize>()).expect("octets that fit into memory");
    let slot = both.align_to(LINE).expect("a line is a power of two").pad_to_align();
    (count, slot.size())
}

impl<T> Shared<T> {
    /// Moves `value` into a slot.
    pub fn new(value: T) -> Self {
        let slot = slot(Layout::new::<T>()).cast::<T>();
        // SAFETY: the slot is aligned for the value, has room for it and belongs to nobody else.
        unsafe { slot.write(value) };
        Self { value: slot }
    }
}

impl<T> From<Vec<T>> for Shared<[T]> {
    /// Moves the values into one slot.
    fn from(mut values: Vec<T>) -> Self {
        let length = values.len();
        let slot = slot(Layout::for_value(values.as_slice())).cast::<T>();
        // SAFETY: the slot is aligned for the values, has room for them and belongs to nobody else.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), slot.as_ptr(), length) };
        // SAFETY: no more values than there were; they were moved, so the vector does not own them any more.
        unsafe { values.set_len(0) };
        Self { value: NonNull::slice_from_raw_parts(slot, length) }
    }
}

/// A slot for a value of this layout, with one owner.
fn slot(value: Layout) -> NonNull<u8> {
    assert!(value.align() <= PAGE, "no page starts at a multiple of {}", value.align());
    let (count, octets) = shape(value);
    let slot = SLOTS.lock().unwrap_or_else(PoisonError::into_inner).entry(octets).or_default().take(octets);
    // SAFETY: the count lies in the slot.
    let count = unsafe { slot.add(count) }.cast::<AtomicUsize>();
    // SAFETY: it is aligned there, and the slot belongs to nobody else.
    unsafe { count.write(AtomicUsize::new(1)) };
    slot
}

impl<T: ?Sized> Shared<T> {
    fn owners(&self) -> &AtomicUsize {
        let (count, _) = shape(Layout::for_value(&**self));
        // SAFETY: the count lies in the slot of the value.
        let count = unsafe { self.value.cast::<u8>().add(count) }.cast::<AtomicUsize>();
        // SAFETY: it was written when the slot was taken, and is there as long as there is an owner, such as `self`.
        unsafe { count.as_ref() }
    }

    /// Whether both own the same value.
    pub fn is(&self, other: &Self) -> bool {
        ptr::addr_eq(self.value.as_ptr(), other.value.as_ptr())
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // As in `Arc`: so many owners can only have been forgotten, and a count that starts over would end the value early.
        if self.owners().fetch_add(1, Ordering::Relaxed) > MOST_OWNERS {
            std::process::abort();
        }
        Self { value: self.value }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value is there as long as it has an owner, and is never borrowed exclusively before its end.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.owners().fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // What other owners did with the value happened before its end.
        fence(Ordering::Acquire);
        let (_, octets) = shape(Layout::for_value(&**self));
        // SAFETY: this was the last owner, so nobody sees the value any more.
        unsafe { ptr::drop_in_place(self.value.as_ptr()) };
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(octets).or_default().free.push(Free(self.value.cast()));
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_last_owner_drops_the_value_once() {
        let value = Arc::new(());
        let first = Shared::new(value.clone());
        let second = first.clone();
        assert!(first.is(&second));
        drop(first);
        assert_eq!(Arc::strong_count(&value), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&value), 1);
        drop(Shared::from(vec![value.clone(); 3]));
        assert_eq!(Arc::strong_count(&value), 1);
        drop(Shared::from(Vec::<Arc<()>>::new()));
    }

    #[test]
    fn slots_start_with_a_line_do_not_overlap_and_are_used_again() {
        // A size that no other test has.
        type Value = [u64; 1001];
        let address = |value: &Shared<Value>| &raw const **value as usize;
        let values: Vec<_> = (0..1000).map(|n| Shared::new([n; 1001])).collect();
        for (n, value) in values.iter().enumerate() {
            assert_eq!((**value, address(value) % LINE), ([n as u64; 1001], 0));
        }
        let before: std::collections::HashSet<_> = values.iter().map(address).collect();
        assert_eq!(before.len(), 1000);
        drop(values);
        let values: Vec<_> = (0..1000).map(|n| Shared::new([n; 1001])).collect();
        assert_eq!(values.iter().map(address).collect::<std::collections::HashSet<_>>(), before);
    }

    #[test]
    fn values_that_need_more_than_a_line_are_aligned() {
        #[repr(align(256))]
        struct Wide(u8);
        for n in 0..100 {
            let value = Shared::new(Wide(n));
            assert_eq!((value.0, &raw const *value as usize % 256), (n, 0));
        }
    }

    #[test]
    fn a_panic_at_the_end_of_a_value_costs_its_slot_and_nothing_else() {
        // A size that no other test has.
        struct Faulty([u64; 1003]);
        impl Drop for Faulty {
            fn drop(&mut self) {
                assert_eq!(self.0[0], 0, "as asked for");
            }
        }
        let faulty = Shared::new(Faulty([1; 1003]));
        let lost = &raw const *faulty as usize;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(faulty)));
        assert!(panicked.is_err());
        let sound: Vec<_> = (0..100).map(|_| Shared::new(Faulty([0; 1003]))).collect();
        assert!(sound.iter().all(|value| &raw const **value as usize != lost));
    }

    #[test]
    fn values_may_own_others_of_their_size() {
        struct Chain {
            _next: Option<Shared<Chain>>,
            _value: Arc<()>,
        }
        let value = Arc::new(());
        let link = |next, _| Some(Shared::new(Chain { _next: next, _value: value.clone() }));
        drop((0..100).fold(None, link));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn slots_go_from_thread_to_thread() {
        // A size that no other test has. Whoever makes a value of it gets slots that others gave back, and each thread
        // drops some that others wrote to.
        type Value = (std::sync::atomic::AtomicU64, [u64; 1005]);
        let value = |n: u64| Shared::new((std::sync::atomic::AtomicU64::new(0), [n; 1005]));
        let (give, take) = crossbeam::channel::unbounded::<Shared<Value>>();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (give, take) = (give.clone(), take.clone());
                scope.spawn(move || {
                    for n in 0..500 {
                        let own = value(thread << 32 | n);
                        give.send(own.clone()).expect("a receiver");
                        own.0.fetch_add(1, Ordering::Relaxed);
                        let other = take.recv().expect("as many as were sent");
                        other.0.fetch_add(1, Ordering::Relaxed);
                        assert!(other.1.iter().all(|word| *word == other.1[0]) && own.1 == [thread << 32 | n; 1005]);
                        drop((own, other));
                    }
                });
            }
        });
        assert!(take.is_empty());
    }

    #[test]
    fn owners_in_many_threads_come_and_go() {
        let value = Arc::new(());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let shared = Shared::new(value.clone());
                for _ in 0..4 {
                    let shared = shared.clone();
                    scope.spawn(move || (0..1000).for_each(|_| drop(shared.clone())));
                }
            }
        });
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
