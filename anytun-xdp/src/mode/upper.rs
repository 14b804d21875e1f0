//! What an IP packet carries: the protocol behind its headers, and where that begins.

use anytun_common::wire::{Bytes, ipv4, ipv6};

/// Extension headers that are walked over. More than these are no sender's honest need.
const EXTENSIONS: usize = 8;

/// The upper layer of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// Its protocol number.
    pub protocol: u8,
    /// Where its header begins.
    pub offset: usize,
    /// Whether the packet is a fragment, so that the end of the upper layer may be elsewhere.
    pub fragment: bool,
    /// Whether it is a fragment other than the first, so that what is at the offset is no header.
    pub later: bool,
}

/// Finds the upper layer of an IPv4 or IPv6 packet. Nothing when the packet ends before.
#[inline]
pub fn find(packet: &[u8]) -> Option<Upper> {
    match packet.first()? >> 4 {
        4 => find_v4(packet),
        6 => find_v6(packet),
        _ => None,
    }
}

#[inline]
fn find_v4(packet: &[u8]) -> Option<Upper> {
    let h: [u8; ipv4::HEADER] = packet.read(0)?;
    let offset = usize::from(h[0] & 0x0f) * 4;
    let flags = u16::from_be_bytes([h[ipv4::FLAGS], h[ipv4::FLAGS + 1]]);
    let upper = Upper {
        protocol: h[ipv4::PROTOCOL],
        offset,
        fragment: flags & ipv4::FRAGMENT_MASK != 0,
        later: flags & ipv4::OFFSET_MASK != 0,
    };
    (offset >= ipv4::HEADER && offset <= packet.len()).then_some(upper)
}

#[inline]
fn find_v6(packet: &[u8]) -> Option<Upper> {
    let h: [u8; ipv6::HEADER] = packet.read(0)?;
    let mut upper = Upper { protocol: h[ipv6::NEXT_HEADER], offset: ipv6::HEADER, fragment: false, later: false };
    for _ in 0..EXTENSIONS {
        let unit = match upper.protocol {
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS | ipv6::FRAGMENT => 8,
            ipv6::AUTHENTICATION => 4,
            _ => return (upper.offset <= packet.len()).then_some(upper),
        };
        let h: [u8; 4] = packet.read(upper.offset)?;
        upper.offset += match upper.protocol {
            ipv6::FRAGMENT => {
                let offset = u16::from_be_bytes([h[2], h[3]]);
                upper.fragment |= offset & !0b110 != 0;
                upper.later |= offset & !0b111 != 0;
                8
            }
            ipv6::AUTHENTICATION => (usize::from(h[1]) + 2) * unit,
            _ => (usize::from(h[1]) + 1) * unit,
        };
        upper.protocol = h[0];
        if upper.later {
            return Some(upper);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet with `extensions` in front of `rest`.
    fn v6(first: u8, extensions: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; ipv6::HEADER];
        (packet[0], packet[ipv6::NEXT_HEADER]) = (0x60, first);
        packet.extend_from_slice(extensions);
        packet.extend_from_slice(rest);
        packet
    }

    fn upper(protocol: u8, offset: usize, fragment: bool, later: bool) -> Option<Upper> {
        Some(Upper { protocol, offset, fragment, later })
    }

    #[test]
    fn options_and_fragment_offsets_of_ipv4() {
        let mut packet = vec![0; 60];
        (packet[0], packet[ipv4::PROTOCOL]) = (0x45, 6);
        assert_eq!(find(&packet), upper(6, 20, false, false));
        packet[0] = 0x48;
        packet[6] = 0x40;
        assert_eq!(find(&packet), upper(6, 32, false, false), "DF is no fragment");
        packet[6] = 0x20;
        assert_eq!(find(&packet), upper(6, 32, true, false));
        packet[6..8].copy_from_slice(&[0, 1]);
        assert_eq!(find(&packet), upper(6, 32, true, true));
        for length in 0..32 {
            assert_eq!(find(&packet[..length]), None);
        }
        packet[0] = 0x44;
        assert_eq!(find(&packet), None);
        packet[0] = 0x55;
        assert_eq!(find(&packet), None);
    }

    #[test]
    fn every_extension_header_has_its_own_unit() {
        assert_eq!(find(&v6(6, &[], &[0; 20])), upper(6, 40, false, false));
        let mut options = [0; 16];
        options[..2].copy_from_slice(&[58, 1]);
        for kind in [0, 43, 60] {
            assert_eq!(find(&v6(kind, &options, &[0; 8])), upper(58, 56, false, false), "next header {kind}");
        }
        // RFC 4302 §2.2: the length is in words of 4 octets less 2, 24 octets with an ICV of 96 bits.
        let mut authentication = [0; 24];
        authentication[..2].copy_from_slice(&[6, 4]);
        assert_eq!(find(&v6(51, &authentication, &[0; 8])), upper(6, 64, false, false));
    }

    #[test]
    fn fragments_of_ipv6() {
        for (offset, fragment, later) in [
            ([0, 0], false, false),
            ([0, 1], true, false),
            ([0, 8], true, true),
            ([0, 9], true, true),
            ([0, 6], false, false),
        ] {
            let header = [17, 0, offset[0], offset[1], 1, 2, 3, 4];
            assert_eq!(find(&v6(44, &header, &[0; 8])), upper(17, 48, fragment, later), "{offset:?}");
        }
    }

    #[test]
    fn a_chain_that_has_no_end_is_given_up() {
        let endless = [0_u8; 8].repeat(100);
        assert_eq!(find(&v6(0, &endless, &[])), None);
        assert_eq!(find(&v6(60, &[6, 255], &[])), None);
        assert_eq!(find(&v6(60, &[6, 255, 0, 0], &[])), None, "the header is longer than the packet");
        assert_eq!(find(&[]), None);
    }
}
