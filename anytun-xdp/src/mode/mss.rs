//! The maximum segment size that TCP announces, made to fit the way (RFC 4459 §3.2): whoever does not hear of ICMP errors
//! sends segments that pass all the same.

use anytun_common::wire::{checksum, ipv4, ipv6, tcp};

use super::upper::{self, Upper};

/// Octets of a SYN packet's headers that are looked at: more options than fit here are none that TCP has.
const LONGEST: usize = 60;

/// Makes the segment size in a SYN fit `limit`, the octets of the largest packet of either way, which is asked for only if
/// there is one. What is no SYN, has no such option, a small enough one, or options that contradict themselves, stays.
pub fn clamp(packet: &mut [u8], limit: impl FnOnce() -> Option<usize>) {
    if let Some((at, headers)) = find(packet)
        && let Some(limit) = limit().and_then(|limit| limit.checked_sub(headers)).filter(|&limit| limit > 0)
    {
        replace(packet, at, u16::try_from(limit).unwrap_or(u16::MAX));
    }
}

/// Tells most packets from those of TCP, at the price of an octet.
#[inline]
pub fn may_be_tcp(packet: &[u8]) -> bool {
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(ipv4::PROTOCOL),
        Some(6) => packet.get(ipv6::NEXT_HEADER),
        _ => None,
    };
    // Next headers of IPv6 may be extensions, behind which TCP may be.
    match protocol {
        Some(&tcp::PROTOCOL) => true,
        Some(&(ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS)) => packet[0] >> 4 == 6,
        _ => false,
    }
}

/// Where the TCP header begins and the segment size stands in a SYN, and how much of a packet is not segment.
#[inline]
fn find(packet: &[u8]) -> Option<(At, usize)> {
    let Upper { protocol, offset, fragment, .. } = upper::find(packet)?;
    let header = packet.get(offset..)?;
    if protocol != tcp::PROTOCOL || fragment || header.get(tcp::FLAGS)? & tcp::SYN == 0 {
        return None;
    }
    let length = usize::from(header.get(tcp::DATA_OFFSET)? >> 4) * 4;
    let options = header.get(..length.min(LONGEST))?;
    let network = if packet.first()? >> 4 == 4 { ipv4::HEADER } else { ipv6::HEADER };
    Some((At { tcp: offset, mss: offset + value(options)? }, network + tcp::HEADER))
}

/// Offset of the segment size in a TCP header (RFC 9293 §3.1, §3.2).
fn value(header: &[u8]) -> Option<usize> {
    let mut at = tcp::HEADER;
    while at < header.len() {
        match *header.get(at)? {
            tcp::END => return None,
            tcp::NOP => at += 1,
            kind => {
                let length = *header.get(at + 1)?;
                if length < 2 || at + usize::from(length) > header.len() {
                    return None;
                }
                if kind == tcp::MSS {
                    return (length == tcp::MSS_LENGTH).then_some(at + 2);
                }
                at += usize::from(length);
            }
        }
    }
    None
}

/// Where something is in a packet.
#[derive(Clone, Copy, Debug)]
struct At {
    /// The TCP header.
    tcp: usize,
    /// The segment size.
    mss: usize,
}

fn replace(packet: &mut [u8], at: At, limit: u16) -> Option<()> {
    let field = packet.get_mut(at.mss..)?.first_chunk_mut::<2>()?;
    let old = *field;
    if u16::from_be_bytes(old) <= limit {
        return None;
    }
    let new = limit.to_be_bytes();
    *field = new;
    let sum = packet.get_mut(at.tcp + tcp::CHECKSUM..)?.first_chunk_mut::<2>()?;
    // At an odd offset the octets change places in their words (RFC 1071 §2 B).
    let odd = (at.mss - at.tcp) % 2 == 1;
    let word = |octets| if odd { u16::from_le_bytes(octets) } else { u16::from_be_bytes(octets) };
    // Two words change at an odd offset, but their sums change by as much.
    *sum = checksum::update(u16::from_be_bytes(*sum), word(old), word(new)).to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests;
