//! Several chains interleaved through the SHA instructions, so that none waits for another's result.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::ShaNi;
use super::super::memory::{load_words128, load128, store_words128};
use super::Rows;
use super::lanes::{FINAL_BITS, Lanes};
use super::rounds::INITIAL;

/// Chains.
pub(super) const N: usize = 4;

impl Lanes<N> for ShaNi {
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
    let mut abcd: [__m128i; N] = from_fn(|n| before[n].abcd);
    let mut older: [__m128i; N] = from_fn(|n| before[n].e);
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
fn chains([a, b, c, d, e]: [__m128i; 5]) -> [Chain; N] {
    let abcd = transposed([d, c, b, a]);
    let zero = _mm_setzero_si128();
    let e = transposed([zero, zero, zero, e]);
    from_fn(|n| Chain { abcd: abcd[n], e: e[n] })
}

#[inline]
#[target_feature(enable = "sse2")]
fn rows(chains: &[Chain; N]) -> [__m128i; 5] {
    let [d, c, b, a] = transposed(from_fn(|n| chains[n].abcd));
    let [_, _, _, e] = transposed(from_fn(|n| chains[n].e));
    [a, b, c, d, e]
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(rows: &Rows, group: usize) -> [__m128i; 5] {
    from_fn(|row| load_words128(&rows[row].as_chunks().0[group]))
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
fn from_words(words: [__m128i; 16]) -> [[__m128i; 4]; N] {
    let quarters: [[__m128i; 4]; 4] =
        from_fn(|q| transposed([words[4 * q + 3], words[4 * q + 2], words[4 * q + 1], words[4 * q]]));
    from_fn(|n| from_fn(|q| quarters[q][n]))
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn pad(keys: &Rows, group: usize, filler: u32, states: &mut Rows) {
    let filler = _mm_set1_epi32(filler as i32);
    let mut words = [filler; 16];
    for (word, key) in words.iter_mut().zip(load(keys, group)) {
        *word = _mm_xor_si128(filler, key);
    }
    let mut state = chains(INITIAL.map(|word| _mm_set1_epi32(word as i32)));
    compress(&mut state, from_words(words));
    store(states, group, rows(&state));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn finish(inner: &Rows, group: usize, outer: &mut Rows) {
    let mut words = [_mm_setzero_si128(); 16];
    words[..5].copy_from_slice(&load(inner, group));
    words[5] = _mm_set1_epi32(i32::MIN);
    words[15] = _mm_set1_epi32(FINAL_BITS as i32);
    let mut state = chains(load(outer, group));
    compress(&mut state, from_words(words));
    store(outer, group, rows(&state));
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn blocks(state: &mut [[u32; N]; 5], octets: &[&[u8]; N], count: usize) {
    let swap = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let mut h = chains(from_fn(|row| load_words128(&state[row])));
    let octets: [&[[u8; 64]]; N] = from_fn(|lane| &octets[lane].as_chunks().0[..count]);
    #[expect(clippy::needless_range_loop, reason = "one index into every lane")]
    for block in 0..count {
        let words = from_fn(|lane| {
            let quarters = octets[lane][block].as_chunks().0;
            from_fn(|q| _mm_shuffle_epi8(load128(&quarters[q]), swap))
        });
        compress(&mut h, words);
    }
    for (row, vector) in state.iter_mut().zip(rows(&h)) {
        store_words128(row, vector);
    }
}
