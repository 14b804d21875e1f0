//! ICMP (RFC 792).

/// Protocol number.
pub const PROTOCOL: u8 = 1;
/// Octets of the header of an error, behind which the packet is quoted that it is about.
pub const HEADER: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of the MTU of the next hop in [`FRAGMENTATION_NEEDED`] (RFC 1191 §4).
pub const MTU: usize = 6;

/// Offset of the identifier of an echo message.
pub const IDENTIFIER: usize = 4;

/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// Type: echo request.
pub const ECHO: u8 = 8;
/// Type: a field of the header cannot be understood.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Code of [`UNREACHABLE`]: there is no route (RFC 1812 §5.2.7.1).
pub const NETWORK_UNREACHABLE: u8 = 0;
/// Code of [`UNREACHABLE`]: there is a route, but the host cannot be reached now.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: larger than the MTU of the next hop, and must not be fragmented.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`UNREACHABLE`]: communication is administratively prohibited (RFC 1812 §5.2.7.1).
pub const PROHIBITED: u8 = 13;

/// Whether a message of this type is a question or an answer to one, not an error and not a redirection. Types that nobody
/// has assigned are none (RFC 792, 950, 1256, 8335).
#[inline(always)]
pub const fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43)
}
