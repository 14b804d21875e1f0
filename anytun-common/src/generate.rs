//! What the XDP programs of the generator and its user half share: prepared packets, orders, and what was counted.
//!
//! Values of maps are structures of 64-bit words, which the user half reads and writes as arrays of words.

/// Defines a value of a map that consists of 64-bit words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[repr(C)]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// How many words there are.
            pub const WORDS: usize = [$(stringify!($field)),*].len();

            /// The words, in the order of the fields.
            pub const fn to_words(self) -> [u64; Self::WORDS] {
                [$(self.$field),*]
            }

            /// The value with these words.
            pub const fn from_words([$($field),*]: [u64; Self::WORDS]) -> Self {
                Self { $($field),* }
            }
        }
    };
}

/// A packet that was prepared for the sender. In the map it stands before the frame, as 16-bit numbers in the order of
/// the processor.
///
/// Where the payload travels in clear, the program writes sequence numbers and the time into the frame and completes the
/// checksums; where it is sealed, the frame goes out as it is, and only once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Octets of the frame.
    pub length: u16,
    /// Offset of the [`Stamp`](crate::stamp::Stamp) in the frame; 0 when the frame goes out as it is.
    pub stamp_at: u16,
    /// Offset of the UDP checksum next to the stamp; 0 for one that is left out.
    pub check_at: u16,
    /// Sum of all it covers but the stamp and the checksum itself, folded.
    pub sum: u16,
    /// Offset of a SATP header whose sequence number is counted up; 0 for none.
    pub satp_at: u16,
    /// Offset of the outer UDP checksum of a SATP packet; 0 for one that is left out.
    pub outer_at: u16,
    /// Sum of all that one covers but the stamp, the inner checksum, the sequence number and the checksum itself, folded.
    pub outer_sum: u16,
    /// The flow.
    pub flow: u16,
}

impl Slot {
    /// Octets in the map, before the frame.
    pub const OCTETS: usize = 16;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::OCTETS] {
        let words = [
            self.length,
            self.stamp_at,
            self.check_at,
            self.sum,
            self.satp_at,
            self.outer_at,
            self.outer_sum,
            self.flow,
        ];
        let mut octets = [0; Self::OCTETS];
        for (pair, word) in octets.chunks_exact_mut(2).zip(words) {
            pair.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// Reads what stands in the map.
    #[inline(always)]
    pub const fn from_bytes(b: [u8; Self::OCTETS]) -> Self {
        Self {
            length: u16::from_ne_bytes([b[0], b[1]]),
            stamp_at: u16::from_ne_bytes([b[2], b[3]]),
            check_at: u16::from_ne_bytes([b[4], b[5]]),
            sum: u16::from_ne_bytes([b[6], b[7]]),
            satp_at: u16::from_ne_bytes([b[8], b[9]]),
            outer_at: u16::from_ne_bytes([b[10], b[11]]),
            outer_sum: u16::from_ne_bytes([b[12], b[13]]),
            flow: u16::from_ne_bytes([b[14], b[15]]),
        }
    }
}

words! {
    /// What the sender is to do.
    Orders {
        /// The interface to send out of.
        ifindex,
        /// How long it sends from its first run on, in nanoseconds.
        duration,
        /// Packets a second at the start; 0 for as many as can be.
        rate,
        /// By how much the rate grows in a second, in two's complement.
        growth,
        /// Packets that may be behind the schedule; what is more is left out.
        slack,
        /// Slots in use.
        slots,
        /// Flows: as many slots make one round of sequence numbers.
        flows,
        /// 1 if the slots may be used again and again.
        again,
        /// The magic number of the stamps.
        magic,
        /// The first sequence number of the SATP headers.
        first,
    }
}

words! {
    /// How far the sender is.
    Progress {
        /// Packets sent.
        sent,
        /// Packets that were left out because the sender was too slow for the schedule.
        skipped,
        /// The next slot.
        slot,
        /// Packets of this round of sequence numbers.
        column,
        /// The next sequence number.
        sequence,
        /// 1 when all slots were used and none may be used again.
        exhausted,
        /// When it was first run, in nanoseconds of `CLOCK_MONOTONIC`; 0 before.
        began,
        /// When the last packet was made.
        last,
    }
}

words! {
    /// Which packets of an interface are the generator's, and what happens to them. All others go to the kernel.
    Rule {
        /// The interface; 0 for a rule that is not in use.
        ifindex,
        /// The lowest UDP destination port.
        low,
        /// The highest.
        high,
        /// The UDP source port; 0 for any.
        source,
        /// 1 to count and drop, 0 to hand over to an AF_XDP socket.
        count,
        /// Offset of the stamp in the UDP payload; [`Rule::SEALED`] when it cannot be seen.
        stamp_at,
        /// The magic number that is counted; that of other packets makes them foreign.
        magic,
        /// The place in the counters.
        phase,
    }
}

impl Rule {
    /// [`stamp_at`](Rule::stamp_at) of packets whose payload is sealed.
    pub const SEALED: u64 = u64::MAX;
}

words! {
    /// What arrived in a phase on one processor.
    Arrived {
        /// Packets.
        packets,
        /// Octets of their frames.
        octets,
        /// Packets to the right port that were not of the phase.
        foreign,
        /// When the first came, in nanoseconds of `CLOCK_MONOTONIC`.
        first,
        /// When the last came.
        last,
    }
}

/// Interfaces that the sink's program can be attached to.
pub const INTERFACES: u32 = 2;
/// Phases that are counted apart; the number of a phase is taken modulo this.
pub const PHASES: u32 = 256;
/// Octets of a slot, by the map it is in: the frame has [`Slot::OCTETS`] less.
pub const SLOT_SIZES: [usize; 5] = [128, 256, 512, 1024, 2048];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_it_was_written() {
        let slot = Slot {
            length: 1,
            stamp_at: 2,
            check_at: 3,
            sum: 4,
            satp_at: 5,
            outer_at: 6,
            outer_sum: 0xfedc,
            flow: 60_000,
        };
        assert_eq!(Slot::from_bytes(slot.to_bytes()), slot);
    }

    #[test]
    fn words_are_the_fields_in_order() {
        let words = [1, 2, 3, 4, 5];
        assert_eq!(Arrived::from_words(words).to_words(), words);
        assert_eq!(Arrived::from_words(words).foreign, 3);
        assert_eq!(size_of::<Arrived>(), 8 * Arrived::WORDS);
    }
}
