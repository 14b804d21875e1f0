//! ICMPv6 (RFC 4443).

/// Next header.
pub const PROTOCOL: u8 = 58;
/// Octets of the header of an error, behind which the packet is quoted that it is about.
pub const HEADER: usize = 8;
/// Offset of the checksum, which covers a pseudo-header too (RFC 8200 §8.1).
pub const CHECKSUM: usize = 2;
/// Offset of the MTU in [`PACKET_TOO_BIG`].
pub const MTU: usize = 4;

/// Type: echo request.
pub const ECHO: u8 = 128;
/// Type: answer to an echo request.
pub const ECHO_REPLY: u8 = 129;
/// Type: a field of the header cannot be understood.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Code of [`UNREACHABLE`]: there is no route.
pub const NO_ROUTE: u8 = 0;
/// Code of [`UNREACHABLE`]: communication is administratively prohibited.
pub const PROHIBITED: u8 = 1;
/// Code of [`UNREACHABLE`]: the address cannot be reached now.
pub const ADDRESS_UNREACHABLE: u8 = 3;

/// Whether a message of this type is an error or a redirection, neither of which is answered with an error (§2.4 e).
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    const REDIRECT: u8 = 137;
    kind < 128 || kind == REDIRECT
}
