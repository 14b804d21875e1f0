//! MLD (RFC 2710, RFC 3810): messages of ICMPv6.

/// Octets of a message about one group, in version 1.
pub const HEADER: usize = 24;
/// Octets of a query of version 2 without sources.
pub const QUERY_HEADER: usize = 28;
/// Offset of the maximum response code.
pub const RESPONSE: usize = 4;
/// Offset of the group in a query, and in messages about one group.
pub const GROUP: usize = 8;
/// Offset of the number of records in [`V2_REPORT`].
pub const RECORDS: usize = 6;
/// Offset of the first record there.
pub const FIRST_RECORD: usize = 8;

/// Type: multicast listener query, of both versions.
pub const QUERY: u8 = 130;
/// Type: multicast listener report of version 1.
pub const V1_REPORT: u8 = 131;
/// Type: multicast listener done, of version 1.
pub const DONE: u8 = 132;
/// Type: multicast listener report of version 2.
pub const V2_REPORT: u8 = 143;
