//! Four blocks in each 512-bit register.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::Vaes;
use super::super::memory::{load_part512, load128, load512, store_part512, store128, store512};
use super::expand::{self, define_schedules};
use super::{BLOCK, Blocks, GROUP, Labels, Master, Origin, PACKETS, ROUND_KEYS, Schedules, Sessions, place, words};
use crate::satp::AesCtr;

/// Packets whose schedules are made together.
const LANES: usize = GROUP;

type Vector = __m512i;

impl Blocks for Vaes {
    fn derive(self, origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { derive(origin, sessions, slot) }
    }

    fn crypt(
        self,
        cipher: AesCtr,
        slots: &[u8],
        sessions: &Sessions,
        schedules: &mut Schedules,
        bodies: &mut [&mut [u8]; PACKETS],
    ) {
        // SAFETY: the token says that the CPU has the features.
        unsafe { crypt(cipher, slots, sessions, schedules, bodies) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shuffle(a: Vector, by: Vector) -> Vector {
    _mm512_shuffle_epi8(a, by)
}

#[inline]
#[target_feature(enable = "vaes,avx512f")]
fn last_round(a: Vector, key: Vector) -> Vector {
    _mm512_aesenclast_epi128(a, key)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> Vector {
    _mm512_set1_epi32(word as i32)
}

/// The same block in all four places.
#[inline]
#[target_feature(enable = "avx512f")]
fn everywhere(block: &[u8; BLOCK]) -> Vector {
    _mm512_broadcast_i32x4(load128(block))
}

/// In each block place four by four words, mirrored at the diagonal.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed([r0, r1, r2, r3]: [Vector; 4]) -> [Vector; 4] {
    let (a0, a1) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
    let (a2, a3) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
    [
        _mm512_unpacklo_epi64(a0, a2),
        _mm512_unpackhi_epi64(a0, a2),
        _mm512_unpacklo_epi64(a1, a3),
        _mm512_unpackhi_epi64(a1, a3),
    ]
}

/// The first block of a packet's key.
#[inline]
fn first(sessions: &Sessions, slot: usize) -> &[u8; BLOCK] {
    &sessions.blocks[slot].as_chunks().0[0]
}

/// The blocks of lane 4k+q into place k of vector q, so that words stand in the lanes when transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather<'a>(slots: &[u8; LANES], block: impl Fn(usize) -> &'a [u8; BLOCK]) -> [Vector; 4] {
    let mut vectors = [splat(0); 4];
    for (q, vector) in vectors.iter_mut().enumerate() {
        let lane = |k: usize| block(usize::from(slots[4 * k + q]));
        let (b0, b1) = (_mm512_castsi128_si512(load128(lane(0))), load128(lane(1)));
        let (low, b2, b3) = (_mm512_inserti32x4::<1>(b0, b1), load128(lane(2)), load128(lane(3)));
        *vector = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, b2), b3);
    }
    vectors
}

/// Writes what [`gather`] would read: the round key of lane 4k+q goes to place 4q+k.
#[inline]
#[target_feature(enable = "avx512f")]
fn scatter(vectors: [Vector; 4], round_keys: &mut [u8; GROUP * BLOCK]) {
    for (four, vector) in round_keys.as_chunks_mut().0.iter_mut().zip(vectors) {
        store512(four, vector);
    }
}

/// The place of a lane's round keys.
#[inline]
fn place_of(lane: usize) -> usize {
    lane % 4 * 4 + lane / 4
}

define_schedules!(Vector, "vaes,avx512f,avx512bw");

#[target_feature(enable = "vaes,avx512f,avx512bw,aes")]
fn derive(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    match origin.kd_prf {
        AesCtr::Null => null(origin, sessions, slot),
        AesCtr::Aes128 => derive_with::<10>(origin, sessions, slot),
        AesCtr::Aes192 => derive_with::<12>(origin, sessions, slot),
        AesCtr::Aes256 => derive_with::<14>(origin, sessions, slot),
    }
}

/// Adds the header to the counter block of session values.
#[inline]
#[target_feature(enable = "avx512f")]
fn with_header(values: Vector, origin: &Origin<'_>) -> Vector {
    let (ids, sequence) = place(origin.header);
    let header = _mm512_maskz_broadcast_i32x4(0x00f0, _mm_set_epi64x(sequence as i64, ids as i64));
    // The salt has fourteen octets; the two behind are the block counter.
    let salt = _mm512_set_epi64(-1, -1, -1, -1, 0x0000_ffff_ffff_ffff, -1, -1, -1);
    // (values and salt) xor header
    _mm512_ternarylogic_epi64::<0x6a>(values, salt, header)
}

#[target_feature(enable = "avx512f")]
fn null(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    store512(&mut sessions.blocks[slot], with_header(_mm512_setzero_si512(), origin));
    sessions.longer[slot] = [0; BLOCK];
}

#[inline]
#[target_feature(enable = "vaes,avx512f,avx512bw,aes")]
fn derive_with<const ROUNDS: usize>(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    let Master { round_keys, salt } = origin.master;
    let labels = Labels::by(origin.sender);
    let (low, high) = words(salt);
    let (_, sequence) = place(origin.header);
    let base = _mm_set_epi64x((high ^ sequence) as i64, low as i64);
    let mut blocks = xor(xor(_mm512_broadcast_i32x4(base), load512(&labels.blocks)), everywhere(&round_keys[0]));
    for round_key in &round_keys[1..ROUNDS] {
        blocks = _mm512_aesenc_epi128(blocks, everywhere(round_key));
    }
    blocks = last_round(blocks, everywhere(&round_keys[ROUNDS]));
    store512(&mut sessions.blocks[slot], with_header(blocks, origin));
    if origin.longer {
        let mut block = _mm_xor_si128(_mm_xor_si128(base, load128(&labels.longer)), load128(&round_keys[0]));
        for round_key in &round_keys[1..ROUNDS] {
            block = _mm_aesenc_si128(block, load128(round_key));
        }
        block = _mm_aesenclast_si128(block, load128(&round_keys[ROUNDS]));
        store128(&mut sessions.longer[slot], block);
    }
}

