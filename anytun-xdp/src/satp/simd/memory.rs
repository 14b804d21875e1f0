//! Moving vectors from and to memory.

use std::arch::x86_64::*;

/// Sixteen octets.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load128(octets: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is good for the 16 octets that are read, at any alignment.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

/// Stores sixteen octets.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn store128(octets: &mut [u8; 16], vector: __m128i) {
    // SAFETY: the reference is good for the 16 octets that are written, at any alignment.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), vector) }
}

/// Four words.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load_words128(words: &[u32; 4]) -> __m128i {
    // SAFETY: the reference is good for the 16 octets that are read, at any alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// Stores four words.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn store_words128(words: &mut [u32; 4], vector: __m128i) {
    // SAFETY: the reference is good for the 16 octets that are written, at any alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), vector) }
}

/// Thirty-two octets.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load256(octets: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is good for the 32 octets that are read, at any alignment.
    unsafe { _mm256_loadu_si256(octets.as_ptr().cast()) }
}

/// Eight words.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_words256(words: &[u32; 8]) -> __m256i {
    // SAFETY: the reference is good for the 32 octets that are read, at any alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Stores eight words.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn store_words256(words: &mut [u32; 8], vector: __m256i) {
    // SAFETY: the reference is good for the 32 octets that are written, at any alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

/// Sixty-four octets.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load512(octets: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is good for the 64 octets that are read, at any alignment.
    unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) }
}

/// Stores sixty-four octets.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store512(octets: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the reference is good for the 64 octets that are written, at any alignment.
    unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), vector) }
}

/// Sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_words512(words: &[u32; 16]) -> __m512i {
    // SAFETY: the reference is good for the 64 octets that are read, at any alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Stores sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_words512(words: &mut [u32; 16], vector: __m512i) {
    // SAFETY: the reference is good for the 64 octets that are written, at any alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

/// A mask of the octets that a slice fills of 64.
#[inline]
fn mask(length: usize) -> __mmask64 {
    if length >= 64 { !0 } else { !(!0 << length) }
}

/// The first octets of a vector, at most 64; the rest is zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_part512(octets: &[u8]) -> __m512i {
    // SAFETY: only octets whose bit is set in the mask are read, and that is at most the length of the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask(octets.len()), octets.as_ptr().cast()) }
}

/// Stores the first octets of a vector, as many as the slice takes, at most 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn store_part512(octets: &mut [u8], vector: __m512i) {
    // SAFETY: only octets whose bit is set in the mask are written, and that is at most the length of the slice.
    unsafe { _mm512_mask_storeu_epi8(octets.as_mut_ptr().cast(), mask(octets.len()), vector) }
}
