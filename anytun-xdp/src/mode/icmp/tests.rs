use anytun_common::wire::ethernet;

use super::*;

/// UDP from 10.9.0.11 to 10.9.0.99, TOS b9, TTL 1. This and the errors below were built octet by octet from the RFCs, with
/// sums of their own.
const UDP_V4: &str = "45b9002012340000011192610a09000b0a0900639c40829a000c000061626364";
const TIME_EXCEEDED_V4: &str = "45d8003c0000400040016fcdc00000080a09000b0b001152000000004\
    5b9002012340000011192610a09000b0a0900639c40829a000c000061626364";
const UNREACHABLE_V4: &str = "45d8003c00004000400125cc0a0900010a09000b0300195200000000\
    45b9002012340000011192610a09000b0a0900639c40829a000c000061626364";
const UDP_V6: &str = "6b912345000c1101fd000009000000000000000000000011fd000009000000000000000000000099\
    9c40829a000c000061626364";
const TIME_EXCEEDED_V6: &str = "6d800000003c3a4020010db8000000000000000000000053fd000009000000000000000000000011\
    0300531300000000\
    6b912345000c1101fd000009000000000000000000000011fd0000090000000000000000000000999c40829a000c000061626364";
const NO_ROUTE_V6: &str = "6d800000003c3a4020010db8000000000000000000000053fd000009000000000000000000000011\
    0100551300000000\
    6b912345000c1101fd000009000000000000000000000011fd0000090000000000000000000000999c40829a000c000061626364";

const NOTHING: Sources = Sources { v4: None, v6: None };

fn own() -> Sources {
    Sources { v4: Some(Ipv4Addr::new(10, 9, 0, 1)), v6: Some("2001:db8::53".parse().expect("address")) }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("hex")
}

/// The answer to a packet, in a frame that is larger and dirty.
fn answered(packet: &[u8], problem: Problem, sources: Sources) -> Option<Vec<u8>> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + 48, 0xee);
    let payload_type = if packet.first()? >> 4 == 6 { ethernet::IPV6 } else { ethernet::IPV4 };
    let length = answer(&mut buffer, payload_type, problem, sources, || true);
    if length.is_none() {
        assert_eq!(&buffer[..packet.len()], packet, "a packet without an answer stays as it is");
    }
    buffer.truncate(length?);
    Some(buffer)
}

/// `packet` made `length` octets long, with flags if it is IPv4.
fn sized(packet: &str, length: usize, flags: u16) -> Vec<u8> {
    let mut packet = bytes(packet);
    packet.resize(length, 0x5a);
    if packet[0] >> 4 == 4 {
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
    }
    packet
}

/// Sums up 16 bits at a time, as RFC 1071 says: of what has a right checksum it is 0xffff.
fn sum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    words.fold(0, |sum, word| ((sum + word) & 0xffff) + ((sum + word) >> 16))
}

fn assert_sound(error: &[u8]) {
    if error[0] >> 4 == 4 {
        assert_eq!((sum(&[&error[..20]]), sum(&[&error[20..]])), (0xffff, 0xffff));
        assert_eq!(usize::from(u16::from_be_bytes([error[2], error[3]])), error.len());
    } else {
        let length = (error.len() - 40) as u16;
        assert_eq!(sum(&[&error[8..40], &length.to_be_bytes(), &[0, 58], &error[40..]]), 0xffff);
        assert_eq!(error[4..6], length.to_be_bytes());
    }
}

#[test]
fn errors_are_those_of_the_rfcs_octet_by_octet() {
    let rows = [
        (UDP_V4, Problem::HopLimit, NOTHING, TIME_EXCEEDED_V4),
        (UDP_V4, Problem::NoRoute, own(), UNREACHABLE_V4),
        (UDP_V6, Problem::HopLimit, own(), TIME_EXCEEDED_V6),
        (UDP_V6, Problem::NoRoute, own(), NO_ROUTE_V6),
    ];
    for (packet, problem, sources, expected) in rows {
        let answer = answered(&bytes(packet), problem, sources).expect("an answer");
        assert_eq!(hex::encode(&answer), expected, "{problem:?}");
        assert_sound(&answer);
    }
    assert_eq!(answered(&bytes(UDP_V6), Problem::HopLimit, NOTHING), None, "there is no address to send it from");
}

