//! A checked view over an inner IP packet: what routing needs, and the two changes a router makes.

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::verdict::Verdict;
use anytun_common::wire::{Bytes, checksum, ethernet, ipv4, ipv6};

use super::ecn;

/// An inner packet whose header was found to be sound.
#[derive(Debug)]
pub enum Inner<'a> {
    /// The IPv4 header without its options, which nobody looks at.
    V4(&'a mut [u8; ipv4::HEADER]),
    /// The IPv6 header.
    V6(&'a mut [u8; ipv6::HEADER]),
}

impl<'a> Inner<'a> {
    /// Checks the payload of a SATP packet against its payload type (an EtherType) and the lengths the header gives.
    /// Returns the view and the octets of the packet: what lies behind its end is padding and goes no further.
    #[inline]
    pub fn new(payload_type: u16, payload: &'a mut [u8]) -> Result<(Self, usize), Verdict> {
        let available = payload.len();
        match payload_type {
            ethernet::IPV4 => {
                let h = payload.first_chunk_mut::<{ ipv4::HEADER }>().ok_or(Verdict::MalformedInner)?;
                let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
                let header = (first >> 24 & 0x0f) as usize * 4;
                let total = (first & 0xffff) as usize;
                if first >> 28 != 4 || header < ipv4::HEADER || total < header || total > available {
                    return Err(Verdict::MalformedInner);
                }
                Ok((Inner::V4(h), total))
            }
            ethernet::IPV6 => {
                let h = payload.first_chunk_mut::<{ ipv6::HEADER }>().ok_or(Verdict::MalformedInner)?;
                let total = ipv6::HEADER + usize::from(u16::from_be_bytes([h[4], h[5]]));
                if h[0] >> 4 != 6 || total > available {
                    return Err(Verdict::MalformedInner);
                }
                Ok((Inner::V6(h), total))
            }
            _ => Err(Verdict::PayloadType),
        }
    }

    /// Source and destination.
    #[inline]
    pub fn ends(&self) -> Ends {
        match self {
            Inner::V4(h) => {
                let (source, destination) =
                    (chunk::<{ ipv4::SOURCE }, 4, _>(h), chunk::<{ ipv4::DESTINATION }, 4, _>(h));
                Ends::V4 { source: source.into(), destination: destination.into() }
            }
            Inner::V6(h) => {
                let (source, destination) =
                    (chunk::<{ ipv6::SOURCE }, 16, _>(h), chunk::<{ ipv6::DESTINATION }, 16, _>(h));
                Ends::V6 { source: source.into(), destination: destination.into() }
            }
        }
    }

    /// DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        match self {
            Inner::V4(h) => h[ipv4::TOS],
            Inner::V6(h) => ipv6::traffic_class(h[0], h[1]),
        }
    }

    /// Whether routers on the way must not fragment the packet: never in IPv6, as the sender says in IPv4.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        match self {
            Inner::V4(h) => u16::from_be_bytes([h[6], h[7]]) & ipv4::DONT_FRAGMENT != 0,
            Inner::V6(_) => true,
        }
    }

    /// Counts one hop (RFC 1812 §5.3.1, RFC 8200 §3). The verdict of a failure is [`Verdict::HopLimit`].
    #[inline]
    pub fn hop(&mut self) -> Result<(), Verdict> {
        match self {
            Inner::V4(h) => {
                let ttl = h[ipv4::TTL].checked_sub(1).filter(|&ttl| ttl > 0).ok_or(Verdict::HopLimit)?;
                h[ipv4::TTL] = ttl;
                // It is the upper octet of its word.
                let sum = checksum::update_less(u16::from_be_bytes(chunk::<{ ipv4::CHECKSUM }, _, _>(h)), 1 << 8);
                [h[ipv4::CHECKSUM], h[ipv4::CHECKSUM + 1]] = sum.to_be_bytes();
            }
            Inner::V6(h) => {
                let limit = h[ipv6::HOP_LIMIT].checked_sub(1).filter(|&limit| limit > 0).ok_or(Verdict::HopLimit)?;
                h[ipv6::HOP_LIMIT] = limit;
            }
        }
        Ok(())
    }

    /// Takes over congestion that the outer header met on its way (RFC 6040 §4.2). The verdict of a failure is
    /// [`Verdict::EcnMismatch`].
    #[inline]
    pub fn decapsulate_ecn(&mut self, outer_tos: u8) -> Result<(), Verdict> {
        if outer_tos & ecn::MASK == ecn::NOT_ECT {
            return Ok(());
        }
        let tos = self.tos();
        let ecn = ecn::decapsulate(tos, outer_tos).ok_or(Verdict::EcnMismatch)?;
        let new = tos & !ecn::MASK | ecn;
        if new != tos {
            match self {
                Inner::V4(h) => change_v4(h, ipv4::TOS, new),
                Inner::V6(h) => ipv6::set_traffic_class(h, new),
            }
        }
        Ok(())
    }
}

