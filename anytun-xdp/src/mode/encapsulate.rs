//! The headers around a sealed packet: Ethernet with its tags, IP and UDP.

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

/// Writes the headers into the first [`length`] octets of `packet`, which ends with the SATP packet. Returns nothing, and
/// the packet is not to be sent, when it is too short or too long for its headers.
#[inline]
pub fn write(packet: &mut [u8], endpoint: &Endpoint, service: &Service, marks: Marks) -> Option<()> {
    let tags = endpoint.tags.as_bytes();
    let (link, network) = packet.split_at_mut_checked(ethernet::HEADER + tags.len())?;
    let (addresses, tagged) = link.split_first_chunk_mut::<{ ethernet::TYPE }>()?;
    addresses[..6].copy_from_slice(&endpoint.neighbour);
    addresses[6..].copy_from_slice(&endpoint.local);
    let (tagged, ethertype) = tagged.split_last_chunk_mut::<2>()?;
    // Few clients are tagged, and to copy a number of octets that only the packet knows is a call.
    if !tags.is_empty() {
        tagged.copy_from_slice(tags);
    }
    *ethertype = match (unmapped(service.address), unmapped(endpoint.address)) {
        (Some(source), Some(destination)) => {
            let (source, destination) = (u32::from_be_bytes(source), u32::from_be_bytes(destination));
            write_v4(network, source, destination, marks)?;
            let addresses = checksum::add_quad(source.into(), destination);
            write_udp(network.get_mut(ipv4::HEADER..)?, endpoint, service, addresses, service.udp_checksum)?;
            ethernet::IPV4
        }
        (None, None) => {
            write_v6(network, endpoint, service, marks)?;
            let addresses = checksum::add(checksum::add(0, &service.address), &endpoint.address);
            write_udp(network.get_mut(ipv6::HEADER..)?, endpoint, service, addresses, UdpChecksum::Full)?;
            ethernet::IPV6
        }
        // An endpoint is learned from packets to the service, so it is of its family.
        _ => return None,
    }
    .to_be_bytes();
    Some(())
}

// Checksums of headers are reckoned from what is written, not from what was: to read octets back in other portions than
// they were just written in makes the processor wait.

/// Writes an IPv4 header without options (RFC 791 §3.1), a row of its picture at a time.
fn write_v4(network: &mut [u8], source: u32, destination: u32, marks: Marks) -> Option<()> {
    let total = u16::try_from(network.len()).ok()?;
    let h = network.first_chunk_mut::<{ ipv4::HEADER }>()?;
    let (identification, flags) =
        if marks.dont_fragment { (0, ipv4::DONT_FRAGMENT) } else { (marks.identification, 0) };
    let row = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    let first = row(u16::from_be_bytes([0x45, marks.tos]), total);
    let second = row(identification, flags);
    let third = row(u16::from_be_bytes([HOPS, udp::PROTOCOL]), 0);
    let sum = [first, second, third, source, destination].into_iter().fold(0, checksum::add_quad);
    let third = third | u32::from(!checksum::fold(sum));
    for (row, value) in h.as_chunks_mut::<4>().0.iter_mut().zip([first, second, third, source, destination]) {
        *row = value.to_be_bytes();
    }
    Some(())
}

fn write_v6(network: &mut [u8], endpoint: &Endpoint, service: &Service, marks: Marks) -> Option<()> {
    let payload = u16::try_from(network.len().checked_sub(ipv6::HEADER)?).ok()?;
    let h = network.first_chunk_mut::<{ ipv6::HEADER }>()?;
    h[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ipv6::set_traffic_class(h, marks.tos);
    h[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&payload.to_be_bytes());
    h[ipv6::NEXT_HEADER] = udp::PROTOCOL;
    h[ipv6::HOP_LIMIT] = HOPS;
    h[ipv6::SOURCE..][..16].copy_from_slice(&service.address);
    h[ipv6::DESTINATION..][..16].copy_from_slice(&endpoint.address);
    Some(())
}

/// Writes the UDP header of `datagram`. The checksum runs over the pseudo-header too (RFC 768, RFC 8200 §8.1), of which
/// `addresses` is the sum of both addresses.
fn write_udp(
    datagram: &mut [u8],
    endpoint: &Endpoint,
    service: &Service,
    addresses: u64,
    policy: UdpChecksum,
) -> Option<()> {
    let length = u16::try_from(datagram.len()).ok()?;
    let (h, payload) = datagram.split_first_chunk_mut::<{ udp::HEADER }>()?;
    let ports = u64::from(service.port) + u64::from(endpoint.port);
    let sum = match policy {
        UdpChecksum::Zero => 0,
        UdpChecksum::Full => {
            // The length is in the pseudo-header and in the header.
            let headers = addresses + u64::from(udp::PROTOCOL) + ports + 2 * u64::from(length);
            // A sum of zero is sent as all ones: zero means that there is none.
            match !checksum::fold(checksum::add(headers, payload)) {
                0 => 0xffff,
                sum => sum,
            }
        }
    };
    for (field, value) in h.as_chunks_mut::<2>().0.iter_mut().zip([service.port, endpoint.port, length, sum]) {
        *field = value.to_be_bytes();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use anytun_common::classify::{Datagram, classify};
    use anytun_common::wire::mapped;

    use super::*;
    use crate::config;
    use crate::table::Tags;

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
        Endpoint { slot: 0, local: [2, 0, 0, 0, 0, 1], neighbour: [2, 0, 0, 0, 0, 2], tags, address, port: 40_000 }
    }

    fn built(service: &Service, endpoint: &Endpoint, marks: Marks) -> (Vec<u8>, Datagram) {
        let head = length(endpoint);
        let mut packet = vec![0xaa; head];
        packet.extend_from_slice(b"a sealed packet");
        assert_eq!(write(&mut packet, endpoint, service, marks), Some(()));
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