#[test]
fn type_and_code_fit_the_problem() {
    let rows = [
        (Problem::HopLimit, [11, 0], [3, 0]),
        (Problem::NoRoute, [3, 0], [1, 0]),
        (Problem::NoHost, [3, 1], [1, 3]),
        (Problem::Prohibited, [3, 13], [1, 1]),
        (Problem::TooBig { mtu: 1300 }, [3, 4], [2, 0]),
    ];
    for (problem, v4, v6) in rows {
        let answer = answered(&sized(UDP_V4, 1400, 0x4000), problem, own()).expect("an answer");
        assert_eq!(answer[20..22], v4, "{problem:?}");
        let answer = answered(&sized(UDP_V6, 1400, 0), problem, own()).expect("an answer");
        assert_eq!(answer[40..42], v6, "{problem:?}");
    }
}

#[test]
fn as_much_is_quoted_as_fits() {
    for length in [32, 52, 547, 548, 549, 1400, 3800] {
        let packet = sized(UDP_V4, length, 0);
        let answer = answered(&packet, Problem::NoRoute, own()).expect("an answer");
        assert_eq!(answer.len(), (28 + length).min(576));
        assert_eq!(answer[28..], packet[..answer.len() - 28]);
        assert_sound(&answer);
        let packet = sized(UDP_V6, length.max(52), 0);
        let answer = answered(&packet, Problem::NoRoute, own()).expect("an answer");
        assert_eq!(answer.len(), (48 + length.max(52)).min(1280));
        assert_eq!(answer[48..], packet[..answer.len() - 48]);
        assert_sound(&answer);
    }
}

#[test]
fn a_size_is_told_to_whom_it_helps() {
    let too_big = |packet: &[u8], mtu| answered(packet, Problem::TooBig { mtu }, own());
    let answer = too_big(&sized(UDP_V4, 1443, 0x4000), 1442).expect("an answer");
    assert_eq!(answer[24..28], [0, 0, 0x05, 0xa2]);
    assert_sound(&answer);
    assert_eq!(too_big(&sized(UDP_V4, 1443, 0), 1442), None, "it may be fragmented");
    assert_eq!(too_big(&sized(UDP_V4, 1442, 0x4000), 1442), None, "it is not too big");
    let answer = too_big(&sized(UDP_V6, 1443, 0), 1442).expect("an answer");
    assert_eq!(answer[44..48], [0, 0, 0x05, 0xa2]);
    assert_sound(&answer);
    let answer = too_big(&sized(UDP_V6, 1281, 0), 1200).expect("an answer");
    assert_eq!(answer[44..48], [0, 0, 0x05, 0x00], "no less than every link carries");
    assert_eq!(too_big(&sized(UDP_V6, 1280, 0), 1200), None);
}

#[test]
fn errors_and_what_may_be_errors_are_not_answered() {
    let mut packet = bytes(UDP_V4);
    packet[9] = 1;
    for kind in 0..=255 {
        packet[20] = kind;
        let query = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43].contains(&kind);
        assert_eq!(answered(&packet, Problem::HopLimit, own()).is_some(), query, "ICMP type {kind}");
    }
    packet.truncate(20);
    packet[3] = 20;
    assert_eq!(answered(&packet, Problem::HopLimit, own()), None, "ICMP without a type");
    // The same behind options and behind extension headers.
    let mut packet = bytes(UDP_V4);
    packet[0] = 0x46;
    (packet[9], packet[24]) = (1, 3);
    assert_eq!(answered(&packet, Problem::HopLimit, own()), None);
    for extensions in [&[][..], &[58, 0, 0, 0, 0, 0, 0, 0], &[60, 0, 0, 0, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0]] {
        let mut packet = bytes(UDP_V6)[..40].to_vec();
        packet[6] = if extensions.is_empty() { 58 } else { 60 };
        packet[5] = extensions.len() as u8 + 8;
        packet.extend_from_slice(extensions);
        for kind in 0..=255 {
            packet.truncate(40 + extensions.len());
            packet.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
            let due = kind >= 128 && kind != 137;
            assert_eq!(answered(&packet, Problem::HopLimit, own()).is_some(), due, "ICMPv6 type {kind}");
        }
    }
}

#[test]
fn no_answer_is_answered() {
    for (packet, problem) in [(UDP_V4, Problem::HopLimit), (UDP_V4, Problem::NoHost), (UDP_V6, Problem::HopLimit)] {
        let answer = answered(&bytes(packet), problem, own()).expect("an answer");
        for again in [Problem::HopLimit, Problem::NoRoute, Problem::NoHost, Problem::TooBig { mtu: 50 }] {
            assert_eq!(answered(&answer, again, own()), None);
        }
    }
}

