//! The decoder on frames written out by hand.

use anytun_common::classify::{Datagram, Fragment, classify, fragment, network, plain, port};
use anytun_common::map::{FragmentKey, NO_PORT};
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// Port 40000 to 4444, 8 + 4 octets, no checksum; then four octets of payload.
const UDP: [u8; 12] = [0x9c, 0x40, 0x11, 0x5c, 0, 12, 0, 0, b's', b'a', b't', b'p'];

/// An Ethernet frame: what lies between the addresses and the IP header, and the IP packet.
fn frame(types: &[u8], packet: &[u8]) -> Vec<u8> {
    [&MACS[..], types, packet].concat()
}

/// An IPv4 packet from 198.51.100.7 to 192.0.2.53 with `options`, whose header `change` may spoil before it is summed up.
fn ipv4(options: &[u8], payload: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let header = 20 + options.len();
    let total = (header + payload.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0xb9];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 53]);
    packet.extend_from_slice(options);
    change(&mut packet);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x90, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53]);
    packet.extend_from_slice(payload);
    packet
}

fn found(frame: &[u8]) -> Datagram {
    classify(frame).expect("a datagram")
}

#[test]
fn a_datagram_is_found_behind_every_number_of_tags_it_may_have() {
    let tagged: [(&[u8], usize); 4] = [
        (&[0x08, 0], 14),
        (&[0x81, 0, 0, 10, 0x08, 0], 18),
        (&[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10, 0x08, 0], 22),
        (&[0x81, 0, 0, 20, 0x81, 0, 0, 10, 0x08, 0], 22),
    ];
    for (types, network) in tagged {
        let frame = frame(types, &ipv4(&[], &UDP, |_| ()));
        let expected = Datagram {
            network,
            payload: network + 28,
            length: 4,
            v4: true,
            tos: 0xb9,
            source: mapped([198, 51, 100, 7]),
            source_port: 40_000,
            destination: mapped([192, 0, 2, 53]),
            destination_port: 4444,
        };
        assert_eq!(found(&frame), expected);
    }
    let three = frame(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x08, 0], &ipv4(&[], &UDP, |_| ()));
    assert_eq!(classify(three.as_slice()), Err(Verdict::VlanDepth));
}

#[test]
fn ipv4_options_of_every_length_are_stepped_over_and_summed_up() {
    for words in 0..=10 {
        let mut frame = frame(&[0x08, 0], &ipv4(&vec![1; words * 4], &UDP, |_| ()));
        assert_eq!(found(&frame).payload, 14 + 20 + words * 4 + 8);
        if words > 0 {
            frame[14 + 20] ^= 0x10;
            assert_eq!(classify(frame.as_slice()), Err(Verdict::IpChecksum), "{words} words of options");
        }
    }
}

#[test]
fn ipv6_is_found_with_its_traffic_class() {
    let datagram = found(&frame(&[0x86, 0xdd], &ipv6(17, &UDP)));
    assert_eq!((datagram.v4, datagram.tos, datagram.payload, datagram.length), (false, 0xb9, 62, 4));
    assert_eq!(datagram.destination[..4], [0x20, 1, 0xd, 0xb8]);
    assert_eq!(datagram.destination[15], 0x53);
}

#[test]
fn what_is_behind_the_udp_length_or_the_ip_length_does_not_count() {
    let mut padded = frame(&[0x08, 0], &ipv4(&[], &UDP, |_| ()));
    padded.resize(60, 0xee);
    assert_eq!(found(&padded).length, 4, "Ethernet padding");
    let mut short = UDP;
    short[5] = 10;
    assert_eq!(found(&frame(&[0x08, 0], &ipv4(&[], &short, |_| ()))).length, 2, "a UDP length below the IP length");
}

