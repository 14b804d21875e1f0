//! One block in each 128-bit register.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::AesNi;
use super::super::memory::{load128, store128};
use super::expand::{self, define_schedules};
use super::{BLOCK, Blocks, GROUP, Labels, Master, Origin, PACKETS, ROUND_KEYS, Schedules, Sessions, place, words};
use crate::satp::AesCtr;

/// Packets whose schedules are made together.
const LANES: usize = 4;

type Vector = __m128i;

impl AesNi {
    /// The round keys of one key, which is given in two blocks; its length is that for `kd_prf`.
    pub(super) fn expand(self, kd_prf: AesCtr, key: &[[u8; BLOCK]; 2]) -> [[u8; BLOCK]; ROUND_KEYS] {
        // SAFETY: the token says that the CPU has the features.
        unsafe { expand_one(kd_prf, key) }
    }
}

impl Blocks for AesNi {
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
#[target_feature(enable = "sse2")]
fn xor(a: Vector, b: Vector) -> Vector {
    _mm_xor_si128(a, b)
}

#[inline]
#[target_feature(enable = "ssse3")]
fn shuffle(a: Vector, by: Vector) -> Vector {
    _mm_shuffle_epi8(a, by)
}

#[inline]
#[target_feature(enable = "aes")]
fn last_round(a: Vector, key: Vector) -> Vector {
    _mm_aesenclast_si128(a, key)
}

#[inline]
#[target_feature(enable = "sse2")]
fn splat(word: u32) -> Vector {
    _mm_set1_epi32(word as i32)
}

#[inline]
#[target_feature(enable = "sse2")]
fn everywhere(block: &[u8; BLOCK]) -> Vector {
    load128(block)
}

/// Four by four words, mirrored at the diagonal.
#[inline]
#[target_feature(enable = "sse2")]
fn transposed([r0, r1, r2, r3]: [Vector; 4]) -> [Vector; 4] {
    let (a0, a1) = (_mm_unpacklo_epi32(r0, r1), _mm_unpackhi_epi32(r0, r1));
    let (a2, a3) = (_mm_unpacklo_epi32(r2, r3), _mm_unpackhi_epi32(r2, r3));
    [_mm_unpacklo_epi64(a0, a2), _mm_unpackhi_epi64(a0, a2), _mm_unpacklo_epi64(a1, a3), _mm_unpackhi_epi64(a1, a3)]
}

/// The first block of a packet's key.
#[inline]
fn first(sessions: &Sessions, slot: usize) -> &[u8; BLOCK] {
    &sessions.blocks[slot].as_chunks().0[0]
}

/// The blocks of all lanes.
#[inline]
#[target_feature(enable = "sse2")]
fn gather<'a>(slots: &[u8; LANES], block: impl Fn(usize) -> &'a [u8; BLOCK]) -> [Vector; 4] {
    let mut vectors = [splat(0); 4];
    for (vector, slot) in vectors.iter_mut().zip(slots) {
        *vector = load128(block(usize::from(*slot)));
    }
    vectors
}

/// Writes the round keys of all lanes, from `place` on.
#[inline]
#[target_feature(enable = "sse2")]
fn scatter(vectors: [Vector; 4], round_keys: &mut [u8; GROUP * BLOCK], place: usize) {
    for (block, vector) in round_keys.as_chunks_mut().0[place..].iter_mut().zip(vectors) {
        store128(block, vector);
    }
}

define_schedules!(Vector, "aes,ssse3");

#[target_feature(enable = "aes,ssse3")]
fn derive(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    match origin.kd_prf {
        AesCtr::Null => {
            (sessions.blocks[slot], sessions.longer[slot]) = ([0; 4 * BLOCK], [0; BLOCK]);
            add_header(origin, sessions, slot);
        }
        AesCtr::Aes128 => derive_with::<10>(origin, sessions, slot),
        AesCtr::Aes192 => derive_with::<12>(origin, sessions, slot),
        AesCtr::Aes256 => derive_with::<14>(origin, sessions, slot),
    }
}

/// Makes the counter block of the salt.
#[inline]
#[target_feature(enable = "sse2")]
fn add_header(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    let (ids, sequence) = place(origin.header);
    let block = &mut sessions.blocks[slot].as_chunks_mut().0[1];
    // The salt has fourteen octets; the two behind are the block counter.
    let salt = _mm_and_si128(load128(block), _mm_set_epi64x(0x0000_ffff_ffff_ffff, -1));
    store128(block, xor(salt, _mm_set_epi64x(sequence as i64, ids as i64)));
}

#[inline]
#[target_feature(enable = "aes,ssse3")]
fn derive_with<const ROUNDS: usize>(origin: &Origin<'_>, sessions: &mut Sessions, slot: usize) {
    let Master { round_keys, salt } = origin.master;
    let labels = Labels::by(origin.sender);
    let (low, high) = words(salt);
    let (_, sequence) = place(origin.header);
    let base = xor(_mm_set_epi64x((high ^ sequence) as i64, low as i64), load128(&round_keys[0]));
    let of_blocks = labels.blocks.as_chunks().0;
    let mut blocks = [base; 4];
    for (block, labels) in blocks.iter_mut().zip(of_blocks) {
        *block = xor(base, load128(labels));
    }
    for round_key in &round_keys[1..ROUNDS] {
        let round_key = load128(round_key);
        for block in &mut blocks {
            *block = _mm_aesenc_si128(*block, round_key);
        }
    }
    let last = load128(&round_keys[ROUNDS]);
    for (to, block) in sessions.blocks[slot].as_chunks_mut().0.iter_mut().zip(blocks) {
        store128(to, last_round(block, last));
    }
    if origin.longer {
        let mut block = xor(base, load128(&labels.longer));
        for round_key in &round_keys[1..ROUNDS] {
            block = _mm_aesenc_si128(block, load128(round_key));
        }
        store128(&mut sessions.longer[slot], last_round(block, last));
    }
    add_header(origin, sessions, slot);
}

