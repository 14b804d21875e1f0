//! IPv6 (RFC 8200).

/// Octets of the fixed header.
pub const HEADER: usize = 40;
/// Offset of the payload length.
pub const PAYLOAD_LENGTH: usize = 4;
/// Offset of the next header.
pub const NEXT_HEADER: usize = 6;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SOURCE: usize = 8;
/// Offset of the destination address.
pub const DESTINATION: usize = 24;
/// Next header: hop-by-hop options (§4.3).
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing (§4.4).
pub const ROUTING: u8 = 43;
/// Next header: fragment (§4.5).
pub const FRAGMENT: u8 = 44;
/// Mask of the offset in the third and fourth octet of that header (RFC 8200 §4.5); 0 in the first fragment.
pub const OFFSET_MASK: u16 = 0xfff8;
/// Next header: authentication (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Next header: destination options (§4.6).
pub const DESTINATION_OPTIONS: u8 = 60;
/// Octets that every link carries (§5).
pub const LEAST_MTU: usize = 1280;

/// The traffic class (DSCP and ECN) of the first two octets of a header.
#[inline(always)]
pub const fn traffic_class(first: u8, second: u8) -> u8 {
    first << 4 | second >> 4
}

/// Writes a traffic class into a header; leaves version and flow label as they are.
#[inline(always)]
pub const fn set_traffic_class(header: &mut [u8; HEADER], class: u8) {
    header[0] = header[0] & 0xf0 | class >> 4;
    header[1] = header[1] & 0x0f | class << 4;
}