#[test]
fn everything_else_passes_under_its_own_name() {
    let v4 = |change: fn(&mut [u8])| frame(&[0x08, 0], &ipv4(&[], &UDP, change));
    let udp = |change: fn(&mut [u8])| {
        let mut udp = UDP;
        change(&mut udp);
        frame(&[0x08, 0], &ipv4(&[], &udp, |_| ()))
    };
    let with = |mut frame: Vec<u8>, at: usize, octet: u8| {
        frame[at] = octet;
        frame
    };
    let rows = [
        ("broadcast", with(v4(|_| ()), 0, 0xff), Verdict::GroupAddress),
        ("IPv4 multicast MAC", with(v4(|_| ()), 0, 1), Verdict::GroupAddress),
        ("ARP", frame(&[0x08, 0x06], &[0; 28]), Verdict::NotIp),
        ("802.3 length", frame(&[0, 46], &[0; 46]), Verdict::NotIp),
        ("version 6 in IPv4", v4(|h| h[0] = 0x65), Verdict::MalformedIp),
        ("IHL 4", v4(|h| h[0] = 0x44), Verdict::MalformedIp),
        ("IHL 0", v4(|h| h[0] = 0x40), Verdict::MalformedIp),
        ("total length below the header", v4(|h| h[2..4].copy_from_slice(&[0, 19])), Verdict::MalformedIp),
        ("total length beyond the frame", v4(|h| h[3] += 1), Verdict::Truncated),
        ("wrong checksum", with(v4(|_| ()), 14 + 8, 63), Verdict::IpChecksum),
        ("first fragment", v4(|h| h[6] = 0x20), Verdict::Fragment),
        ("later fragment", v4(|h| h[7] = 1), Verdict::Fragment),
        ("TCP", v4(|h| h[9] = 6), Verdict::NotUdp),
        ("UDP length below its header", udp(|u| u[5] = 7), Verdict::MalformedUdp),
        ("UDP length beyond IP", udp(|u| u[5] = 13), Verdict::MalformedUdp),
        ("source port 0", udp(|u| u[..2].fill(0)), Verdict::MalformedUdp),
        ("IP without a UDP header", frame(&[0x08, 0], &ipv4(&[], &[], |_| ())), Verdict::Truncated),
        ("version 4 in IPv6", with(frame(&[0x86, 0xdd], &ipv6(17, &UDP)), 14, 0x45), Verdict::MalformedIp),
        ("IPv6 fragment", frame(&[0x86, 0xdd], &ipv6(44, &UDP)), Verdict::Fragment),
        ("IPv6 hop-by-hop", frame(&[0x86, 0xdd], &ipv6(0, &UDP)), Verdict::NotUdp),
        ("ICMPv6", frame(&[0x86, 0xdd], &ipv6(58, &UDP)), Verdict::NotUdp),
    ];
    for (name, frame, verdict) in rows {
        assert_eq!(classify(frame.as_slice()), Err(verdict), "{name}");
    }
}

#[test]
fn every_truncation_is_told_as_one() {
    for whole in [
        frame(&[0x08, 0], &ipv4(&[1; 8], &UDP, |_| ())),
        frame(&[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10, 0x08, 0], &ipv4(&[], &UDP, |_| ())),
        frame(&[0x81, 0, 0, 10, 0x86, 0xdd], &ipv6(17, &UDP)),
    ] {
        for length in 0..whole.len() {
            assert_eq!(classify(&whole[..length]), Err(Verdict::Truncated), "{length} of {} octets", whole.len());
        }
    }
}

/// What a frame with a fragment says of its datagram.
fn part(frame: &[u8]) -> Fragment {
    let network = network(frame).expect("an IP packet");
    assert!(network.fragment);
    fragment(frame, &network).expect("a fragment")
}