#[target_feature(enable = "aes,ssse3")]
fn expand_group(cipher: AesCtr, slots: &[u8], sessions: &Sessions, to: &mut Schedules) {
    for (group, slots) in slots.chunks(LANES).enumerate() {
        // Lanes without a packet go along with another.
        let slots = from_fn(|lane| slots[lane.min(slots.len() - 1)]);
        let put = |round: usize, round_keys| scatter(round_keys, &mut to.0[round], group * LANES);
        let first = gather(&slots, |slot| first(sessions, slot));
        let rest = || gather(&slots, |slot| &sessions.longer[slot]);
        match cipher {
            AesCtr::Null => {}
            AesCtr::Aes128 => schedules::<4>(first, [splat(0); 4], put),
            AesCtr::Aes192 => schedules::<6>(first, rest(), put),
            AesCtr::Aes256 => schedules::<8>(first, rest(), put),
        }
    }
}

#[target_feature(enable = "aes,ssse3")]
fn expand_one(kd_prf: AesCtr, key: &[[u8; BLOCK]; 2]) -> [[u8; BLOCK]; ROUND_KEYS] {
    let mut to = [[0; BLOCK]; ROUND_KEYS];
    let put = |round: usize, round_keys: [Vector; 4]| store128(&mut to[round], round_keys[0]);
    let (first, rest) = ([load128(&key[0]); 4], [load128(&key[1]); 4]);
    match kd_prf {
        AesCtr::Null => {}
        AesCtr::Aes128 => schedules::<4>(first, rest, put),
        AesCtr::Aes192 => schedules::<6>(first, rest, put),
        AesCtr::Aes256 => schedules::<8>(first, rest, put),
    }
    to
}

#[target_feature(enable = "aes,ssse3")]
fn crypt(
    cipher: AesCtr,
    slots: &[u8],
    sessions: &Sessions,
    schedules: &mut Schedules,
    bodies: &mut [&mut [u8]; PACKETS],
) {
    for group in slots.chunks(GROUP) {
        expand_group(cipher, group, sessions, schedules);
        for (place, &slot) in group.iter().enumerate() {
            let slot = usize::from(slot);
            let counter = &sessions.blocks[slot].as_chunks().0[1];
            let body = &mut *bodies[slot];
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
struct Stream<'a, const ROUNDS: usize> {
    schedules: &'a Schedules,
    place: usize,
    /// The initial counter block and the first round key.
    start: Vector,
    /// The number of the next block.
    next: u16,
}

impl<const ROUNDS: usize> Stream<'_, ROUNDS> {
    #[inline]
    #[target_feature(enable = "aes,ssse3")]
    fn round_key(&self, round: usize) -> Vector {
        load128(&self.schedules.0[round].as_chunks().0[self.place])
    }

    /// The next `K` blocks.
    #[inline]
    #[target_feature(enable = "aes,ssse3")]
    fn take<const K: usize>(&mut self) -> [Vector; K] {
        let mut blocks = [self.start; K];
        for block in &mut blocks {
            let number = _mm_insert_epi16::<7>(_mm_setzero_si128(), i32::from(self.next.to_be()));
            *block = xor(self.start, number);
            self.next = self.next.wrapping_add(1);
        }
        for round in 1..ROUNDS {
            let round_key = self.round_key(round);
            for block in &mut blocks {
                *block = _mm_aesenc_si128(*block, round_key);
            }
        }
        let last = self.round_key(ROUNDS);
        for block in &mut blocks {
            *block = last_round(*block, last);
        }
        blocks
    }

    #[inline]
    #[target_feature(enable = "aes,ssse3")]
    fn apply<const K: usize>(&mut self, blocks: &mut [[u8; BLOCK]]) {
        for (octets, keystream) in blocks.iter_mut().zip(self.take::<K>()) {
            let text = load128(octets);
            store128(octets, xor(text, keystream));
        }
    }
}

/// Counter mode over a body of at most 2^16 blocks.
#[inline]
#[target_feature(enable = "aes,ssse3")]
fn keystream<const ROUNDS: usize>(schedules: &Schedules, place: usize, counter: &[u8; BLOCK], body: &mut [u8]) {
    let start = xor(load128(counter), load128(&schedules.0[0].as_chunks().0[place]));
    let mut stream = Stream::<ROUNDS> { schedules, place, start, next: 0 };
    let (blocks, rest) = body.as_chunks_mut();
    let (eights, blocks) = blocks.as_chunks_mut::<8>();
    for eight in eights {
        stream.apply::<8>(eight);
    }
    let (fours, blocks) = blocks.as_chunks_mut::<4>();
    for four in fours {
        stream.apply::<4>(four);
    }
    // The last blocks, of which one may be shorter, go together.
    let mut end = [[0; BLOCK]; 4];
    let left = blocks.len() * BLOCK + rest.len();
    end[..blocks.len()].copy_from_slice(blocks);
    end[blocks.len()][..rest.len()].copy_from_slice(rest);
    if left > 0 {
        stream.apply::<4>(&mut end);
    }
    let whole = blocks.len();
    blocks.copy_from_slice(&end[..whole]);
    rest.copy_from_slice(&end[whole][..rest.len()]);
}
