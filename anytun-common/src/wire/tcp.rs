//! TCP (RFC 9293).

/// Octets of a header without options.
pub const HEADER: usize = 20;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;
/// Protocol number and IPv6 next header.
pub const PROTOCOL: u8 = 6;
