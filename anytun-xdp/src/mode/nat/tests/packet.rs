//! Packets for tests, with checksums reckoned word by word, as RFC 1071 says it first.

use std::net::IpAddr;

/// What a test packet carries.
#[derive(Clone)]
pub(super) enum Body {
    Udp { ports: [u16; 2], payload: Vec<u8>, has_sum: bool },
    Tcp { ports: [u16; 2], flags: u8, payload: Vec<u8> },
    Icmp { kind: u8, code: u8, word: u32, payload: Vec<u8> },
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Body {
    Body::Udp { ports: [source, destination], payload: payload.to_vec(), has_sum: true }
}

pub(super) fn tcp(source: u16, destination: u16, flags: u8, payload: &[u8]) -> Body {
    Body::Tcp { ports: [source, destination], flags, payload: payload.to_vec() }
}

/// An echo request or reply of the family.
pub(super) fn echo(is_v4: bool, is_request: bool, id: u16, payload: &[u8]) -> Body {
    let kind = match (is_v4, is_request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    Body::Icmp { kind, code: 0, word: u32::from(id) << 16 | 7, payload: payload.to_vec() }
}

/// An error that quotes `quote`.
pub(super) fn error(kind: u8, code: u8, word: u32, quote: &[u8]) -> Body {
    Body::Icmp { kind, code, word, payload: quote.to_vec() }
}

/// The sum of 16-bit words with end-around carry.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A whole packet from one address to another.
pub(super) fn packet(source: &str, destination: &str, body: &Body) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    let is_v4 = source.is_ipv4();
    let (protocol, mut transport, sum_at) = match body {
        Body::Udp { ports, payload, .. } => {
            let mut h = ports.map(u16::to_be_bytes).concat();
            h.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
            h.extend_from_slice(&[0, 0]);
            (17, [&h, payload.as_slice()].concat(), 6)
        }
        Body::Tcp { ports, flags, payload } => {
            let mut h = ports.map(u16::to_be_bytes).concat();
            h.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0x50, *flags, 0x20, 0, 0, 0, 0, 0]);
            (6, [&h, payload.as_slice()].concat(), 16)
        }
        Body::Icmp { kind, code, word, payload } => {
            let mut h = vec![*kind, *code, 0, 0];
            h.extend_from_slice(&word.to_be_bytes());
            (if is_v4 { 1 } else { 58 }, [&h, payload.as_slice()].concat(), 2)
        }
    };
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut h = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 63, protocol, 0, 0];
            h[2..4].copy_from_slice(&(20 + transport.len() as u16).to_be_bytes());
            h.extend_from_slice(&source.octets());
            h.extend_from_slice(&destination.octets());
            let checksum = !sum(&h);
            h[10..12].copy_from_slice(&checksum.to_be_bytes());
            h
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut h = vec![0x60, 0, 0, 0, 0, 0, protocol, 63];
            h[4..6].copy_from_slice(&(transport.len() as u16).to_be_bytes());
            h.extend_from_slice(&source.octets());
            h.extend_from_slice(&destination.octets());
            h
        }
        _ => panic!("addresses of two families"),
    };
    if !matches!(body, Body::Udp { has_sum: false, .. }) {
        let checksum = match !sum(&covered(&packet, &transport, protocol)) {
            0 if protocol == 17 => 0xffff,
            checksum => checksum,
        };
        transport[sum_at..sum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    packet.extend_from_slice(&transport);
    packet
}

/// What the checksum of `transport` covers.
fn covered(header: &[u8], transport: &[u8], protocol: u8) -> Vec<u8> {
    let addresses = match (header[0] >> 4, protocol) {
        (4, 1) => return transport.to_vec(),
        (4, _) => &header[12..20],
        _ => &header[8..40],
    };
    let length = transport.len() as u32;
    [addresses, &length.to_be_bytes(), &[0, 0, 0, protocol], transport].concat()
}

/// Whether the checksums of a packet without extension headers are right: of the IPv4 header, and of what is in it if that is
/// whole and has one.
pub(super) fn is_right(packet: &[u8]) -> (bool, bool) {
    let (header, total, protocol, is_fragment) = match packet[0] >> 4 {
        4 => {
            let total = u16::from_be_bytes([packet[2], packet[3]]);
            let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff;
            (usize::from(packet[0] & 15) * 4, usize::from(total), packet[9], offset != 0)
        }
        _ => (40, 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet[6], false),
    };
    let is_header_right = packet[0] >> 4 != 4 || sum(&packet[..header]) == 0xffff;
    let transport = &packet[header..total];
    let has_none = protocol == 17 && transport[6..8] == [0, 0];
    let is_sum_right = is_fragment || has_none || sum(&covered(packet, transport, protocol)) == 0xffff;
    (is_header_right, is_sum_right)
}

/// The packet with its ends exchanged: what an answer with the same content looks like.
pub(super) fn mirrored(packet: &[u8]) -> Vec<u8> {
    let mut mirrored = packet.to_vec();
    let (at, octets, transport) = if packet[0] >> 4 == 4 { (12, 4, 20) } else { (8, 16, 40) };
    mirrored[at..at + 2 * octets].rotate_left(octets);
    mirrored[transport..transport + 4].rotate_left(2);
    mirrored
}

/// Cuts an IPv4 packet without options in two behind `octets` of its payload, which are a multiple of eight.
pub(super) fn fragments(packet: &[u8], octets: usize) -> [Vec<u8>; 2] {
    let piece = |payload: &[u8], flags: u16| {
        let mut piece = [&packet[..20], payload].concat();
        let total = piece.len() as u16;
        piece[2..4].copy_from_slice(&total.to_be_bytes());
        piece[6..8].copy_from_slice(&flags.to_be_bytes());
        piece[10..12].fill(0);
        let checksum = !sum(&piece[..20]);
        piece[10..12].copy_from_slice(&checksum.to_be_bytes());
        piece
    };
    let (first, second) = packet[20..].split_at(octets);
    [piece(first, 0x2000), piece(second, octets as u16 / 8)]
}

/// The same for IPv6.
pub(super) fn fragments_v6(packet: &[u8], octets: usize) -> [Vec<u8>; 2] {
    let piece = |payload: &[u8], offset: u16| {
        let mut piece = packet[..40].to_vec();
        piece[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        piece[6] = 44;
        piece.extend_from_slice(&[packet[6], 0]);
        piece.extend_from_slice(&offset.to_be_bytes());
        piece.extend_from_slice(&[0, 1, 0xe2, 0x40]);
        piece.extend_from_slice(payload);
        piece
    };
    let (first, second) = packet[40..].split_at(octets);
    [piece(first, 1), piece(second, octets as u16)]
}
