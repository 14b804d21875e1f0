//! Sixteen chains, one in each 32-bit lane of a 512-bit register.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::Avx512;
use super::super::memory::{load_part512, load_words512, load512, store_words512, store512};
use super::lanes::{FINAL_BITS, Lanes};
use super::rounds::{INITIAL, define_compress};
use super::{Rows, Tail};

/// Chains.
const N: usize = 16;

type Vector = __m512i;

impl Lanes<N> for Avx512 {
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

    fn tail(self, rest: &[u8], tail: &mut Tail) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { fill(rest, tail) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const BY: i32>(a: Vector) -> Vector {
    _mm512_rol_epi32::<BY>(a)
}

/// (b and c) or (not b and d)
#[inline]
#[target_feature(enable = "avx512f")]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xca>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn parity(b: Vector, c: Vector, d: Vector) -> Vector {
    xor3(b, c, d)
}

/// (b and c) or (b and d) or (c and d)
#[inline]
#[target_feature(enable = "avx512f")]
fn majority(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xe8>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> Vector {
    _mm512_set1_epi32(word as i32)
}

define_compress!(Vector, "avx512f,avx512bw");

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(rows: &Rows, group: usize) -> [Vector; 5] {
    let mut h = [splat(0); 5];
    for (vector, row) in h.iter_mut().zip(rows) {
        *vector = load_words512(&row.as_chunks().0[group]);
    }
    h
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(rows: &mut Rows, group: usize, h: [Vector; 5]) {
    for (row, vector) in rows.iter_mut().zip(h) {
        store_words512(&mut row.as_chunks_mut().0[group], vector);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
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

#[target_feature(enable = "avx512f,avx512bw")]
fn finish(inner: &Rows, group: usize, outer: &mut Rows) {
    let mut w = [splat(0); 16];
    w[..5].copy_from_slice(&load(inner, group));
    w[5] = splat(1 << 31);
    w[15] = splat(FINAL_BITS);
    store(outer, group, compress(load(outer, group), w));
}

#[target_feature(enable = "avx512f,avx512bw")]
fn blocks(state: &mut [[u32; N]; 5], octets: &[&[u8]; N], count: usize) {
    let mut h = [splat(0); 5];
    for (vector, row) in h.iter_mut().zip(&*state) {
        *vector = load_words512(row);
    }
    let octets: [&[[u8; 64]]; N] = from_fn(|lane| &octets[lane].as_chunks().0[..count]);
    for block in 0..count {
        let mut lanes = [splat(0); N];
        for (vector, octets) in lanes.iter_mut().zip(octets) {
            *vector = load512(&octets[block]);
        }
        h = compress(h, transposed(lanes));
    }
    for (row, vector) in state.iter_mut().zip(h) {
        store_words512(row, vector);
    }
}

/// From the block of each lane its words: the first of all lanes, the second of all lanes, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(mut lanes: [Vector; N]) -> [Vector; 16] {
    // Words are big endian.
    let swap = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    for lane in &mut lanes {
        *lane = _mm512_shuffle_epi8(*lane, swap);
    }
    // In `quarters[g][j]` the 128-bit part k holds word 4k+j of the lanes 4g to 4g+3.
    let mut quarters = [[splat(0); 4]; 4];
    for (quarter, &[r0, r1, r2, r3]) in quarters.iter_mut().zip(lanes.as_chunks().0) {
        let (a0, a1) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (a2, a3) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        *quarter = [
            _mm512_unpacklo_epi64(a0, a2),
            _mm512_unpackhi_epi64(a0, a2),
            _mm512_unpacklo_epi64(a1, a3),
            _mm512_unpackhi_epi64(a1, a3),
        ];
    }
    let mut words = [splat(0); 16];
    for j in 0..4 {
        let [b0, b1, b2, b3] = [quarters[0][j], quarters[1][j], quarters[2][j], quarters[3][j]];
        let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(b0, b1), _mm512_shuffle_i32x4::<0xdd>(b0, b1));
        let (later_even, later_odd) = (_mm512_shuffle_i32x4::<0x88>(b2, b3), _mm512_shuffle_i32x4::<0xdd>(b2, b3));
        words[j] = _mm512_shuffle_i32x4::<0x88>(even, later_even);
        words[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, later_odd);
        words[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, later_even);
        words[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, later_odd);
    }
    words
}

/// The last octets of a message and a one bit; the rest of the tail is zero.
#[target_feature(enable = "avx512f,avx512bw")]
fn fill(rest: &[u8], tail: &mut Tail) {
    let end = _mm512_maskz_set1_epi8(1 << (rest.len() & 63), 0x80u8 as i8);
    let ([first, second], _) = tail.as_chunks_mut() else { return };
    store512(first, _mm512_or_si512(load_part512(rest), end));
    store512(second, _mm512_setzero_si512());
}
