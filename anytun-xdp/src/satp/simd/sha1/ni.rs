//! The SHA instructions: on four chains interleaved, so that none waits for another's result, or on one.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::ShaNi;
use super::super::memory::{load_words128, load128, store_words128};
use super::Rows;
use super::lanes::{FINAL_BITS, Lanes};
use super::rounds::INITIAL;

/// Chains that are interleaved.
const STREAMS: usize = 4;

impl Lanes<STREAMS> for ShaNi {
    fn pad(self, keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { pad(keys, group, filler, states) }
    }

    fn blocks(self, state: &mut [[u32; STREAMS]; 5], octets: &[&[u8]; STREAMS], count: usize) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { blocks(state, octets, count) }
    }

    fn finish(self, inner: &Rows, group: usize, outer: &mut Rows) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { finish(inner, group, outer) }
    }
}

impl Lanes<1> for ShaNi {
    fn pad(self, keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
        let mut words = [filler; 16];
        for (word, key) in words.iter_mut().zip(keys) {
            *word ^= key[group];
        }
        let mut state = INITIAL;
        // SAFETY: the token says that the CPU has the features.
        unsafe { words_of_one(&mut state, &words) };
        put(states, group, state);
    }

    fn blocks(self, state: &mut [[u32; 1]; 5], octets: &[&[u8]; 1], count: usize) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { blocks_of_one(state, &octets[0].as_chunks().0[..count]) }
    }

    fn finish(self, inner: &Rows, group: usize, outer: &mut Rows) {
        let mut words = [0; 16];
        for (word, row) in words.iter_mut().zip(inner) {
            *word = row[group];
        }
        (words[5], words[15]) = (1 << 31, FINAL_BITS);
        let mut state = [0, 1, 2, 3, 4].map(|row: usize| outer[row][group]);
        // SAFETY: the token says that the CPU has the features.
        unsafe { words_of_one(&mut state, &words) };
        put(outer, group, state);
    }
}

/// Makes `state` that of one message.
fn put(states: &mut Rows, message: usize, state: [u32; 5]) {
    for (row, word) in states.iter_mut().zip(state) {
        row[message] = word;
    }
}

/// A chain as the instructions want it: the words a to d from the highest lane down, and e in the highest lane.
#[derive(Clone, Copy)]
struct Chain {
    abcd: __m128i,
    e: __m128i,
}

/// Takes the chains through a block each, whose words stand from the highest lane down. Each step is done for all chains
/// before the next.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress<const N: usize>(chains: &mut [Chain; N], blocks: [[__m128i; 4]; N]) {
    let mut w = blocks;
    let before = *chains;
    let (mut abcd, mut older) = ([_mm_setzero_si128(); N], [_mm_setzero_si128(); N]);
    for n in 0..N {
        (abcd[n], older[n]) = (before[n].abcd, before[n].e);
    }
    macro_rules! four_rounds {
        ($i:expr, $f:literal) => {
            for n in 0..N {
                if $i >= 4 {
                    let half = _mm_sha1msg1_epu32(w[n][$i & 3], w[n][($i + 1) & 3]);
                    w[n][$i & 3] = _mm_sha1msg2_epu32(_mm_xor_si128(half, w[n][($i + 2) & 3]), w[n][($i + 3) & 3]);
                }
                let words = w[n][$i & 3];
                let e = if $i == 0 { _mm_add_epi32(older[n], words) } else { _mm_sha1nexte_epu32(older[n], words) };
                older[n] = abcd[n];
                abcd[n] = _mm_sha1rnds4_epu32::<$f>(abcd[n], e);
            }
        };
    }
    macro_rules! twenty_rounds {
        ($i:literal, $f:literal) => {
            four_rounds!($i, $f);
            four_rounds!($i + 1, $f);
            four_rounds!($i + 2, $f);
            four_rounds!($i + 3, $f);
            four_rounds!($i + 4, $f);
        };
    }
    twenty_rounds!(0, 0);
    twenty_rounds!(5, 1);
    twenty_rounds!(10, 2);
    twenty_rounds!(15, 3);
    for n in 0..N {
        chains[n].e = _mm_sha1nexte_epu32(older[n], before[n].e);
        chains[n].abcd = _mm_add_epi32(abcd[n], before[n].abcd);
    }
}

/// Four by four words, mirrored at the diagonal.
#[inline]
#[target_feature(enable = "sse2")]
fn transposed([r0, r1, r2, r3]: [__m128i; 4]) -> [__m128i; 4] {
    let (a0, a1) = (_mm_unpacklo_epi32(r0, r1), _mm_unpackhi_epi32(r0, r1));
    let (a2, a3) = (_mm_unpacklo_epi32(r2, r3), _mm_unpackhi_epi32(r2, r3));
    [_mm_unpacklo_epi64(a0, a2), _mm_unpackhi_epi64(a0, a2), _mm_unpacklo_epi64(a1, a3), _mm_unpackhi_epi64(a1, a3)]
}

