//! Messages written by hand, after the figures of the RFCs.

use super::*;

const GROUP: [u8; 4] = [239, 1, 2, 3];
const OTHER: [u8; 4] = [232, 0, 0, 9];
const GROUP6: [u8; 16] = [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3];

/// A message of IGMP with a right checksum, in a packet to 224.0.0.22 with router alert.
fn igmp(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x46, 0xc0, 0, 24 + message.len() as u8, 0, 0, 0x40, 0, 1, 2, 0, 0];
    packet.extend_from_slice(&[10, 9, 0, 11, 224, 0, 0, 22, 0x94, 4, 0, 0]);
    packet.extend_from_slice(&message);
    packet
}

/// A message of ICMPv6 with a right checksum, in a packet to ff02::16 behind these hop-by-hop options.
fn icmpv6_behind(options: &[u8], message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, (options.len() + message.len()) as u8, 0, 1];
    packet.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]);
    packet.extend_from_slice(options);
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let pseudo = [&packet[8..40], &[0, 0, 0, message.len() as u8, 0, 0, 0, 58], &message[..]].concat();
    message[2..4].copy_from_slice(&checksum::of(&pseudo).to_be_bytes());
    packet.extend_from_slice(&message);
    packet
}

/// Router alert for MLD, and PadN.
const ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

fn mld(message: &[u8]) -> Vec<u8> {
    icmpv6_behind(&ALERT, message)
}

fn said(packet: &[u8]) -> Option<Vec<(Kind, [u8; 16])>> {
    Report::new(packet).map(Iterator::collect)
}

/// A record of IGMPv3 (RFC 3376 §4.2.4).
fn record(kind: u8, group: [u8; 4], sources: &[[u8; 4]], auxiliary: &[u8]) -> Vec<u8> {
    let head = [kind, (auxiliary.len() / 4) as u8, 0, sources.len() as u8];
    [&head[..], &group, &sources.concat(), auxiliary].concat()
}

fn v3(records: &[Vec<u8>]) -> Vec<u8> {
    igmp(&[&[0x22, 0, 0, 0, 0, 0, 0, records.len() as u8][..], &records.concat()].concat())
}

#[test]
fn versions_1_and_2_are_about_one_group() {
    let one = |kind| said(&igmp(&[&[kind, 0, 0, 0][..], &GROUP].concat()));
    assert_eq!(one(0x12), Some(vec![(Kind::Join, mapped(GROUP))]), "RFC 1112 appendix I");
    assert_eq!(one(0x16), Some(vec![(Kind::Join, mapped(GROUP))]), "RFC 2236 §2.1");
    assert_eq!(one(0x17), Some(vec![(Kind::Leave, mapped(GROUP))]));
    for no_report in [0x11, 0x13, 0x14, 0x30, 0] {
        assert_eq!(one(no_report), None, "type {no_report:#x}");
    }
    let one = |kind: u8| said(&mld(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6].concat()));
    assert_eq!(one(131), Some(vec![(Kind::Join, GROUP6)]), "RFC 2710 §3");
    assert_eq!(one(132), Some(vec![(Kind::Leave, GROUP6)]));
    for no_report in [130, 128, 135, 1] {
        assert_eq!(one(no_report), None, "type {no_report}");
    }
}

#[test]
fn records_are_of_members_whatever_their_sources() {
    let source = [[192, 0, 2, 1]];
    let (none, some) = (&source[..0], &source[..]);
    for (kind, sources, meaning) in [
        (1, none, Some(Kind::Leave)),
        (1, some, Some(Kind::Join)),
        (2, none, Some(Kind::Join)),
        (2, some, Some(Kind::Join)),
        (3, none, Some(Kind::Leave)),
        (3, some, Some(Kind::Join)),
        (4, none, Some(Kind::Join)),
        (4, some, Some(Kind::Join)),
        (5, none, None),
        (5, some, Some(Kind::Join)),
        (6, none, None),
        (6, some, Some(Kind::Leave)),
        (0, none, None),
        (7, some, None),
    ] {
        let expected = meaning.map(|kind| (kind, mapped(GROUP)));
        let packet = v3(&[record(kind, GROUP, sources, &[])]);
        assert_eq!(said(&packet), Some(Vec::from_iter(expected)), "type {kind}, {} sources", sources.len());
    }
}

#[test]
fn several_records_with_sources_and_auxiliary_data() {
    let sources = [[192, 0, 2, 1], [192, 0, 2, 2]];
    let packet = v3(&[
        record(4, GROUP, &sources, &[1, 2, 3, 4, 5, 6, 7, 8]),
        record(4, [224, 0, 0, 251], &[], &[]),
        record(3, OTHER, &[], &[]),
    ]);
    let expected = vec![(Kind::Join, mapped(GROUP)), (Kind::Leave, mapped(OTHER))];
    assert_eq!(said(&packet), Some(expected), "no member of a group of the link is known");
    assert_eq!(said(&v3(&[])), Some(Vec::new()));
    // RFC 3810 §5.2: two records, the first with a source, the second of the link.
    let mut message = vec![143, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 1];
    message.extend_from_slice(&GROUP6);
    message.extend_from_slice(&[0x20; 16]);
    message.extend_from_slice(&[4, 0, 0, 0]);
    message.extend_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 7]);
    assert_eq!(said(&mld(&message)), Some(vec![(Kind::Join, GROUP6)]));
}