#[target_feature(enable = "vaes,avx512f,avx512bw,aes")]
fn expand_group(cipher: AesCtr, slots: &[u8], sessions: &Sessions, to: &mut Schedules) {
    let Some(&last) = slots.last() else { return };
    // Lanes without a packet go along with another.
    let slots = from_fn(|lane| slots.get(lane).copied().unwrap_or(last));
    let put = |round: usize, round_keys| scatter(round_keys, &mut to.0[round]);
    let first = gather(&slots, |slot| first(sessions, slot));
    let rest = || gather(&slots, |slot| &sessions.longer[slot]);
    match cipher {
        AesCtr::Null => {}
        AesCtr::Aes128 => schedules::<4>(first, [splat(0); 4], put),
        AesCtr::Aes192 => schedules::<6>(first, rest(), put),
        AesCtr::Aes256 => schedules::<8>(first, rest(), put),
    }
}

#[target_feature(enable = "vaes,avx512f,avx512bw,aes")]
fn crypt(
    cipher: AesCtr,
    slots: &[u8],
    sessions: &Sessions,
    schedules: &mut Schedules,
    bodies: &mut [&mut [u8]; PACKETS],
) {
    for group in slots.chunks(GROUP) {
        expand_group(cipher, group, sessions, schedules);
        for (lane, &slot) in group.iter().enumerate() {
            let slot = usize::from(slot);
            let counter = &sessions.blocks[slot].as_chunks().0[1];
            let (place, body) = (place_of(lane), &mut *bodies[slot]);
            match cipher {
                AesCtr::Null => {}
                AesCtr::Aes128 => keystream::<10>(schedules, place, counter, body),
                AesCtr::Aes192 => keystream::<12>(schedules, place, counter, body),
                AesCtr::Aes256 => keystream::<14>(schedules, place, counter, body),
            }
        }
    }
}

/// The state of one keystream.
struct Stream<const ROUNDS: usize> {
    /// The round keys after the first.
    round_keys: [Vector; ROUND_KEYS],
    /// The initial counter block and the first round key.
    start: Vector,
    /// The numbers of the next four blocks, in the last word of each.
    next: Vector,
    /// Moves such a number to where it stands in the block: the last two octets, big endian.
    to_block: Vector,
}

impl<const ROUNDS: usize> Stream<ROUNDS> {
    #[inline]
    #[target_feature(enable = "vaes,avx512f,avx512bw")]
    fn new(schedules: &Schedules, place: usize, counter: &[u8; BLOCK]) -> Self {
        let mut round_keys = [_mm512_setzero_si512(); ROUND_KEYS];
        for (vector, of_all) in round_keys[..=ROUNDS].iter_mut().zip(&schedules.0) {
            *vector = everywhere(&of_all.as_chunks().0[place]);
        }
        Self {
            start: xor(everywhere(counter), round_keys[0]),
            round_keys,
            next: _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0),
            to_block: _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_8080_8080_8080_u64 as i64, -1)),
        }
    }

    /// The next `K` times four blocks.
    #[inline]
    #[target_feature(enable = "vaes,avx512f,avx512bw")]
    fn take<const K: usize>(&mut self) -> [Vector; K] {
        let four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);
        let mut blocks = [four; K];
        for block in &mut blocks {
            *block = xor(self.start, shuffle(self.next, self.to_block));
            self.next = _mm512_add_epi32(self.next, four);
        }
        for round_key in &self.round_keys[1..ROUNDS] {
            for block in &mut blocks {
                *block = _mm512_aesenc_epi128(*block, *round_key);
            }
        }
        for block in &mut blocks {
            *block = last_round(*block, self.round_keys[ROUNDS]);
        }
        blocks
    }

    /// Xors at most `K` times 64 octets, and more than `K - 1` times.
    #[inline]
    #[target_feature(enable = "vaes,avx512f,avx512bw")]
    fn end<const K: usize>(&mut self, octets: &mut [u8]) {
        for (octets, keystream) in octets.chunks_mut(4 * BLOCK).zip(self.take::<K>()) {
            let text = load_part512(octets);
            store_part512(octets, xor(text, keystream));
        }
    }
}

/// Counter mode over a body of at most 2^16 blocks.
#[inline]
#[target_feature(enable = "vaes,avx512f,avx512bw")]
fn keystream<const ROUNDS: usize>(schedules: &Schedules, place: usize, counter: &[u8; BLOCK], body: &mut [u8]) {
    let mut stream = Stream::<ROUNDS>::new(schedules, place, counter);
    let (chunks, rest) = body.as_chunks_mut::<{ 16 * BLOCK }>();
    for chunk in chunks {
        let keystream = stream.take::<4>();
        for (octets, keystream) in chunk.as_chunks_mut().0.iter_mut().zip(keystream) {
            let text = load512(octets);
            store512(octets, xor(text, keystream));
        }
    }
    match rest.len().div_ceil(4 * BLOCK) {
        0 => {}
        1 => stream.end::<1>(rest),
        2 => stream.end::<2>(rest),
        3 => stream.end::<3>(rest),
        _ => stream.end::<4>(rest),
    }
}
