//! Checksums that the sender left to its hardware.
//!
//! Between virtual machines and namespaces there is no hardware: there the field holds the sum of the pseudo-header only
//! (`CHECKSUM_PARTIAL`, include/linux/skbuff.h), and whoever takes the packet to another link has to complete it.

use anytun_common::wire::{checksum, ipv4, ipv6, tcp, udp};

/// Completes the checksum of a TCP segment or UDP datagram, if the sum in `packet`, an IP packet whose header was checked, is
/// that of the pseudo-header only. Says whether it was.
#[inline]
pub fn complete(packet: &mut [u8]) -> bool {
    repair(packet).is_some()
}

#[inline]
fn repair(packet: &mut [u8]) -> Option<()> {
    let first = *packet.first()?;
    let (transport, protocol, addresses) = match first >> 4 {
        4 => {
            let h = packet.first_chunk::<{ ipv4::HEADER }>()?;
            let fragment = u16::from_be_bytes([h[ipv4::FLAGS], h[ipv4::FLAGS + 1]]) & ipv4::FRAGMENT_MASK != 0;
            if fragment {
                return None;
            }
            (usize::from(first & 0x0f) * 4, h[ipv4::PROTOCOL], checksum::add(0, &h[ipv4::SOURCE..]))
        }
        _ => {
            let h = packet.first_chunk::<{ ipv6::HEADER }>()?;
            (ipv6::HEADER, h[ipv6::NEXT_HEADER], checksum::add(0, &h[ipv6::SOURCE..]))
        }
    };
    let at = match protocol {
        tcp::PROTOCOL => tcp::CHECKSUM,
        udp::PROTOCOL => udp::CHECKSUM,
        _ => return None,
    };
    let segment = packet.get_mut(transport..)?;
    let length = u32::try_from(segment.len()).ok()?;
    let pseudo = checksum::fold(checksum::add_quad(addresses + u64::from(protocol), length));
    let field = segment.get(at..)?.first_chunk::<2>()?;
    if u16::from_be_bytes(*field) != pseudo {
        return None;
    }
    // The field itself holds the sum of the pseudo-header, so it counts as that.
    let sum = match !checksum::fold(checksum::add(0, segment)) {
        // To UDP zero means that there is none (RFC 768); to TCP both mean the same.
        0 => 0xffff,
        sum => sum,
    };
    segment.get_mut(at..)?.first_chunk_mut::<2>()?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of pseudo-header and segment, octet by octet (RFC 9293 §3.1); right is 0xffff.
    fn whole(addresses: &[u8], protocol: u8, segment: &[u8]) -> u32 {
        let mut octets = addresses.to_vec();
        octets.extend_from_slice(&(segment.len() as u32).to_be_bytes());
        octets.extend_from_slice(&[0, 0, 0, protocol]);
        octets.extend_from_slice(segment);
        if octets.len() % 2 == 1 {
            octets.push(0);
        }
        let mut sum: u32 = octets.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }

    fn v4(protocol: u8, segment: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 203, 0, 113, 1, 10, 9, 0, 11];
        packet.extend_from_slice(segment);
        packet
    }

    fn v6(protocol: u8, segment: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        packet.extend((0..32).map(|octet| octet * 7));
        packet.extend_from_slice(segment);
        packet
    }

    #[test]
    fn a_partial_sum_is_completed_and_a_whole_one_stays() {
        for (protocol, at) in [(6u8, 16usize), (17, 6)] {
            for length in [at + 2, 21, 40, 1361] {
                let mut segment: Vec<u8> = (0..length).map(|octet| (octet * 31) as u8).collect();
                for (packet, source) in [(v4(protocol, &segment), 12), (v6(protocol, &segment), 8)] {
                    let transport = packet.len() - length;
                    segment[at..at + 2].fill(0);
                    let pseudo = whole(&packet[source..transport], protocol, &[]) + length as u32;
                    let pseudo = ((pseudo & 0xffff) + (pseudo >> 16)) as u16;
                    let mut partial = packet.clone();
                    partial[transport + at..][..2].copy_from_slice(&pseudo.to_be_bytes());
                    assert!(complete(&mut partial), "protocol {protocol}, {length} octets");
                    let addresses = partial[source..transport].to_vec();
                    assert_eq!(whole(&addresses, protocol, &partial[transport..]), 0xffff, "{protocol}, {length}");
                    let before = partial.clone();
                    assert!(!complete(&mut partial));
                    assert_eq!(partial, before);
                }
            }
        }
    }

    #[test]
    fn fragments_other_protocols_and_what_is_too_short_are_left_alone() {
        let mut fragment = v4(17, &[0; 8]);
        fragment[6] = 0x20;
        for mut packet in [fragment, v4(1, &[0; 8]), v4(6, &[0; 16]), v6(58, &[0; 8]), vec![], vec![0x45; 19]] {
            let before = packet.clone();
            assert!(!complete(&mut packet));
            assert_eq!(packet, before);
        }
    }
}