#[test]
fn what_is_no_group_is_nobody_s() {
    for group in [[10, 9, 0, 11], [0; 4], [255; 4], [224, 0, 0, 5]] {
        assert_eq!(said(&igmp(&[&[0x16, 0, 0, 0][..], &group].concat())), Some(Vec::new()), "{group:?}");
    }
    let mapped = mapped(GROUP);
    let mut unicast = GROUP6;
    unicast[0] = 0xfd;
    for group in [unicast, [0; 16]] {
        assert_eq!(said(&mld(&[&[131, 0, 0, 0, 0, 0, 0, 0][..], &group].concat())), Some(Vec::new()), "{group:?}");
    }
    let disguised = said(&mld(&[&[131, 0, 0, 0, 0, 0, 0, 0][..], &mapped].concat()));
    assert_eq!(disguised, Some(Vec::new()), "MLD does not speak of groups of IPv4");
}

#[test]
fn what_hosts_do_not_send_is_no_report() {
    let good = v3(&[record(4, GROUP, &[], &[])]);
    assert!(said(&good).is_some());
    // TTL, protocol, two of fragments, a destination that is no group, the checksum.
    for (at, octet) in [(8, 2), (9, 17), (6, 0x20), (7, 1), (16, 0x80), (26, 1)] {
        let mut packet = good.clone();
        packet[at] ^= octet;
        assert_eq!(said(&packet), None, "octet {at}");
    }
    let one_of_two = [&[0x22, 0, 0, 0, 0, 0, 0, 2][..], &record(4, GROUP, &[], &[])].concat();
    assert_eq!(said(&igmp(&one_of_two)), None);
    let message = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6].concat();
    let good = mld(&message);
    assert!(said(&good).is_some());
    for (at, octet) in [(7, 2), (24, 0xfe), (50, 1), (70, 1)] {
        let mut packet = good.clone();
        packet[at] ^= octet;
        assert_eq!(said(&packet), None, "octet {at}");
    }
    // Router alert may stand behind other options, and for another protocol (RSVP is 1) it is not this one (RFC 2711 §2.1).
    let padded = [58, 1, 0, 1, 4, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0];
    assert!(said(&icmpv6_behind(&padded, &message)).is_some());
    for options in [[58, 0, 1, 4, 0, 0, 0, 0], [58, 0, 5, 2, 0, 1, 1, 0], [58, 0, 1, 200, 0, 0, 0, 0]] {
        assert_eq!(said(&icmpv6_behind(&options, &message)), None, "{options:?}");
    }
    let mut bare = good;
    bare.drain(40..48);
    (bare[5], bare[6]) = (24, 58);
    assert_eq!(said(&bare), None, "without router alert");
}

/// With the checksum made right again, so that what is behind it is read.
#[test]
fn neither_short_nor_random_octets_are_a_surprise() {
    let whole = v3(&[record(4, GROUP, &[[1; 4]; 3], &[9; 8]), record(3, OTHER, &[], &[])]);
    let other = mld(&[&[143, 0, 0, 0, 0, 0, 0, 1, 4, 1, 0, 1][..], &GROUP6, &[7; 20]].concat());
    assert_eq!((said(&whole).map(|said| said.len()), said(&other).map(|said| said.len())), (Some(2), Some(1)));
    for packet in [&whole, &other] {
        for length in 0..packet.len() {
            assert_eq!(said(&packet[..length]), None, "{length} octets");
        }
    }
    let mut state = 1_u64;
    let mut random = || {
        // The linear congruential generator of MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut message = whole[24..24 + 8 + random() % (whole.len() - 31)].to_vec();
        for _ in 0..random() % 4 {
            let at = random() % message.len();
            message[at] = random() as u8;
        }
        let groups = said(&igmp(&message)).unwrap_or_default();
        assert!(groups.len() <= message.len() / 8 && groups.iter().all(|(_, group)| is_routed(Width::V4, *group)));
        let mut message = other[48..48 + 8 + random() % (other.len() - 55)].to_vec();
        for _ in 0..random() % 4 {
            let at = random() % message.len();
            message[at] = random() as u8;
        }
        let groups = said(&mld(&message)).unwrap_or_default();
        assert!(groups.len() <= 1 + message.len() / 20 && groups.iter().all(|(_, group)| is_routed(Width::V6, *group)));
    }
}