#[inline]
#[target_feature(enable = "sse2")]
fn chains([a, b, c, d, e]: [__m128i; 5]) -> [Chain; STREAMS] {
    let abcd = transposed([d, c, b, a]);
    let zero = _mm_setzero_si128();
    let e = transposed([zero, zero, zero, e]);
    let mut chains = [Chain { abcd: zero, e: zero }; STREAMS];
    for (n, chain) in chains.iter_mut().enumerate() {
        *chain = Chain { abcd: abcd[n], e: e[n] };
    }
    chains
}

#[inline]
#[target_feature(enable = "sse2")]
fn rows([p, q, r, s]: [Chain; STREAMS]) -> [__m128i; 5] {
    let [d, c, b, a] = transposed([p.abcd, q.abcd, r.abcd, s.abcd]);
    let [_, _, _, e] = transposed([p.e, q.e, r.e, s.e]);
    [a, b, c, d, e]
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(rows: &Rows, group: usize) -> [__m128i; 5] {
    let mut h = [_mm_setzero_si128(); 5];
    for (vector, row) in h.iter_mut().zip(rows) {
        *vector = load_words128(&row.as_chunks().0[group]);
    }
    h
}

#[inline]
#[target_feature(enable = "sse2")]
fn store(rows: &mut Rows, group: usize, h: [__m128i; 5]) {
    for (row, vector) in rows.iter_mut().zip(h) {
        store_words128(&mut row.as_chunks_mut().0[group], vector);
    }
}

/// The blocks of all chains from their words.
#[inline]
#[target_feature(enable = "sse2")]
fn from_words(words: [__m128i; 16]) -> [[__m128i; 4]; STREAMS] {
    let mut blocks = [[_mm_setzero_si128(); 4]; STREAMS];
    for (q, &[w0, w1, w2, w3]) in words.as_chunks().0.iter().enumerate() {
        for (block, quarter) in blocks.iter_mut().zip(transposed([w3, w2, w1, w0])) {
            block[q] = quarter;
        }
    }
    blocks
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn pad(keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
    let filler = _mm_set1_epi32(filler as i32);
    let mut words = [filler; 16];
    for (word, key) in words.iter_mut().zip(load(keys, group)) {
        *word = _mm_xor_si128(filler, key);
    }
    let mut initial = [filler; 5];
    for (vector, word) in initial.iter_mut().zip(INITIAL) {
        *vector = _mm_set1_epi32(word as i32);
    }
    let mut state = chains(initial);
    compress(&mut state, from_words(words));
    store(states, group, rows(state));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn finish(inner: &Rows, group: usize, outer: &mut Rows) {
    let mut words = [_mm_setzero_si128(); 16];
    words[..5].copy_from_slice(&load(inner, group));
    words[5] = _mm_set1_epi32(i32::MIN);
    words[15] = _mm_set1_epi32(FINAL_BITS as i32);
    let mut state = chains(load(outer, group));
    compress(&mut state, from_words(words));
    store(outer, group, rows(state));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn blocks(state: &mut [[u32; STREAMS]; 5], octets: &[&[u8]; STREAMS], count: usize) {
    let swap = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let mut h = [swap; 5];
    for (vector, row) in h.iter_mut().zip(&*state) {
        *vector = load_words128(row);
    }
    let mut h = chains(h);
    let octets: [&[[u8; 64]]; STREAMS] = from_fn(|lane| &octets[lane].as_chunks().0[..count]);
    for block in 0..count {
        let mut blocks = [[swap; 4]; STREAMS];
        for (words, octets) in blocks.iter_mut().zip(octets) {
            for (words, quarter) in words.iter_mut().zip(octets[block].as_chunks().0) {
                *words = _mm_shuffle_epi8(load128(quarter), swap);
            }
        }
        compress(&mut h, blocks);
    }
    for (row, vector) in state.iter_mut().zip(rows(h)) {
        store_words128(row, vector);
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn chain([a, b, c, d, e]: [u32; 5]) -> Chain {
    Chain { abcd: load_words128(&[d, c, b, a]), e: load_words128(&[0, 0, 0, e]) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn state_of(chain: Chain) -> [u32; 5] {
    let (mut abcd, mut last) = ([0; 4], [0; 4]);
    store_words128(&mut abcd, chain.abcd);
    store_words128(&mut last, chain.e);
    let ([d, c, b, a], [.., e]) = (abcd, last);
    [a, b, c, d, e]
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn words_of_one(state: &mut [u32; 5], words: &[u32; 16]) {
    let mut block = [_mm_setzero_si128(); 4];
    for (vector, &[w0, w1, w2, w3]) in block.iter_mut().zip(words.as_chunks().0) {
        *vector = load_words128(&[w3, w2, w1, w0]);
    }
    let mut h = [chain(*state)];
    compress(&mut h, [block]);
    *state = state_of(h[0]);
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn blocks_of_one(state: &mut [[u32; 1]; 5], octets: &[[u8; 64]]) {
    let swap = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let &mut [[a], [b], [c], [d], [e]] = state;
    let mut h = [chain([a, b, c, d, e])];
    for octets in octets {
        let mut block = [swap; 4];
        for (words, quarter) in block.iter_mut().zip(octets.as_chunks().0) {
            *words = _mm_shuffle_epi8(load128(quarter), swap);
        }
        compress(&mut h, [block]);
    }
    *state = state_of(h[0]).map(|word| [word]);
}