/// Source and destination of an IPv4 header in one word, of which all that is to know is whether it is that of another.
#[inline]
pub fn pair_v4(header: &[u8; ipv4::HEADER]) -> u64 {
    u64::from_ne_bytes(chunk::<{ ipv4::SOURCE }, _, _>(header))
}

/// The same of an IPv6 header.
#[inline]
pub fn pair_v6(header: &[u8; ipv6::HEADER]) -> [u128; 2] {
    let (source, destination) = (chunk::<{ ipv6::SOURCE }, _, _>(header), chunk::<{ ipv6::DESTINATION }, _, _>(header));
    [source, destination].map(u128::from_ne_bytes)
}

/// Octets of a header from a constant offset, in as few loads as they take.
#[inline(always)]
fn chunk<const AT: usize, const N: usize, const LENGTH: usize>(header: &[u8; LENGTH]) -> [u8; N] {
    const { assert!(AT + N <= LENGTH, "within the header") };
    header.as_slice().read(AT).unwrap_or([0; N])
}

/// Source and destination of an inner packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Of an IPv4 packet.
    V4 {
        /// Where it comes from.
        source: Ipv4Addr,
        /// Where it goes.
        destination: Ipv4Addr,
    },
    /// Of an IPv6 packet.
    V6 {
        /// Where it comes from.
        source: Ipv6Addr,
        /// Where it goes.
        destination: Ipv6Addr,
    },
}

impl Ends {
    /// Whether the source has a meaning on its own link only, so that no router forwards the packet (RFC 4291 §2.5,
    /// RFC 3927 §2.7, RFC 1812 §5.3.7).
    #[inline]
    pub fn source_is_of_link(&self) -> bool {
        match self {
            Ends::V4 { source, .. } => link_v4(source),
            Ends::V6 { source, .. } => link_v6(source),
        }
    }

    /// Whether the destination is a multicast group whose scope is wider than a link (RFC 5771 §4, RFC 4291 §2.7).
    #[inline]
    pub fn destination_is_routed_group(&self) -> bool {
        match self {
            Ends::V4 { destination, .. } => destination.is_multicast() && destination.to_bits() >> 8 != 0xe0_0000,
            Ends::V6 { destination, .. } => destination.is_multicast() && destination.octets()[1] & 0x0f > 2,
        }
    }

    /// Whether the destination has a meaning on one link only, or is a group.
    #[inline]
    pub fn destination_is_of_link(&self) -> bool {
        match self {
            Ends::V4 { destination, .. } => link_v4(destination),
            Ends::V6 { destination, .. } => link_v6(destination),
        }
    }
}

#[inline]
fn link_v4(address: &Ipv4Addr) -> bool {
    let number = address.to_bits();
    match number >> 24 {
        // This network, loopback, multicast.
        0 | 127 | 224..=239 => true,
        // Link-local.
        169 => number >> 16 == 0xa9fe,
        // Broadcast.
        255 => number == u32::MAX,
        _ => false,
    }
}

#[inline]
fn link_v6(address: &Ipv6Addr) -> bool {
    let unicast = address.is_unspecified() || address.is_loopback() || address.is_unicast_link_local();
    // IPv4 ones in disguise stand for hosts of IPv4 in tables, and are on no wire (RFC 4291 §2.5.5.2, RFC 6890 §2.2.3).
    unicast || address.is_multicast() || address.to_ipv4_mapped().is_some()
}

