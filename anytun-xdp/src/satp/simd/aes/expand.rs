//! Key schedules (FIPS 197 §5.2) of several packets side by side.

use super::BLOCK;

/// Powers of x in the field of AES: the round constants.
pub(super) const CONSTANTS: [u32; 10] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];

/// The octets that the last round of AES, whose key is added behind it, has to get so that it substitutes each word and
/// leaves it where it is: ShiftRows undone. With `rotated` the octets of each word are also rotated by one.
pub(super) const fn unshifted(rotated: usize) -> [u8; BLOCK] {
    let mut octets = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        let (column, row) = (at / 4, at % 4);
        octets[at] = (4 * ((column + 4 - row) % 4) + (row + rotated) % 4) as u8;
        at += 1;
    }
    octets
}

/// Defines `schedules`, which makes the schedules of keys of `KEY` words in as many lanes as a vector has, from the
/// operations in scope: `xor`, `shuffle`, `last_round`, `splat`, `everywhere`, `transposed`.
macro_rules! define_schedules {
    ($vector:ty, $features:literal) => {
        /// Takes the first block of the key in each lane and what is behind it, and gives the round keys to `put` by
        /// round.
        #[inline]
        #[target_feature(enable = $features)]
        fn schedules<const KEY: usize>(
            first: [$vector; 4],
            rest: [$vector; 4],
            mut put: impl FnMut(usize, [$vector; 4]),
        ) {
            let count = 4 * (KEY + 7);
            let rotate = everywhere(&const { expand::unshifted(1) });
            let keep = everywhere(&const { expand::unshifted(0) });
            let mut w = [splat(0); 4 * ROUND_KEYS];
            w[..4].copy_from_slice(&transposed(first));
            w[4..8].copy_from_slice(&transposed(rest));
            for i in KEY..count {
                let last = w[i - 1];
                let changed = if i % KEY == 0 {
                    last_round(shuffle(last, rotate), splat(expand::CONSTANTS[i / KEY - 1]))
                } else if KEY == 8 && i % KEY == 4 {
                    last_round(shuffle(last, keep), splat(0))
                } else {
                    last
                };
                w[i] = xor(w[i - KEY], changed);
            }
            for round in 0..count / 4 {
                put(round, transposed([w[4 * round], w[4 * round + 1], w[4 * round + 2], w[4 * round + 3]]));
            }
        }
    };
}
pub(super) use define_schedules;
