//! The answer to a plain packet: the packet turned around.

use anytun_common::classify::Datagram;
use anytun_common::stamp::Stamp;
use anytun_common::wire::{checksum, ethernet, ipv4, ipv6, udp};

use super::headers::udp_checksum;
use super::payload;

/// Turns a packet that arrived around, with another stamp behind `prefix` octets; returns its length.
#[inline]
pub(super) fn turn(frame: &mut [u8], datagram: &Datagram, prefix: usize, stamp: &Stamp) -> usize {
    let end = datagram.payload + datagram.length;
    let Some(frame) = frame.get_mut(..end) else { return 0 };
    let (destination, rest) = frame.split_at_mut(ethernet::SOURCE);
    destination.swap_with_slice(&mut rest[..ethernet::SOURCE]);
    let (at, octets) = if datagram.v4 { (ipv4::SOURCE, 4) } else { (ipv6::SOURCE, 16) };
    let (source, destination) = frame[datagram.network + at..][..2 * octets].split_at_mut(octets);
    source.swap_with_slice(destination);
    let ports = datagram.payload - udp::HEADER;
    frame[ports..ports + 4].rotate_left(2);
    // Of what the sum covers, only stamp and pattern change.
    let check = ports + udp::CHECKSUM;
    let Some(data) = frame.get_mut(datagram.payload + prefix..end) else { return 0 };
    let old = checksum::fold(checksum::add(0, data));
    let new = checksum::fold(payload::write(data, stamp));
    let stored = u16::from_be_bytes([frame[check], frame[check + 1]]);
    if stored != 0 {
        let sum = u64::from(!stored) + u64::from(!old) + u64::from(new);
        frame[check..check + 2].copy_from_slice(&udp_checksum(sum).to_be_bytes());
    }
    end
}