#[test]
fn later_fragments_are_not_answered_and_first_ones_are() {
    for (flags, due) in [(0x2000, true), (0x0001, false), (0x2001, false), (0x0000, true)] {
        assert_eq!(answered(&sized(UDP_V4, 40, flags), Problem::NoRoute, own()).is_some(), due, "{flags:#x}");
    }
    for (offset, due) in [([0, 1], true), ([0, 8], false), ([0, 9], false)] {
        let mut packet = bytes(UDP_V6);
        packet[6] = 44;
        packet[40..44].copy_from_slice(&[17, 0, offset[0], offset[1]]);
        assert_eq!(answered(&packet, Problem::NoRoute, own()).is_some(), due, "{offset:?}");
    }
}

#[test]
fn groups_and_sources_that_are_no_single_host_are_not_answered() {
    for destination in [[224, 0, 0, 1], [239, 1, 2, 3], [255, 255, 255, 255]] {
        let mut packet = bytes(UDP_V4);
        packet[16..20].copy_from_slice(&destination);
        assert_eq!(answered(&packet, Problem::HopLimit, own()), None);
    }
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [169, 254, 1, 1]] {
        let mut packet = bytes(UDP_V4);
        packet[12..16].copy_from_slice(&source);
        assert_eq!(answered(&packet, Problem::HopLimit, own()), None);
    }
    let mut packet = sized(UDP_V6, 1400, 0);
    packet[24] = 0xff;
    assert_eq!(answered(&packet, Problem::HopLimit, own()), None);
    assert!(answered(&packet, Problem::TooBig { mtu: 1300 }, own()).is_some(), "RFC 4443 §2.4 e 3");
    for source in ["::", "::1", "ff02::1"] {
        let mut packet = bytes(UDP_V6);
        packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().expect("address").octets());
        assert_eq!(answered(&packet, Problem::HopLimit, own()), None, "{source}");
    }
}

#[test]
fn whatever_the_bytes_nothing_breaks_and_what_comes_is_sound() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let problems = [Problem::HopLimit, Problem::NoRoute, Problem::NoHost, Problem::TooBig { mtu: 60 }];
    let mut answers = 0;
    for round in 0..200_000 {
        let seed = if random() % 2 == 0 { UDP_V4 } else { UDP_V6 };
        let mut packet = bytes(seed);
        for _ in 0..random() % 4 {
            let at = random() as usize % packet.len();
            packet[at] = random() as u8;
        }
        packet.truncate(random() as usize % (packet.len() * 3));
        let problem = problems[round % problems.len()];
        if let Some(answer) = answered(&packet, problem, own()) {
            answers += 1;
            assert_sound(&answer);
            assert_eq!(answered(&answer, problem, own()), None);
        }
    }
    assert!(answers > 10_000, "{answers} answers");
    for length in 0..76 {
        let mut buffer = bytes(UDP_V4);
        buffer.resize(length, 0);
        let room = answer(&mut buffer, ethernet::IPV4, Problem::HopLimit, own(), || true);
        assert_eq!(room, (length >= 60).then_some(60), "{length} octets of room");
    }
}

#[test]
fn permission_is_asked_for_only_what_would_be_sent() {
    let mut buffer = [bytes(UDP_V4), vec![0; 48]].concat();
    let before = buffer.clone();
    assert_eq!(answer(&mut buffer, ethernet::IPV4, Problem::HopLimit, own(), || false), None);
    assert_eq!(buffer, before);
    let nobody = || panic!("nothing would be sent");
    assert_eq!(answer(&mut buffer, ethernet::IPV4, Problem::TooBig { mtu: 20 }, own(), nobody), None);
    let mut buffer = [bytes(UDP_V6), vec![0; 48]].concat();
    assert_eq!(answer(&mut buffer, ethernet::IPV6, Problem::HopLimit, NOTHING, nobody), None);
}

#[test]
fn nobody_is_told_the_size_of_a_way_that_is_gone() {
    for mtu in [0, 1, 67] {
        assert_eq!(Problem::of(Verdict::TooBig, mtu), None, "{mtu}");
    }
    for mtu in [68, 576, 1500] {
        assert_eq!(Problem::of(Verdict::TooBig, mtu), Some(Problem::TooBig { mtu }));
    }
    assert_eq!(Problem::of(Verdict::HopLimit, 0), Some(Problem::HopLimit), "other errors have no size");
}
