//! Eight chains, one in each 32-bit lane of a 256-bit register.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::Avx2;
use super::super::memory::{load_words256, load256, store_words256};
use super::Rows;
use super::lanes::{FINAL_BITS, Lanes};
use super::rounds::{INITIAL, define_compress};

/// Chains.
const N: usize = 8;

type Vector = __m256i;

impl Lanes<N> for Avx2 {
    fn pad(self, keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { pad(keys, group, filler, states) }
    }

    fn blocks(self, state: &mut [[u32; N]; 5], octets: &[&[u8]; N], count: usize) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { blocks(state, octets, count) }
    }

    fn finish(self, inner: &Rows, group: usize, outer: &mut Rows) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { finish(inner, group, outer) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm256_xor_si256(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    xor(xor(a, b), c)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const BY: i32>(a: Vector) -> Vector {
    let (left, right) = const { (BY, 32 - BY) };
    _mm256_or_si256(_mm256_sll_epi32(a, _mm_cvtsi32_si128(left)), _mm256_srl_epi32(a, _mm_cvtsi32_si128(right)))
}

/// (b and c) or (not b and d)
#[inline]
#[target_feature(enable = "avx2")]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    xor(d, _mm256_and_si256(b, xor(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn parity(b: Vector, c: Vector, d: Vector) -> Vector {
    xor3(b, c, d)
}

/// (b and c) or (b and d) or (c and d)
#[inline]
#[target_feature(enable = "avx2")]
fn majority(b: Vector, c: Vector, d: Vector) -> Vector {
    xor(_mm256_and_si256(b, c), _mm256_and_si256(d, xor(b, c)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(word: u32) -> Vector {
    _mm256_set1_epi32(word as i32)
}

define_compress!(Vector, "avx2");

#[inline]
#[target_feature(enable = "avx2")]
fn load(rows: &Rows, group: usize) -> [Vector; 5] {
    let mut h = [splat(0); 5];
    for (vector, row) in h.iter_mut().zip(rows) {
        *vector = load_words256(&row.as_chunks().0[group]);
    }
    h
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(rows: &mut Rows, group: usize, h: [Vector; 5]) {
    for (row, vector) in rows.iter_mut().zip(h) {
        store_words256(&mut row.as_chunks_mut().0[group], vector);
    }
}

#[target_feature(enable = "avx2")]
fn pad(keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
    let filler = splat(filler);
    let mut w = [filler; 16];
    for (word, key) in w.iter_mut().zip(load(keys, group)) {
        *word = xor(filler, key);
    }
    let mut h = [splat(0); 5];
    for (vector, word) in h.iter_mut().zip(INITIAL) {
        *vector = splat(word);
    }
    store(states, group, compress(h, w));
}

#[target_feature(enable = "avx2")]
fn finish(inner: &Rows, group: usize, outer: &mut Rows) {
    let mut w = [splat(0); 16];
    w[..5].copy_from_slice(&load(inner, group));
    w[5] = splat(1 << 31);
    w[15] = splat(FINAL_BITS);
    store(outer, group, compress(load(outer, group), w));
}

#[target_feature(enable = "avx2")]
fn blocks(state: &mut [[u32; N]; 5], octets: &[&[u8]; N], count: usize) {
    let mut h = [splat(0); 5];
    for (vector, row) in h.iter_mut().zip(&*state) {
        *vector = load_words256(row);
    }
    let octets: [&[[u8; 32]]; N] = from_fn(|lane| &octets[lane].as_chunks().0[..2 * count]);
    for block in 0..count {
        let mut words = [splat(0); 16];
        for half in 0..2 {
            let mut lanes = [splat(0); N];
            for (vector, octets) in lanes.iter_mut().zip(octets) {
                *vector = load256(&octets[2 * block + half]);
            }
            words[8 * half..][..8].copy_from_slice(&transposed(lanes));
        }
        h = compress(h, words);
    }
    for (row, vector) in state.iter_mut().zip(h) {
        store_words256(row, vector);
    }
}

/// From half a block of each lane its words: the first of all lanes, the second of all lanes, and so on.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(mut lanes: [Vector; N]) -> [Vector; 8] {
    // Words are big endian.
    let swap = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    for lane in &mut lanes {
        *lane = _mm256_shuffle_epi8(*lane, swap);
    }
    // In `halves[g][j]` the 128-bit part k holds word 4k+j of the lanes 4g to 4g+3.
    let mut halves = [[splat(0); 4]; 2];
    for (half, &[r0, r1, r2, r3]) in halves.iter_mut().zip(lanes.as_chunks().0) {
        let (a0, a1) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpackhi_epi32(r0, r1));
        let (a2, a3) = (_mm256_unpacklo_epi32(r2, r3), _mm256_unpackhi_epi32(r2, r3));
        *half = [
            _mm256_unpacklo_epi64(a0, a2),
            _mm256_unpackhi_epi64(a0, a2),
            _mm256_unpacklo_epi64(a1, a3),
            _mm256_unpackhi_epi64(a1, a3),
        ];
    }
    let mut words = [splat(0); 8];
    for j in 0..4 {
        words[j] = _mm256_permute2x128_si256::<0x20>(halves[0][j], halves[1][j]);
        words[4 + j] = _mm256_permute2x128_si256::<0x31>(halves[0][j], halves[1][j]);
    }
    words
}
