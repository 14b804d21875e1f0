//! Fetching memory before it is needed, so that a batch waits for it together and not packet by packet.
//!
//! The instruction is a hint that reads nothing, so any address is good; here it is even that of a live reference.

use super::LINE;

/// Brings the first `lines` cache lines of `slice` near.
#[inline(always)]
pub(crate) fn slice<T>(slice: &[T], lines: usize) {
    let octets = size_of_val(slice);
    let mut at = 0;
    while at < octets.min(lines * LINE) {
        line(slice.as_ptr().cast::<u8>().wrapping_add(at));
        at += LINE;
    }
}

/// Brings all of `value` near that lies in itself.
#[inline(always)]
pub(crate) fn value<T>(value: &T) {
    let start = (&raw const *value).cast::<u8>();
    let mut at = 0;
    while at < size_of::<T>() {
        line(start.wrapping_add(at));
        at += LINE;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction; it faults at no address and changes nothing but what is in the caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const u8) {}
