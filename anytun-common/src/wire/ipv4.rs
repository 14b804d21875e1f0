//! IPv4 (RFC 791).

/// Octets of a header without options.
pub const HEADER: usize = 20;
/// Offset of type of service: DSCP and ECN (RFC 2474, RFC 3168).
pub const TOS: usize = 1;
/// Offset of the total length.
pub const TOTAL_LENGTH: usize = 2;
/// Offset of the identification.
pub const IDENTIFICATION: usize = 4;
/// Offset of flags and fragment offset.
pub const FLAGS: usize = 6;
/// Offset of the time to live.
pub const TTL: usize = 8;
/// Offset of the protocol.
pub const PROTOCOL: usize = 9;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

/// Flag: do not fragment, in the big-endian word at [`FLAGS`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag "more fragments" and the fragment offset: not zero in every fragment.
pub const FRAGMENT_MASK: u16 = 0x3fff;
/// Flag: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in units of 8 octets.
pub const OFFSET_MASK: u16 = 0x1fff;
