//! A packet that crossed a NAT as the model of those that come right behind it.

use anytun_common::wire::{ipv4, ipv6, tcp, udp};

use super::change::Change;
use super::view::{mended, sum_offset};
use crate::mode::inner::{pair_v4, pair_v6};
use crate::table::nat::{End, FIN, RST, SYN};

/// How a packet of a client went out. Another one of its flow in the same batch goes the same way, as if both had come before
/// anything that other workers did meanwhile: its session lasts as long, and a reset that came in between is believed until
/// the next batch. For whole packets of TCP and UDP without options of IP, which neither begin nor end a connection.
#[derive(Clone, Copy, Debug)]
pub struct Crossing {
    head: Head,
    outside: End,
    /// What another source changes: of the address, and of all that the checksum of TCP or UDP covers.
    changes: [Change; 2],
}

/// What the packets of a flow have in common, as it stands in them: addresses of IPv4 in one number, of IPv6 in two.
#[derive(Clone, Copy, Debug)]
struct Head {
    addresses: [u128; 2],
    ports: u32,
    protocol: u8,
    is_v4: bool,
}

/// An IPv4 header without options, of a packet that is no fragment and ends where it says; and what it is followed by.
#[inline]
fn v4(packet: &mut [u8]) -> Option<(&mut [u8; ipv4::HEADER], &mut [u8])> {
    let length = packet.len();
    let (h, transport) = packet.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
    let is_whole = usize::from(u16::from_be_bytes([h[2], h[3]])) == length;
    let is_fragment = u16::from_be_bytes([h[6], h[7]]) & ipv4::FRAGMENT_MASK != 0;
    (h[0] == 0x45 && is_whole && !is_fragment).then_some((h, transport))
}

/// An IPv6 header of a packet that ends where it says, and what it is followed by.
#[inline]
fn v6(packet: &mut [u8]) -> Option<(&mut [u8; ipv6::HEADER], &mut [u8])> {
    let (h, transport) = packet.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let is_whole = usize::from(u16::from_be_bytes([h[4], h[5]])) == transport.len();
    (h[0] >> 4 == 6 && is_whole).then_some((h, transport))
}

/// The ports of a segment of TCP that neither begins nor ends a connection, or of a UDP datagram.
#[inline]
fn ports(protocol: u8, transport: &[u8]) -> Option<u32> {
    let is_calm = match protocol {
        udp::PROTOCOL => transport.len() >= udp::HEADER,
        tcp::PROTOCOL => transport.len() >= tcp::HEADER && transport[tcp::FLAGS] & (SYN | FIN | RST) == 0,
        _ => false,
    };
    transport.first_chunk().filter(|_| is_calm).map(|ports| u32::from_ne_bytes(*ports))
}

impl Head {
    fn of(packet: &mut [u8]) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        let (addresses, protocol, transport) = if is_v4 {
            v4(packet).map(|(h, transport)| ([pair_v4(h).into(), 0], h[ipv4::PROTOCOL], transport))?
        } else {
            v6(packet).map(|(h, transport)| (pair_v6(h), h[ipv6::NEXT_HEADER], transport))?
        };
        Some(Self { addresses, ports: ports(protocol, transport)?, protocol, is_v4 })
    }
}

impl Crossing {
    /// That of `packet` from `inside`, which is not translated yet, to be `outside`. Nothing when it is none to go by.
    pub(super) fn new(packet: &mut [u8], inside: &End, outside: &End) -> Option<Self> {
        let head = Head::of(packet)?;
        // The prefix of a mapped address is in both.
        let address = Change::between(&inside.address, &outside.address);
        let mut covered = Change::between(&inside.port.to_be_bytes(), &outside.port.to_be_bytes());
        covered += address;
        Some(Self { head, outside: *outside, changes: [address, covered] })
    }

    /// Translates a packet that is of the same flow; any other is as it came. Says whether it was.
    #[inline]
    pub fn repeat(&self, packet: &mut [u8]) -> bool {
        let repeated = if self.head.is_v4 { self.repeat_v4(packet) } else { self.repeat_v6(packet) };
        repeated.is_some()
    }

    #[inline]
    fn repeat_v4(&self, packet: &mut [u8]) -> Option<()> {
        let (h, transport) = v4(packet)?;
        let Self { head, changes: [address, covered], .. } = self;
        if u128::from(pair_v4(h)) != head.addresses[0] || h[ipv4::PROTOCOL] != head.protocol {
            return None;
        }
        self.put_port(transport, *covered)?;
        let [.., a, b, c, d] = self.outside.address;
        h[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&[a, b, c, d]);
        let sum = u16::from_be_bytes([h[ipv4::CHECKSUM], h[ipv4::CHECKSUM + 1]]);
        [h[ipv4::CHECKSUM], h[ipv4::CHECKSUM + 1]] = address.repaired(sum).to_be_bytes();
        Some(())
    }

    #[inline]
    fn repeat_v6(&self, packet: &mut [u8]) -> Option<()> {
        let (h, transport) = v6(packet)?;
        let Self { head, changes: [_, covered], .. } = self;
        if pair_v6(h) != head.addresses || h[ipv6::NEXT_HEADER] != head.protocol {
            return None;
        }
        self.put_port(transport, *covered)?;
        h[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&self.outside.address);
        Some(())
    }

    /// Puts the port outside into a header of the flow's, and mends the checksum. Nothing when it is another flow's.
    #[inline]
    fn put_port(&self, transport: &mut [u8], covered: Change) -> Option<()> {
        let Head { protocol, ports: own, .. } = self.head;
        if ports(protocol, transport)? != own {
            return None;
        }
        let sum = transport.get_mut(sum_offset(protocol)?..)?.first_chunk_mut::<2>()?;
        *sum = mended(protocol, u16::from_be_bytes(*sum), covered).to_be_bytes();
        *transport.first_chunk_mut()? = self.outside.port.to_be_bytes();
        Some(())
    }
}
