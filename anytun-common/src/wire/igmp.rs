//! IGMP (RFC 1112 appendix I, RFC 2236, RFC 3376).

/// Protocol number.
pub const PROTOCOL: u8 = 2;
/// Octets of a message but for sources and records.
pub const HEADER: usize = 8;
/// Offset of the checksum, which covers the message only.
pub const CHECKSUM: usize = 2;
/// Offset of the group in a query, and in messages about one group.
pub const GROUP: usize = 4;
/// Offset of the number of records in [`V3_REPORT`].
pub const RECORDS: usize = 6;

/// Type: membership query, of all versions.
pub const QUERY: u8 = 0x11;
/// Type: membership report of version 1.
pub const V1_REPORT: u8 = 0x12;
/// Type: membership report of version 2.
pub const V2_REPORT: u8 = 0x16;
/// Type: leave group, of version 2.
pub const LEAVE: u8 = 0x17;
/// Type: membership report of version 3.
pub const V3_REPORT: u8 = 0x22;
