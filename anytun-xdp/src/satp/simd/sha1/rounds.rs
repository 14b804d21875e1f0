//! The compression function of SHA-1 (FIPS 180-4 §6.1.2) on vectors with one chain in each lane.

/// The initial hash value.
pub(super) const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// Defines `compress`, which takes the chains of `h` through the blocks `w`, 80 rounds, from the operations on vectors that
/// are in scope: `add`, `xor`, `xor3`, `rotate`, `choose`, `parity`, `majority`, `splat`.
// rustfmt moves macros within macros further to the right each time.
#[rustfmt::skip]
macro_rules! define_compress {
    ($vector:ty, $features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn compress(h: [$vector; 5], mut w: [$vector; 16]) -> [$vector; 5] {
            let [mut a, mut b, mut c, mut d, mut e] = h;
            // The number of a round has to be known when this is compiled, so that `w` stays in registers.
            macro_rules! round {
                ($f:ident, $k:ident, $t:expr, $a:ident, $b:ident, $c:ident, $d:ident, $e:ident) => {
                    if $t >= 16 {
                        let older = xor3(w[($t + 13) & 15], w[($t + 8) & 15], w[($t + 2) & 15]);
                        w[$t & 15] = rotate::<1>(xor(older, w[$t & 15]));
                    }
                    // What waits for the round before comes last.
                    let word = add(add($e, $k), w[$t & 15]);
                    $e = add(add(word, $f($b, $c, $d)), rotate::<5>($a));
                    $b = rotate::<30>($b);
                };
            }
            macro_rules! twenty {
                ($f:ident, $k:literal, $from:literal) => {
                    let k = splat($k);
                    twenty!(five $f, k, $from);
                    twenty!(five $f, k, ($from + 5));
                    twenty!(five $f, k, ($from + 10));
                    twenty!(five $f, k, ($from + 15));
                };
                (five $f:ident, $k:ident, $t:expr) => {
                    round!($f, $k, $t, a, b, c, d, e);
                    round!($f, $k, ($t + 1), e, a, b, c, d);
                    round!($f, $k, ($t + 2), d, e, a, b, c);
                    round!($f, $k, ($t + 3), c, d, e, a, b);
                    round!($f, $k, ($t + 4), b, c, d, e, a);
                };
            }
            twenty!(choose, 0x5a82_7999, 0);
            twenty!(parity, 0x6ed9_eba1, 20);
            twenty!(majority, 0x8f1b_bcdc, 40);
            twenty!(parity, 0xca62_c1d6, 60);
            [add(h[0], a), add(h[1], b), add(h[2], c), add(h[3], d), add(h[4], e)]
        }
    };
}
pub(super) use define_compress;
