//! HMAC-SHA1 (RFC 2104) of up to [`PACKETS`] messages, each with its own key.
//!
//! A chain of SHA-1 waits for itself: every block needs the state the block before left. Many chains fill the units. A
//! batch is taken through in three steps: both pads of all keys, the messages, and the outer hash of all results. The first and
//! the last take one block of each chain, so they are done in full groups. Messages differ in length; there a lane whose
//! message ends takes the next from a queue, longest first. When lanes stay empty because the batch ends, the SHA instructions take the few that are left.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod ni;
#[cfg(target_arch = "x86_64")]
mod rounds;

use zeroize::Zeroize;

use super::PACKETS;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, ShaNi};

/// Octets of a key and of a result.
pub(in crate::satp) const DIGEST: usize = 20;
/// Octets of a block of the hash.
const BLOCK: usize = 64;

/// A state or key for each message, the first words of all messages first.
type Rows = [[u32; PACKETS]; 5];

/// The end of a message: what its last block leaves, the one bit, zero octets, the length in bits.
type Tail = [u8; 2 * BLOCK];

/// What computes SHA-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::satp) enum Sha1 {
    /// The `sha1` crate, message by message.
    Portable,
    /// Sixteen lanes; the SHA instructions, where there are any, take what is too little for these.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Option<ShaNi>),
    /// Eight lanes, likewise.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2, Option<ShaNi>),
    /// The SHA instructions on four chains.
    #[cfg(target_arch = "x86_64")]
    ShaNi(ShaNi),
}

impl Sha1 {
    /// What this CPU has, the fastest first.
    pub(in crate::satp) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = {
            let (avx512, avx2, ni) = (Avx512::detect(), Avx2::detect(), ShaNi::detect());
            [
                avx512.zip(ni).map(|(avx512, ni)| Sha1::Avx512(avx512, Some(ni))),
                avx512.map(|avx512| Sha1::Avx512(avx512, None)),
                avx2.zip(ni).map(|(avx2, ni)| Sha1::Avx2(avx2, Some(ni))),
                avx2.map(|avx2| Sha1::Avx2(avx2, None)),
                ni.map(Sha1::ShaNi),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vector = [];
        vector.into_iter().flatten().chain([Sha1::Portable])
    }

    /// A name for people.
    pub(in crate::satp) fn name(self) -> &'static str {
        match self {
            Sha1::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx512(_, Some(_)) => "avx512+sha-ni",
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx512(_, None) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx2(_, Some(_)) => "avx2+sha-ni",
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx2(_, None) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Sha1::ShaNi(_) => "sha-ni",
        }
    }
}

/// Computes HMAC-SHA1 of many messages. The memory is used again for every batch.
#[repr(align(64))]
pub(in crate::satp) struct Hmac {
    keys: Rows,
    inner: Rows,
    /// The result, when all is done.
    outer: Rows,
    tails: [Tail; PACKETS],
}

impl Default for Hmac {
    fn default() -> Self {
        Self {
            keys: [[0; PACKETS]; 5],
            inner: [[0; PACKETS]; 5],
            outer: [[0; PACKETS]; 5],
            tails: [[0; 2 * BLOCK]; PACKETS],
        }
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        self.keys.zeroize();
        self.inner.zeroize();
        self.outer.zeroize();
        self.tails.zeroize();
    }
}

impl Hmac {
    /// Sets the key of message `index`.
    #[inline]
    pub(in crate::satp) fn set_key(&mut self, index: usize, key: &[u8; DIGEST]) {
        for (row, word) in self.keys.iter_mut().zip(key.as_chunks().0) {
            row[index] = u32::from_be_bytes(*word);
        }
    }

    /// The HMAC of message `index`, after [`compute`](Self::compute).
    #[inline]
    pub(in crate::satp) fn result(&self, index: usize) -> [u8; DIGEST] {
        let mut octets = [0; DIGEST];
        for (word, row) in octets.as_chunks_mut().0.iter_mut().zip(&self.outer) {
            *word = row[index].to_be_bytes();
        }
        octets
    }

    /// Computes the HMAC of each message, at most [`PACKETS`], under the keys that were set for their indices.
    pub(in crate::satp) fn compute(&mut self, sha1: Sha1, messages: &[&[u8]]) {
        match sha1 {
            Sha1::Portable => self.portable(messages),
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx512(wide, Some(narrow)) => self.side_by_side::<16, 1>(wide, narrow, lanes::FEW_OF_16, messages),
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx512(wide, None) => self.side_by_side(wide, wide, 0, messages),
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx2(wide, Some(narrow)) => self.side_by_side::<8, 1>(wide, narrow, lanes::FEW_OF_8, messages),
            #[cfg(target_arch = "x86_64")]
            Sha1::Avx2(wide, None) => self.side_by_side(wide, wide, 0, messages),
            #[cfg(target_arch = "x86_64")]
            Sha1::ShaNi(wide) => self.side_by_side::<4, 4>(wide, wide, 0, messages),
        }
    }

    fn portable(&mut self, messages: &[&[u8]]) {
        for (index, message) in messages.iter().enumerate() {
            let mut key = [0; DIGEST];
            for (word, row) in key.as_chunks_mut().0.iter_mut().zip(&self.keys) {
                *word = row[index].to_be_bytes();
            }
            let result = super::super::keys::authenticate(&key, message);
            for (row, word) in self.outer.iter_mut().zip(result.as_chunks().0) {
                row[index] = u32::from_be_bytes(*word);
            }
        }
    }
}
