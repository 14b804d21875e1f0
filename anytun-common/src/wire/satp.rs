//! The SATP header (protocol.md §2).

use super::Bytes;

/// Octets of the header that travel in clear: sequence number, sender ID, MUX.
pub const HEADER: usize = 8;
/// Octets of the payload type, the first of the encrypted part.
pub const PAYLOAD_TYPE: usize = 2;
/// Octets of the longest tag: a whole HMAC-SHA1.
pub const MAX_TAG: usize = 20;

/// The header of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Sequence number, per key and sender ID.
    pub sequence: u32,
    /// Tells apart the senders that share an anycast address.
    pub sender: u16,
    /// The client's number under its service.
    pub mux: u16,
}

impl Header {
    /// Reads the header at `offset`.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Option<Self> {
        let [s0, s1, s2, s3, i0, i1, m0, m1] = bytes.read::<HEADER>(offset)?;
        Some(Self {
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            sender: u16::from_be_bytes([i0, i1]),
            mux: u16::from_be_bytes([m0, m1]),
        })
    }

    /// The header as it stands on the wire.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; HEADER] {
        let ([s0, s1, s2, s3], [i0, i1], [m0, m1]) =
            (self.sequence.to_be_bytes(), self.sender.to_be_bytes(), self.mux.to_be_bytes());
        [s0, s1, s2, s3, i0, i1, m0, m1]
    }
}