#[test]
fn fragments_of_one_datagram_have_one_key_and_the_first_has_the_port() {
    let v4 = |flags: [u8; 2], payload: &[u8]| {
        let packet = ipv4(&[], payload, |header| header[6..8].copy_from_slice(&flags));
        part(&frame(&[0x08, 0], &packet))
    };
    let first = v4([0x20, 0], &UDP);
    let key = FragmentKey {
        source: mapped([198, 51, 100, 7]),
        destination: mapped([192, 0, 2, 53]),
        identification: [0, 0, 0x12, 0x34],
        protocol: 17,
        reserved: [0; 3],
    };
    assert_eq!(first, Fragment { key, port: Some(4444) });
    assert_eq!(v4([0x20, 0], &UDP[..3]).port, Some(NO_PORT), "a first fragment without its port");
    for flags in [[0x20, 1], [0, 2], [0x1f, 0xff]] {
        assert_eq!(v4(flags, &UDP), Fragment { key, port: None });
    }
    let v6 = |head: [u8; 8]| part(&frame(&[0x86, 0xdd], &ipv6(44, &[&head[..], &UDP].concat())));
    let first = v6([17, 0, 0, 1, 9, 8, 7, 6]);
    assert_eq!((first.port, first.key.identification, first.key.protocol), (Some(4444), [9, 8, 7, 6], 0));
    // RFC 8200 section 4.5: only the first one's next header counts.
    assert_eq!(v6([6, 0, 0, 8, 9, 8, 7, 6]), Fragment { port: None, ..first });
    assert_eq!(v6([17, 0, 0, 0, 9, 8, 7, 6]), first, "a whole packet in one fragment (RFC 6946)");
    assert_ne!(v6([17, 0, 0, 8, 9, 8, 7, 5]).key, first.key);
    let cut = frame(&[0x86, 0xdd], &ipv6(44, &[17, 0, 0, 1, 9, 8, 7]));
    assert_eq!(fragment(cut.as_slice(), &network(cut.as_slice()).expect("an IP packet")), None);
}

/// In the map of a NAT's ports 0 stands for fragments.
#[test]
fn a_whole_packet_never_has_the_port_of_fragments() {
    let told = |protocol: u8, payload: &[u8]| {
        let frame = frame(&[0x08, 0], &ipv4(&[], payload, |header| header[9] = protocol));
        port(frame.as_slice(), &network(frame.as_slice()).expect("an IP packet"))
    };
    let echo_reply = |identifier: u8| [0, 0, 0, 0, 0, identifier, 0, 1];
    assert_eq!((told(1, &echo_reply(7)), told(1, &echo_reply(0))), (7, NO_PORT));
    let to_port = |port: u8| [1, 1, 0, port, 0, 8, 0, 0];
    for protocol in [6, 17] {
        assert_eq!((told(protocol, &to_port(7)), told(protocol, &to_port(0))), (7, NO_PORT));
    }
    let first = ipv4(&[], &to_port(0), |header| header[6] = 0x20);
    assert_eq!(part(&frame(&[0x08, 0], &first)).port, Some(NO_PORT));
}

/// The short way is a way to the same.
#[test]
fn what_is_plain_is_found_as_anything_else() {
    let tagged = frame(&[0x81, 0, 0, 10, 0x08, 0], &ipv4(&[], &UDP, |_| ()));
    let whole = frame(&[0x08, 0], &ipv4(&[], &UDP, |_| ()));
    let long = [&whole[..], &[0; 6]].concat();
    let part = frame(&[0x08, 0], &ipv4(&[], &UDP, |packet| packet[6] = 0x20));
    let options = frame(&[0x08, 0], &ipv4(&[1; 4], &UDP, |_| ()));
    for frame in [&whole, &long] {
        assert_eq!(plain(&frame[..]), network(&frame[..]).ok());
        assert!(plain(&frame[..]).is_some());
    }
    for other in [&tagged, &part, &options, &frame(&[0x86, 0xdd], &ipv6(17, &UDP))] {
        assert_eq!(plain(&other[..]), None, "{other:02x?}");
        assert!(network(&other[..]).is_ok());
    }
    // Every octet of the headers with every value, and every length: found alike, or by the other way only.
    for at in 0..34 {
        for value in 0..=255 {
            let mut changed = whole.clone();
            changed[at] = value;
            let found = plain(&changed[..]);
            assert!(found.is_none() || found == network(&changed[..]).ok(), "{value:#x} at {at}");
        }
    }
    for length in 0..whole.len() {
        assert_eq!(plain(&whole[..length]), None, "{length} octets");
    }
}
