//! The headers around a sealed packet: Ethernet with its tags, IP and UDP.

use std::num::NonZeroU16;

use anytun_common::wire::{checksum, ethernet, ipv4, ipv6, udp, unmapped};

use crate::config::UdpChecksum;
use crate::table::{Endpoint, Service};

/// Time to live and hop limit of outgoing packets.
const HOPS: u8 = 64;

/// What the inner packet says about the outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// DSCP and ECN, copied outwards (RFC 6040 §4.1, normal mode; RFC 2983 §4).
    pub tos: u8,
    /// Whether the outer IPv4 packet must not be fragmented (RFC 2003 §3.1).
    pub dont_fragment: bool,
    /// The identification of the outer IPv4 packet, should it be fragmented (RFC 6864).
    pub identification: u16,
}

/// Octets of the headers in front of a SATP packet to `endpoint`.
#[inline]
pub fn length(endpoint: &Endpoint) -> usize {
    let network = if endpoint.is_v4() { ipv4::HEADER } else { ipv6::HEADER };
    ethernet::HEADER + endpoint.tags.as_bytes().len() + network + udp::HEADER
}

/// Octets of the IP packet in a frame of `frame` octets to `endpoint`.
#[inline]
pub fn network_length(endpoint: &Endpoint, frame: usize) -> usize {
    frame.saturating_sub(ethernet::HEADER + endpoint.tags.as_bytes().len())
}

/// What a packet's UDP checksum lacks: its payload. Nothing when the packet goes without.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unsummed(Option<NonZeroU16>);

/// Writes the headers into the first [`length`] octets of `packet`, behind which the SATP packet will be. Returns nothing, and
/// the packet is not to be sent, when it is too short or too long for its headers. Before it is, [`sum`] has to be called.
#[inline]
pub fn write(packet: &mut [u8], endpoint: &Endpoint, service: &Service, marks: Marks) -> Option<Unsummed> {
    let tags = endpoint.tags.as_bytes();
    let (link, network) = packet.split_at_mut_checked(ethernet::HEADER + tags.len())?;
    let (addresses, tagged) = link.split_first_chunk_mut::<{ ethernet::TYPE }>()?;
    *addresses = *endpoint.link.as_bytes();
    let (tagged, ethertype) = tagged.split_last_chunk_mut::<2>()?;
    // Few clients are tagged, and to copy a number of octets that only the packet knows is a call.
    if !tags.is_empty() {
        tagged.copy_from_slice(tags);
    }
    match (unmapped(service.address), unmapped(endpoint.address)) {
        (Some(source), Some(destination)) => {
            *ethertype = ethernet::IPV4.to_be_bytes();
            let addresses = [u32::from_be_bytes(source), u32::from_be_bytes(destination)];
            write_v4(network, addresses, [service.port, endpoint.port], marks, service.udp_checksum)
        }
        (None, None) => {
            *ethertype = ethernet::IPV6.to_be_bytes();
            write_v6(network, endpoint, service, marks)
        }
        // An endpoint is learned from packets to the service, so it is of its family.
        _ => None,
    }
}

/// Adds the payload, all behind the first `head` octets of `packet`, to the UDP checksum, which is the last of the headers.
#[inline]
pub fn sum(packet: &mut [u8], head: usize, Unsummed(headers): Unsummed) -> Option<()> {
    let Some(headers) = headers else { return Some(()) };
    let (head, payload) = packet.split_at_mut_checked(head)?;
    // A sum of zero is sent as all ones: zero means that there is none (RFC 768).
    let sum = match !checksum::fold(checksum::add(u64::from(headers.get()), payload)) {
        0 => 0xffff,
        sum => sum,
    };
    *head.last_chunk_mut()? = sum.to_be_bytes();
    Some(())
}

// Checksums of headers are reckoned from what is written, not from what was: to read octets back in other portions than
// they were just written in makes the processor wait.

const V4: usize = ipv4::HEADER + udp::HEADER;
const V6: usize = ipv6::HEADER + udp::HEADER;