/// Changes one octet of an IPv4 header and repairs its checksum.
#[inline(always)]
fn change_v4(h: &mut [u8; ipv4::HEADER], at: usize, octet: u8) {
    let word = at & !1;
    let old = u16::from_be_bytes([h[word], h[word + 1]]);
    h[at] = octet;
    let new = u16::from_be_bytes([h[word], h[word + 1]]);
    let sum = checksum::update(u16::from_be_bytes([h[ipv4::CHECKSUM], h[ipv4::CHECKSUM + 1]]), old, new);
    [h[ipv4::CHECKSUM], h[ipv4::CHECKSUM + 1]] = sum.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inner packet of protocol.md §3.8 V1, padded as anytun pads what it writes to its device.
    fn v4() -> Vec<u8> {
        let mut bytes =
            hex::decode("45000054c19f4000400164f50a0900010a0900020800dd371500014187026b0000000091f1020000000000")
                .expect("hex");
        bytes.resize(84 + 2, 0xde);
        bytes
    }

    fn v6() -> Vec<u8> {
        let mut bytes = vec![0x6b, 0x8f, 0x12, 0x34, 0, 8, 17, 64];
        bytes.resize(ipv6::HEADER + 8, 1);
        bytes
    }

    #[test]
    fn padding_behind_the_packet_is_left_out() {
        assert_eq!(Inner::new(ethernet::IPV4, &mut v4()).map(|(_, length)| length), Ok(84));
        let mut bytes = v6();
        bytes.push(0);
        assert_eq!(Inner::new(ethernet::IPV6, &mut bytes).map(|(_, length)| length), Ok(48));
    }

    #[test]
    fn lengths_and_versions_that_contradict_themselves_are_refused() {
        for (at, octet) in [(0, 0x65), (0, 0x44), (0, 0x4f), (2, 0xff), (3, 19)] {
            let mut bytes = v4();
            bytes[at] = octet;
            if octet == 0x4f {
                bytes[3] = 59;
            }
            let verdict = Inner::new(ethernet::IPV4, &mut bytes).map(|(_, length)| length);
            assert_eq!(verdict, Err(Verdict::MalformedInner), "octet {at} = {octet:#x}");
        }
        for length in 0..84 {
            assert!(Inner::new(ethernet::IPV4, &mut v4()[..length]).is_err(), "{length} octets");
        }
        for length in 0..48 {
            assert!(Inner::new(ethernet::IPV6, &mut v6()[..length]).is_err(), "{length} octets");
        }
        assert!(matches!(Inner::new(ethernet::IPV6, &mut v4()), Err(Verdict::MalformedInner)));
        assert!(matches!(Inner::new(0x6558, &mut v4()), Err(Verdict::PayloadType)));
    }

    #[test]
    fn a_hop_costs_one_and_the_last_is_refused() {
        let mut bytes = v4();
        for ttl in (1..0x40).rev() {
            let (mut inner, _) = Inner::new(ethernet::IPV4, &mut bytes).expect("sound");
            assert_eq!(inner.hop(), Ok(()));
            assert_eq!(bytes[ipv4::TTL], ttl);
            assert_eq!(checksum::of(&bytes[..ipv4::HEADER]), 0);
        }
        let (mut inner, _) = Inner::new(ethernet::IPV4, &mut bytes).expect("sound");
        assert_eq!(inner.hop(), Err(Verdict::HopLimit));
        let mut bytes = v6();
        for hop_limit in [1, 0] {
            bytes[ipv6::HOP_LIMIT] = hop_limit;
            let (mut inner, _) = Inner::new(ethernet::IPV6, &mut bytes).expect("sound");
            assert_eq!(inner.hop(), Err(Verdict::HopLimit));
        }
    }

    #[test]
    fn congestion_met_outside_is_marked_inside_and_the_rest_stays() {
        let mut bytes = v4();
        bytes[ipv4::TOS] = 0xb8 | 0b10;
        let sum = {
            bytes[10..12].fill(0);
            checksum::of(&bytes[..ipv4::HEADER])
        };
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let (mut inner, _) = Inner::new(ethernet::IPV4, &mut bytes).expect("sound");
        assert_eq!(inner.decapsulate_ecn(0b11), Ok(()));
        assert_eq!(inner.tos(), 0xb8 | 0b11);
        assert_eq!(checksum::of(&bytes[..ipv4::HEADER]), 0);

        let mut bytes = v6();
        let (mut inner, _) = Inner::new(ethernet::IPV6, &mut bytes).expect("sound");
        assert_eq!(inner.tos(), 0xb8);
        assert_eq!(inner.decapsulate_ecn(0b11), Err(Verdict::EcnMismatch));
        bytes[1] |= 0x20;
        let (mut inner, _) = Inner::new(ethernet::IPV6, &mut bytes).expect("sound");
        assert_eq!(inner.decapsulate_ecn(0b01), Ok(()));
        assert_eq!(&bytes[..4], &[0x6b, 0x9f, 0x12, 0x34], "version and flow label stay");
    }
}
