//! Memory that takes few entries of the TLB: aligned to huge pages, which the kernel is asked for.
//!
//! What 60,000 clients need lies scattered when every part is allocated by itself: then each packet waits for page tables to
//! be walked, in the middle of memory that was fetched ahead.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

/// Octets of a huge page.
pub(super) const HUGE: usize = 2 << 20;

/// From so many octets on memory is rounded up to whole huge pages.
const WORTH_IT: usize = HUGE / 4;

/// What is reserved for so many octets, of a type with this alignment: line by line, or huge page by huge page.
fn layout(octets: usize, align: usize) -> Layout {
    let align = align.max(if octets < WORTH_IT { super::LINE } else { HUGE });
    Layout::from_size_align(octets.max(1), align).expect("octets that fit into memory").pad_to_align()
}

/// Octets of memory, not written yet.
pub(super) struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

impl Region {
    /// At least `octets`, aligned to `align` and to a cache line; in huge pages when that is worth it and there are any.
    pub(super) fn new(octets: usize, align: usize) -> Self {
        let layout = layout(octets, align);
        // SAFETY: the layout has at least one octet.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        if layout.align() >= HUGE {
            // SAFETY: the range was just allocated, so nothing else lies in it; the advice changes no content, only how the
            // kernel backs it. Whether it is taken does not matter here.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Self { start, layout }
    }

    /// Where it starts.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its octets.
    pub(super) fn octets(&self) -> usize {
        self.layout.size()
    }
}

// SAFETY: owns its memory, and to know where that is allows nobody to use it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and released only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A slice in such memory.
pub struct Pages<T> {
    region: Region,
    length: usize,
    values: std::marker::PhantomData<T>,
}

// SAFETY: owns its values, as a `Vec` does.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: gives out references to its values only, as a `Vec` does.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T> From<Vec<T>> for Pages<T> {
    fn from(mut values: Vec<T>) -> Self {
        let length = values.len();
        let region = Region::new(size_of_val(values.as_slice()), align_of::<T>());
        // SAFETY: both are good for `length` values and aligned for them, and the region is new, so they do not overlap.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), region.start.cast().as_ptr(), length) };
        // SAFETY: no more values than there were; they were moved, so the vector does not own them any more.
        unsafe { values.set_len(0) };
        Self { region, length, values: std::marker::PhantomData }
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: so many values were moved there, and live as long as `self`.
        unsafe { slice::from_raw_parts(self.region.start.cast().as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Pages<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: so many values were moved there, and live as long as `self`, which is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.region.start.cast().as_ptr(), self.length) }
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: Clone> Clone for Pages<T> {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a, T> IntoIterator for &'a Pages<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}

impl<T> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: the values are valid, nobody else owns them, and nobody sees them after this.
        unsafe { ptr::drop_in_place(&raw mut **self) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn values_are_moved_in_and_dropped_once() {
        let value = Arc::new(());
        for count in [0, 1, 100, HUGE] {
            let pages = Pages::from(vec![value.clone(); count]);
            assert_eq!((pages.len(), Arc::strong_count(&value)), (count, count + 1));
            assert_eq!(pages.clone().iter().count(), count);
            drop(pages);
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn much_memory_is_aligned_to_huge_pages_and_little_to_lines() {
        let start = |octets: usize| Pages::from(vec![7u8; octets]).as_ptr() as usize;
        assert_eq!(start(WORTH_IT) % HUGE, 0);
        assert_eq!(start(100) % super::super::LINE, 0);
    }
}
