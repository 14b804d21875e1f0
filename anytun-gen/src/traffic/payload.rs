//! The payload of a packet: a prefix that the way wants, the stamp, and a pattern up to the end.

use anytun_common::stamp::{ANSWER, DATA, PROBE, Stamp};
use anytun_common::wire::checksum;

/// Writes stamp and pattern, and returns the sum of both for a checksum. There must be room for the stamp.
#[inline]
pub fn write(payload: &mut [u8], stamp: &Stamp) -> u64 {
    let octets = stamp.to_bytes();
    let (head, tail) = payload.split_at_mut(Stamp::OCTETS);
    head.copy_from_slice(&octets);
    let word = stamp.pattern();
    let mut chunks = tail.chunks_exact_mut(word.len());
    let whole = chunks.len() as u64;
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word);
    }
    let rest = chunks.into_remainder();
    let part = &word[..rest.len()];
    rest.copy_from_slice(part);
    checksum::add(checksum::add(0, &octets) + whole * checksum::add(0, &word), part)
}

/// Whether a payload begins like a stamp; without that it is somebody else's.
#[inline]
pub fn is_stamped(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(&(DATA | PROBE | ANSWER)))
}

/// The stamp of a payload; nothing when a bit of it or of the pattern is not as it was written.
#[inline]
pub fn read(payload: &[u8]) -> Option<Stamp> {
    let stamp = Stamp::read(payload, 0)?;
    let word = stamp.pattern();
    let mut chunks = payload[Stamp::OCTETS..].chunks_exact(word.len());
    let whole = chunks.by_ref().all(|chunk| chunk == word);
    let rest = chunks.remainder();
    (whole && *rest == word[..rest.len()]).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(length: usize) -> Vec<u8> {
        let stamp = Stamp { magic: [DATA, 9], flow: 7, sequence: 1_000_003, timestamp: 42 << 40 };
        let mut payload = vec![0xff; length];
        let sum = write(&mut payload, &stamp);
        assert_eq!(checksum::fold(sum), checksum::fold(checksum::add(0, &payload)), "{length} octets");
        assert_eq!(read(&payload), Some(stamp), "{length} octets");
        payload
    }

    #[test]
    fn what_is_written_is_read_and_its_sum_is_right() {
        for length in (Stamp::OCTETS..60).chain([1472]) {
            written(length);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let payload = written(61);
        for bit in 0..payload.len() * 8 {
            let mut changed = payload.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&changed), None, "bit {bit}");
        }
        for length in 0..Stamp::OCTETS {
            assert_eq!(read(&payload[..length]), None);
        }
    }
}
