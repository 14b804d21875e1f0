//! Frames, and what has to become of them.

use anytun_common::verdict::Verdict;
use anytun_common::wire::checksum;

use crate::{ALONE, INSIDE, PORT, V4, V6};

pub(crate) fn ethernet(ethertypes: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for (index, ethertype) in ethertypes.iter().enumerate() {
        if index > 0 {
            frame.extend_from_slice(&[0x00, 0x07]);
        }
        frame.extend_from_slice(&ethertype.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn udp(port: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![0x30, 0x39];
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&(8 + payload as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.resize(8 + payload, 0xa5);
    datagram
}

/// An echo request with an identifier of the NAT's range (RFC 792).
const QUERY: [u8; 8] = [8, 0, 0, 0, 0x4e, 0x20, 0, 1];

pub(crate) fn tcp(source: u16, destination: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.resize(20, 0);
    segment
}

/// An ICMP error that quotes a packet whose header has options (RFC 792).
pub(crate) fn error_v4(kind: u8, protocol: u8, quoted: &[u8]) -> Vec<u8> {
    let mut error = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ipv4(0, protocol, 4, quoted));
    error
}

/// An ICMPv6 error (RFC 4443 §3).
pub(crate) fn error_v6(kind: u8, next: u8, quoted: &[u8]) -> Vec<u8> {
    let mut error = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ipv6(next, quoted));
    error
}

/// An IPv4 packet with `options` octets of options (a multiple of 4), and a right checksum.
pub(crate) fn ipv4(fragment: u16, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0xb8];
    packet.extend_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0, 198, 51, 100, 7]);
    packet.extend_from_slice(&V4);
    packet.resize(header, 0x01);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend_from_slice(&V6);
    packet.extend_from_slice(payload);
    packet
}

/// The fragment header and the payload of a first fragment (RFC 8200 §4.5).
pub(crate) fn first_v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut fragment = vec![next, 0, 0, 1, 0, 0, 0, 2];
    fragment.extend_from_slice(payload);
    fragment
}

/// The same packet for a client inside, with a right checksum.
pub(crate) fn to_client_v4(packet: Vec<u8>) -> Vec<u8> {
    to_v4(packet, &INSIDE[0][12..])
}

/// The same packet for the address of the NAT where there is nothing else.
pub(crate) fn alone(packet: Vec<u8>) -> Vec<u8> {
    to_v4(packet, &ALONE)
}

