//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Adds `bytes` as big-endian words; an odd last octet counts as the high one of its word. The sum of up to 64 KiB of
/// octets and of several such calls fits.
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    // In the machine's order, and turned around once at the end (RFC 1071 §2 B).
    let mut native = 0;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        native += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    native += match *words.remainder() {
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c] => u64::from(u32::from_ne_bytes([a, b, c, 0])),
        _ => 0,
    };
    sum + u64::from(u16::from_be(fold(native)))
}

/// Adds four octets, given as the number they are in big-endian order: [`fold`] takes the upper word along.
#[inline(always)]
pub const fn add_quad(sum: u64, quad: u32) -> u64 {
    sum + quad as u64
}

/// Folds a sum to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + carry as u32;
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    sum + carry as u16
}

/// The checksum of `bytes` whose own checksum field is zero; of bytes with a right checksum it is zero.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    !fold(add(0, bytes))
}

/// The checksum after one 16-bit word under it changed (RFC 1624 equation 3).
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// The checksum after a 16-bit word under it got less by `difference` (RFC 1141 §2), which is not 0xffff itself. Never 0xffff,
/// which stands for the same as 0.
#[inline(always)]
pub const fn update_less(checksum: u16, difference: u16) -> u16 {
    let sum = checksum as u32 + difference as u32;
    (sum + (sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3 example: the words sum to 2ddf0 before folding.
    #[test]
    fn rfc1071_example() {
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    /// RFC 1624 §4 example: 0x5555 becomes 0x3285 under checksum 0xdd2f, which becomes 0x0000.
    #[test]
    fn rfc1624_example() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn every_tail_length_is_padded_with_zero() {
        let bytes = [0xff, 0x01, 0x80, 0x7f, 0xee, 0x10, 0x99];
        for length in 0..=bytes.len() {
            let mut padded = [0u8; 8];
            padded[..length].copy_from_slice(&bytes[..length]);
            assert_eq!(of(&bytes[..length]), of(&padded), "length {length}");
        }
    }

    #[test]
    fn an_update_equals_a_new_sum() {
        let mut header: [u8; 20] =
            [0x45, 0, 0, 0x54, 0xc1, 0x9f, 0x40, 0, 0x40, 1, 0x64, 0xf5, 10, 9, 0, 1, 10, 9, 0, 2];
        assert_eq!(of(&header), 0, "the fixture is a captured header");
        for ttl in (1..=0x40u8).rev() {
            let old = u16::from_be_bytes([header[8], header[9]]);
            header[8] = ttl - 1;
            let new = u16::from_be_bytes([header[8], header[9]]);
            let checksum = update(u16::from_be_bytes([header[10], header[11]]), old, new);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(of(&header), 0, "TTL {}", ttl - 1);
        }
    }

    /// As if the word were replaced, for every checksum; and never the zero that no computation gives.
    #[test]
    fn a_word_that_gets_less_is_a_word_that_changed() {
        for checksum in 0..=u16::MAX {
            for (old, difference) in
                [(0x4011, 0x0100), (0x0111, 0x0100), (0xff06, 0x0100), (0x8000, 0x8000), (0xffff, 0xfffe), (7, 7)]
            {
                let lessened = update_less(checksum, difference);
                let replaced = update(checksum, old, old - difference);
                assert_ne!(lessened, u16::MAX);
                assert!(lessened == replaced || (lessened, replaced) == (0, u16::MAX), "{checksum:#x} {old:#x}");
            }
        }
    }
}
