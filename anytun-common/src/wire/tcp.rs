//! TCP (RFC 9293).

/// Protocol number.
pub const PROTOCOL: u8 = 6;
/// Octets of a header without options.
pub const HEADER: usize = 20;
/// Offset of the length of the header, in words of 4 octets, in the upper half of the octet.
pub const DATA_OFFSET: usize = 12;
/// Offset of the flags.
pub const FLAGS: usize = 13;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;
/// Flag: synchronize.
pub const SYN: u8 = 0x02;

/// Option kind: end of the list.
pub const END: u8 = 0;
/// Option kind: no operation, one octet.
pub const NOP: u8 = 1;
/// Option kind: maximum segment size.
pub const MSS: u8 = 2;
/// Octets of the option [`MSS`].
pub const MSS_LENGTH: u8 = 4;
