//! What changed under a checksum.

use std::ops::AddAssign;

use anytun_common::wire::checksum;

/// The sum of words that were written less the sum of those that stood there (RFC 1624 equation 3). All at even places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change(u64);

impl AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Change {
    /// Writes an even number of octets, if they fit.
    #[inline]
    pub(super) fn put<const N: usize>(&mut self, bytes: &mut [u8], at: usize, new: &[u8; N]) {
        let Some(old) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) else { return };
        *self += Self::between(old, new);
        *old = *new;
    }

    /// From some octets to as many others, an even number.
    #[inline]
    pub(super) fn between(old: &[u8], new: &[u8]) -> Self {
        Self(u64::from(!checksum::fold(checksum::add(0, old))) + checksum::add(0, new))
    }

    /// The checksum over what changed.
    #[inline]
    pub(super) fn repaired(self, checksum: u16) -> u16 {
        !checksum::fold(u64::from(!checksum) + self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repaired_checksum_is_that_of_the_new_bytes() {
        let mut bytes: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(37) | 1).collect();
        let mut sum = checksum::of(&bytes);
        let mut check = |change: fn(&mut Change, &mut [u8])| {
            let mut changed = Change::default();
            change(&mut changed, &mut bytes);
            sum = changed.repaired(sum);
            assert_eq!(sum, checksum::of(&bytes));
        };
        check(|change, bytes| change.put(bytes, 0, &[1, 2, 3, 4]));
        check(|change, bytes| change.put(bytes, 12, &[0, 0]));
        check(|change, bytes| change.put(bytes, 20, &[0xff; 16]));
        check(|change, bytes| change.put(bytes, 62, &[9, 9]));
        check(|change, bytes| change.put(bytes, 63, &[1, 1]));
        assert_eq!(bytes[63], 9, "what does not fit is not written");
    }
}