pub(crate) fn to_v4(mut packet: Vec<u8>, destination: &[u8]) -> Vec<u8> {
    packet[16..20].copy_from_slice(destination);
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0x0f) * 4;
    let sum = checksum::of(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub(crate) fn to_client_v6(mut packet: Vec<u8>) -> Vec<u8> {
    packet[24..40].copy_from_slice(&INSIDE[1]);
    packet
}

/// Frames and what has to become of them, by the standards and not by the decoder.
pub(crate) fn fixtures() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let v4 = || ipv4(0, 17, 0, &udp(PORT, 32));
    let v6 = || ipv6(17, &udp(PORT, 32));
    let changed = |mut frame: Vec<u8>, at: usize, octet: u8| {
        frame[at] = octet;
        frame
    };
    let cut = |mut frame: Vec<u8>, length: usize| {
        frame.truncate(length);
        frame
    };
    let mut padded = ethernet(&[0x0800], &v4());
    padded.extend_from_slice(&[0; 18]);
    vec![
        ("IPv4", ethernet(&[0x0800], &v4()), Verdict::Steered),
        ("IPv4 and padding", padded, Verdict::Steered),
        ("IPv4 without payload", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 0))), Verdict::Steered),
        ("IPv4 with Don't Fragment", ethernet(&[0x0800], &ipv4(0x4000, 17, 0, &udp(PORT, 4))), Verdict::Steered),
        ("IPv4 with options", ethernet(&[0x0800], &ipv4(0, 17, 4, &udp(PORT, 32))), Verdict::Steered),
        ("IPv4 with most options", ethernet(&[0x0800], &ipv4(0, 17, 40, &udp(PORT, 32))), Verdict::Steered),
        ("IPv6", ethernet(&[0x86dd], &v6()), Verdict::Steered),
        ("802.1Q, IPv4", ethernet(&[0x8100, 0x0800], &v4()), Verdict::Steered),
        ("802.1Q, IPv6", ethernet(&[0x8100, 0x86dd], &v6()), Verdict::Steered),
        ("QinQ, IPv4", ethernet(&[0x88a8, 0x8100, 0x0800], &v4()), Verdict::Steered),
        ("QinQ, IPv6", ethernet(&[0x88a8, 0x8100, 0x86dd], &v6()), Verdict::Steered),
        ("three tags", ethernet(&[0x88a8, 0x8100, 0x8100, 0x0800], &v4()), Verdict::VlanDepth),
        ("broadcast MAC", changed(ethernet(&[0x0800], &v4()), 0, 0xff), Verdict::GroupAddress),
        ("ARP", ethernet(&[0x0806], &[0; 28]), Verdict::NotIp),
        ("header only", ethernet(&[0x0800], &[]), Verdict::Truncated),
        ("cut in the IPv4 header", cut(ethernet(&[0x0800], &v4()), 33), Verdict::Truncated),
        ("cut in the payload", cut(ethernet(&[0x0800], &v4()), 60), Verdict::Truncated),
        ("cut in the IPv6 header", cut(ethernet(&[0x86dd], &v6()), 53), Verdict::Truncated),
        ("version 5", changed(ethernet(&[0x0800], &v4()), 14, 0x55), Verdict::MalformedIp),
        ("IHL 4", changed(ethernet(&[0x0800], &v4()), 14, 0x44), Verdict::MalformedIp),
        ("IHL 0", changed(ethernet(&[0x0800], &v4()), 14, 0x40), Verdict::MalformedIp),
        ("IPv4 under the EtherType of IPv6", ethernet(&[0x86dd], &v4()), Verdict::MalformedIp),
        ("wrong IPv4 checksum", changed(ethernet(&[0x0800], &v4()), 22, 65), Verdict::IpChecksum),
        ("wrong option", changed(ethernet(&[0x0800], &ipv4(0, 17, 40, &udp(PORT, 32))), 73, 9), Verdict::IpChecksum),
        ("first fragment", ethernet(&[0x0800], &ipv4(0x2000, 17, 0, &udp(PORT, 32))), Verdict::Fragment),
        ("last fragment", ethernet(&[0x0800], &ipv4(0x00b9, 17, 0, &udp(PORT, 32))), Verdict::Fragment),
        ("IPv6 fragment", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 1, 0, 0])), Verdict::Fragment),
        ("ICMP", ethernet(&[0x0800], &ipv4(0, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1])), Verdict::NotUdp),
        ("IPv6 hop-by-hop", ethernet(&[0x86dd], &ipv6(0, &[17, 0, 1, 4, 0, 0, 0, 0])), Verdict::NotUdp),
        ("half a UDP header", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 0)[..4])), Verdict::Truncated),
        ("UDP length 7", changed(ethernet(&[0x0800], &v4()), 39, 7), Verdict::MalformedUdp),
        ("UDP longer than IP", changed(ethernet(&[0x0800], &v4()), 39, 41), Verdict::MalformedUdp),
        (
            "source port 0",
            {
                let mut datagram = udp(PORT, 32);
                datagram[..2].fill(0);
                ethernet(&[0x0800], &ipv4(0, 17, 0, &datagram))
            },
            Verdict::MalformedUdp,
        ),
        ("TCP for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), Verdict::Steered),
        ("UDP for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0, 17, 0, &udp(PORT, 8)))), Verdict::Steered),
        ("a fragment for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0x00b9, 17, 0, &[0; 9]))), Verdict::Steered),
        ("options, for a client", ethernet(&[0x8100, 0x0800], &to_client_v4(ipv4(0, 1, 8, &[0; 8]))), Verdict::Steered),
        ("IPv6 for a client", ethernet(&[0x86dd], &to_client_v6(ipv6(58, &[128, 0, 0, 0]))), Verdict::Steered),
        ("IPv6 fragment for a client", ethernet(&[0x86dd], &to_client_v6(ipv6(44, &[0; 16]))), Verdict::Steered),
        (
            "for a client, but sent to all",
            changed(ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), 0, 0x01),
            Verdict::GroupAddress,
        ),
        (
            "for a client, but damaged",
            changed(ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), 22, 65),
            Verdict::IpChecksum,
        ),
        ("TCP for the NAT", ethernet(&[0x0800], &ipv4(0, 6, 0, &tcp(80, 20_000))), Verdict::Steered),
        ("UDP for the NAT", ethernet(&[0x0800], &ipv4(0, 17, 8, &udp(29_999, 5))), Verdict::Steered),
        ("behind the NAT's ports", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(30_000, 5))), Verdict::NotService),
        ("before the NAT's ports", ethernet(&[0x86dd], &ipv6(6, &tcp(80, 19_999))), Verdict::NotUdp),
        ("IPv6 for the NAT", ethernet(&[0x86dd], &ipv6(6, &tcp(80, 20_001))), Verdict::Steered),
        ("a fragment for the NAT", ethernet(&[0x0800], &ipv4(0x2000, 17, 0, &udp(20_000, 8))), Verdict::Steered),
        ("the next fragment", ethernet(&[0x0800], &ipv4(0x2002, 17, 0, &[0; 8])), Verdict::Steered),
        ("the last fragment", ethernet(&[0x0800], &ipv4(0x0003, 17, 4, &[0; 3])), Verdict::Steered),
        ("one of another protocol", ethernet(&[0x0800], &ipv4(0x0003, 6, 4, &[0; 3])), Verdict::Fragment),
        ("the first one in IPv6", ethernet(&[0x86dd], &ipv6(44, &first_v6(6, &tcp(80, 20_000)))), Verdict::Steered),
        ("the last one in IPv6", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 24, 0, 0, 0, 2, 9])), Verdict::Steered),
        ("a fragment of another", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 24, 0, 0, 0, 3, 9])), Verdict::Fragment),
        ("a fragment that comes early", ethernet(&[0x0800], &alone(ipv4(0x0003, 17, 0, &[0; 3]))), Verdict::Steered),
        ("a fragment for the host", ethernet(&[0x0800], &alone(ipv4(0x2000, 17, 0, &udp(53, 8)))), Verdict::Fragment),
        ("the fragment behind it", ethernet(&[0x0800], &alone(ipv4(0x0003, 17, 0, &[0; 3]))), Verdict::Fragment),
        ("a query to the NAT alone", ethernet(&[0x0800], &alone(ipv4(0, 1, 0, &QUERY))), Verdict::NotUdp),
        ("a query to the NAT", ethernet(&[0x0800], &ipv4(0, 1, 0, &[8, 0, 0, 0, 0x4e, 0x20])), Verdict::NotUdp),
        ("an answer to the NAT", ethernet(&[0x0800], &ipv4(0, 1, 0, &[0, 0, 0, 0, 0x4e, 0x20])), Verdict::Steered),
        ("an answer to another", ethernet(&[0x0800], &ipv4(0, 1, 0, &[0, 0, 0, 0, 0x4e, 0x1f])), Verdict::NotUdp),
        ("an ICMPv6 answer", ethernet(&[0x86dd], &ipv6(58, &[129, 0, 0, 0, 0x4e, 0x20])), Verdict::Steered),
        ("time exceeded", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(11, 17, &udp(80, 0)))), Verdict::NotUdp),
        (
            "time exceeded, NAT",
            ethernet(&[0x0800], &ipv4(0, 1, 4, &error_v4(11, 17, &tcp(25_000, 80)))),
            Verdict::Steered,
        ),
        ("unreachable, a query", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(3, 1, &QUERY))), Verdict::Steered),
        ("redirect", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(5, 17, &tcp(25_000, 80)))), Verdict::NotUdp),
        ("too big, NAT", ethernet(&[0x86dd], &ipv6(58, &error_v6(2, 6, &tcp(25_000, 80)))), Verdict::Steered),
        ("too big, another", ethernet(&[0x86dd], &ipv6(58, &error_v6(2, 6, &tcp(2_500, 80)))), Verdict::NotUdp),
        (
            "cut in what is quoted",
            ethernet(&[0x0800], &ipv4(0, 1, 0, &[11, 0, 0, 0, 0, 0, 0, 0, 0x45])),
            Verdict::NotUdp,
        ),
        ("another port", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT + 1, 32))), Verdict::NotService),
        ("another IPv6 address", changed(ethernet(&[0x86dd], &v6()), 53, 0x54), Verdict::NotService),
    ]
}
