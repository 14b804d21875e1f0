//! UDP (RFC 768).

/// Octets of the header.
pub const HEADER: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM: usize = 6;
/// Protocol number and IPv6 next header.
pub const PROTOCOL: u8 = 17;
