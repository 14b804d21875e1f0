//! A packet that crossed a NAT as the model of those that come right behind it.

use anytun_common::wire::{ipv4, ipv6, udp};

use super::view::{Side, TCP, TCP_HEADER, View};
use crate::table::nat::{End, FIN, RST, SYN};

/// What packets have in common that are translated alike and change nothing of a session but its time: IPv4 ones its source
/// and destination, in one word, IPv6 ones theirs in four.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    addresses: [u64; 4],
    ports: u32,
    protocol: u8,
    is_v4: bool,
}

impl Head {
    /// That of a whole packet of TCP or UDP without options of IP, which neither begins nor ends a connection.
    #[inline]
    fn of(packet: &[u8]) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        let (addresses, protocol, transport) = if is_v4 {
            let (h, transport) = packet.split_first_chunk::<{ ipv4::HEADER }>()?;
            let is_plain = h[0] == 0x45 && u16::from_be_bytes([h[6], h[7]]) & ipv4::FRAGMENT_MASK == 0;
            let is_whole = usize::from(u16::from_be_bytes([h[2], h[3]])) == packet.len();
            let both = h[ipv4::SOURCE..].first_chunk().filter(|_| is_plain && is_whole)?;
            ([u64::from_ne_bytes(*both), 0, 0, 0], h[ipv4::PROTOCOL], transport)
        } else {
            let (h, transport) = packet.split_first_chunk::<{ ipv6::HEADER }>()?;
            let is_plain = h[0] >> 4 == 6;
            let is_whole = usize::from(u16::from_be_bytes([h[4], h[5]])) == transport.len();
            let words = h[ipv6::SOURCE..].as_chunks().0.first_chunk::<4>().filter(|_| is_plain && is_whole)?;
            (words.map(u64::from_ne_bytes), h[ipv6::NEXT_HEADER], transport)
        };
        let is_calm = match protocol {
            udp::PROTOCOL => transport.len() >= udp::HEADER,
            TCP => transport.len() >= TCP_HEADER && transport[13] & (SYN | FIN | RST) == 0,
            _ => false,
        };
        let ports = u32::from_ne_bytes(*transport.first_chunk().filter(|_| is_calm)?);
        Some(Self { addresses, ports, protocol, is_v4 })
    }
}

/// How a packet of a client went out. Another one of its flow goes the same way as long as nothing can have changed; its
/// session lasts as long as if that one had come first.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    head: Head,
    view: View,
    outside: End,
}

impl Crossing {
    /// That of `packet`, which is not translated yet. Nothing when it is none to go by.
    #[inline]
    pub(super) fn new(packet: &[u8], view: &View, outside: &End) -> Option<Self> {
        Some(Self { head: Head::of(packet)?, view: *view, outside: *outside })
    }

    /// Translates a packet that is of the same flow; any other is as it came. Says whether it was.
    #[inline]
    pub fn repeat(&mut self, packet: &mut [u8]) -> bool {
        let is_same = Head::of(packet).is_some_and(|head| head == self.head);
        if is_same {
            self.view.end = packet.len();
            self.view.put_end(packet, Side::Source, &self.outside);
        }
        is_same
    }
}