/// Writes an IPv4 header without options (RFC 791 §3.1) and a UDP header, a row of their pictures at a time.
#[inline]
fn write_v4(
    network: &mut [u8],
    [source, destination]: [u32; 2],
    ports: [u16; 2],
    marks: Marks,
    policy: UdpChecksum,
) -> Option<Unsummed> {
    let total = u16::try_from(network.len()).ok()?;
    let h = network.first_chunk_mut::<V4>()?;
    let (identification, flags) =
        if marks.dont_fragment { (0, ipv4::DONT_FRAGMENT) } else { (marks.identification, 0) };
    let row = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    let first = row(u16::from_be_bytes([0x45, marks.tos]), total);
    let second = row(identification, flags);
    let third = row(u16::from_be_bytes([HOPS, udp::PROTOCOL]), 0);
    let addresses = checksum::add_quad(u64::from(source), destination);
    let sum = [first, second, third].into_iter().fold(addresses, checksum::add_quad);
    let third = third | u32::from(!checksum::fold(sum));
    let length = total - ipv4::HEADER as u16;
    let rows = [first, second, third, source, destination, row(ports[0], ports[1]), row(length, 0)];
    for (octets, row) in h.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
        *octets = row.to_be_bytes();
    }
    Some(match policy {
        UdpChecksum::Zero => Unsummed::default(),
        UdpChecksum::Full => unsummed(addresses, ports, length),
    })
}

/// Writes an IPv6 header (RFC 8200 §3) and a UDP header.
fn write_v6(network: &mut [u8], endpoint: &Endpoint, service: &Service, marks: Marks) -> Option<Unsummed> {
    let length = u16::try_from(network.len().checked_sub(ipv6::HEADER)?).ok()?;
    let h = network.first_chunk_mut::<V6>()?;
    let (ip, datagram) = h.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ipv6::set_traffic_class(ip, marks.tos);
    ip[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&length.to_be_bytes());
    ip[ipv6::NEXT_HEADER] = udp::PROTOCOL;
    ip[ipv6::HOP_LIMIT] = HOPS;
    ip[ipv6::SOURCE..][..16].copy_from_slice(&service.address);
    ip[ipv6::DESTINATION..][..16].copy_from_slice(&endpoint.address);
    let ports = [service.port, endpoint.port];
    for (field, value) in datagram.as_chunks_mut::<2>().0.iter_mut().zip([ports[0], ports[1], length, 0]) {
        *field = value.to_be_bytes();
    }
    let addresses = checksum::add(checksum::add(0, &service.address), &endpoint.address);
    Some(unsummed(addresses, ports, length))
}

