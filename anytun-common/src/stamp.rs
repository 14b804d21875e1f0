//! What every packet of the generator carries: who sent it, which one it is and when it left, so that the sink can tell
//! lost, repeated, late and changed packets. Written by the XDP program of the generator and by its user half.

use crate::wire::Bytes;

/// The first octet of the magic number of a packet that is only counted.
pub const DATA: u8 = 0xa7;
/// That of a packet that the sink answers.
pub const PROBE: u8 = 0xa8;
/// That of an answer.
pub const ANSWER: u8 = 0xa9;

/// Sequence numbers after which the pattern of a flow repeats. A power of two.
pub const PATTERNS: u32 = 16;

/// The start of a payload. On the wire all numbers are big endian, and a check value over them follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// [`DATA`], [`PROBE`] or [`ANSWER`], then the phase of the run: packets of another phase are none of its own.
    pub magic: [u8; 2],
    /// The flow.
    pub flow: u16,
    /// Counts up from 0 within flow and phase.
    pub sequence: u32,
    /// When it was made, in nanoseconds of `CLOCK_MONOTONIC`; 0 when it was made before the run.
    pub timestamp: u64,
}

impl Stamp {
    /// Octets on the wire, with the check value.
    pub const OCTETS: usize = 20;

    /// As it stands on the wire.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; Self::OCTETS] {
        let [m0, m1] = self.magic;
        let [f0, f1] = self.flow.to_be_bytes();
        let [s0, s1, s2, s3] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.check().to_be_bytes();
        [m0, m1, f0, f1, s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3]
    }

    /// Reads the stamp at `offset`; nothing when there is none or it was changed on the way.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Option<Self> {
        let b = bytes.read::<{ Self::OCTETS }>(offset)?;
        let stamp = Self {
            magic: [b[0], b[1]],
            flow: u16::from_be_bytes([b[2], b[3]]),
            sequence: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            timestamp: u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        };
        (u32::from_be_bytes([b[16], b[17], b[18], b[19]]) == stamp.check()).then_some(stamp)
    }

    /// The octets behind the stamp are those of this word, big endian, again and again.
    #[inline(always)]
    pub const fn pattern(&self) -> [u8; 8] {
        let seed = (self.flow as u64) << 32 | (self.sequence % PATTERNS) as u64;
        mix(seed).to_be_bytes()
    }

    /// A hash of the fields: a change of one bit is always seen, any other misses with one in 2^32.
    const fn check(&self) -> u32 {
        let [m0, m1] = self.magic;
        let who = (m0 as u64) << 56 | (m1 as u64) << 48 | (self.flow as u64) << 32 | self.sequence as u64;
        let hash = mix(mix(who) ^ self.timestamp);
        hash as u32
    }
}

/// Spreads every bit over all others: the finaliser of SplitMix64 without its last step.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { magic: [DATA, 3], flow: 59_999, sequence: 0xdead_beef, timestamp: 1_234_567_890_123_456_789 };

    #[test]
    fn what_is_written_is_read() {
        let mut packet = [0; 3 + Stamp::OCTETS];
        packet[3..].copy_from_slice(&STAMP.to_bytes());
        assert_eq!(Stamp::read(&packet[..], 3), Some(STAMP));
        assert_eq!(Stamp::read(&packet[..], 4), None, "the end is nearer");
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..Stamp::OCTETS * 8 {
            let mut octets = STAMP.to_bytes();
            octets[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&octets[..], 0), None, "bit {bit}");
        }
    }

    #[test]
    fn patterns_tell_flows_and_neighbouring_packets_apart() {
        let pattern = |flow, sequence| Stamp { flow, sequence, ..STAMP }.pattern();
        for sequence in 0..PATTERNS {
            for other in sequence + 1..PATTERNS {
                assert_ne!(pattern(1, sequence), pattern(1, other));
            }
            assert_ne!(pattern(1, sequence), pattern(2, sequence));
            assert_eq!(pattern(1, sequence), pattern(1, sequence + PATTERNS));
        }
    }
}