/// The sum of the pseudo-header and the UDP header (RFC 768, RFC 8200 §8.1); `addresses` is that of both addresses.
#[inline]
fn unsummed(addresses: u64, ports: [u16; 2], length: u16) -> Unsummed {
    let ports = u64::from(ports[0]) + u64::from(ports[1]);
    // The length is in the pseudo-header and in the header. No sum of what is not zero is folded to zero.
    let sum = addresses + u64::from(udp::PROTOCOL) + ports + 2 * u64::from(length);
    Unsummed(NonZeroU16::new(checksum::fold(sum)))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use anytun_common::classify::{Datagram, classify};
    use anytun_common::wire::mapped;

    use super::*;
    use crate::config;
    use crate::table::{Evidence, Link, Tags};

    fn service(address: &str, udp_checksum: UdpChecksum) -> Service {
        let address = address.parse().expect("address");
        Service::new(&config::Service { name: "anycast".into(), address, port: 4444, udp_checksum })
    }

    fn endpoint(address: &str, tags: &[u8]) -> Endpoint {
        let address = match address.parse().expect("address") {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        let tags = Tags::new(tags).expect("tags");
        let link = Link::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        Endpoint { slot: 0, link, tags, address, port: 40_000, evidence: Evidence::Frame }
    }

    fn built(service: &Service, endpoint: &Endpoint, marks: Marks) -> (Vec<u8>, Datagram) {
        let head = length(endpoint);
        let mut packet = vec![0xaa; head];
        packet.extend_from_slice(b"a sealed packet");
        let unsummed = write(&mut packet, endpoint, service, marks).expect("room");
        assert_eq!(sum(&mut packet, head, unsummed), Some(()));
        let datagram = classify(packet.as_slice()).expect("a datagram");
        assert_eq!(&packet[datagram.payload..], b"a sealed packet");
        assert_eq!((datagram.source, datagram.source_port), (service.address, 4444));
        assert_eq!((datagram.destination, datagram.destination_port), (endpoint.address, 40_000));
        (packet, datagram)
    }

    #[test]
    fn both_families_with_and_without_tags_are_read_back_as_written() {
        let marks = Marks { tos: 0xb9, dont_fragment: true, identification: 7 };
        for tags in [&[][..], &[0x81, 0, 0, 10], &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10]] {
            for (ours, theirs) in [("192.0.2.53", "198.51.100.7"), ("2001:db8::53", "2001:db8:1::7")] {
                let (packet, datagram) = built(&service(ours, UdpChecksum::Full), &endpoint(theirs, tags), marks);
                assert_eq!(&packet[..12], &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
                assert_eq!(&packet[12..12 + tags.len()], tags);
                assert_eq!(datagram.tos, 0xb9);
            }
        }
    }

    #[test]
    fn fragmentation_of_the_outer_packet_follows_the_inner() {
        let (service, endpoint) = (service("192.0.2.53", UdpChecksum::Full), endpoint("198.51.100.7", &[]));
        let (packet, _) =
            built(&service, &endpoint, Marks { dont_fragment: true, identification: 7, ..Marks::default() });
        assert_eq!(&packet[18..22], &[0, 0, 0x40, 0], "an atomic datagram needs no identification (RFC 6864 §4.1)");
        let (packet, _) = built(&service, &endpoint, Marks { identification: 7, ..Marks::default() });
        assert_eq!(&packet[18..22], &[0, 7, 0, 0]);
    }

    /// Sums up the pseudo-header and the datagram octet by octet, as RFC 768 says: right is 0xffff.
    fn udp_sum(packet: &[u8], pseudo: &[u8]) -> u32 {
        let mut bytes = pseudo.to_vec();
        bytes.extend_from_slice(&[0, 17]);
        bytes.extend_from_slice(&(packet.len() as u16).to_be_bytes());
        bytes.extend_from_slice(packet);
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }

    #[test]
    fn the_udp_checksum_is_full_or_as_configured_none() {
        let to_v4 = endpoint("198.51.100.7", &[]);
        let (packet, _) = built(&service("192.0.2.53", UdpChecksum::Full), &to_v4, Marks::default());
        assert_eq!(udp_sum(&packet[34..], &packet[26..34]), 0xffff);
        let (packet, _) = built(&service("192.0.2.53", UdpChecksum::Zero), &to_v4, Marks::default());
        assert_eq!(&packet[40..42], &[0, 0]);
        let to_v6 = endpoint("2001:db8:1::7", &[]);
        let (packet, _) = built(&service("2001:db8::53", UdpChecksum::Zero), &to_v6, Marks::default());
        assert_eq!(udp_sum(&packet[54..], &packet[22..54]), 0xffff, "IPv6 always has one");
    }

    #[test]
    fn a_packet_that_cannot_hold_its_headers_is_not_sent() {
        let (service, endpoint) = (service("192.0.2.53", UdpChecksum::Full), endpoint("198.51.100.7", &[]));
        for length in 0..length(&endpoint) {
            assert_eq!(write(&mut vec![0; length], &endpoint, &service, Marks::default()), None, "{length} octets");
        }
        assert_eq!(write(&mut vec![0; 14 + 65536], &endpoint, &service, Marks::default()), None);
    }
}
