use super::*;

// SYN packets that were built octet by octet from RFC 9293, with sums of their own, for two segment sizes each.
const EVEN: [&str; 2] = [
    "4500003c00000000400666940a09000b0a09000cc35000500102030400000000a002faf0713f0000\
     020405b40402080a000000010000000001030307",
    "4500003c00000000400666940a09000b0a09000cc35000500102030400000000a002faf071b70000\
     0204053c0402080a000000010000000001030307",
];
const ODD: [&str; 2] = [
    "4500003000000000400666a00a09000b0a09000cc350005001020304000000007002faf0ff110000\
     01020405b4010100",
    "4500003000000000400666a00a09000b0a09000cc350005001020304000000007002faf077120000\
     010204053c010100",
];
const V6: [&str; 2] = [
    "6000000000280640fd000009000000000000000000000011fd000009000000000000000000000099\
     c35000500102030400000000a002faf08abe0000020405a00402080a000000010000000001030307",
    "6000000000280640fd000009000000000000000000000011fd000009000000000000000000000099\
     c35000500102030400000000a002faf08b360000020405280402080a000000010000000001030307",
];

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).expect("hex")
}

fn clamped(packet: &[u8], limit: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    clamp(&mut packet, || Some(limit));
    packet
}

#[test]
fn a_segment_size_that_is_too_large_becomes_that_of_the_way() {
    for [large, small] in [EVEN, ODD] {
        assert_eq!(hex::encode(clamped(&bytes(large), 1380)), hex::encode(bytes(small)));
        assert_eq!(clamped(&bytes(small), 1380), bytes(small));
        assert_eq!(clamped(&bytes(large), 1500), bytes(large), "it is never made larger");
    }
    assert_eq!(clamped(&bytes(V6[0]), 1380), bytes(V6[1]));
    assert_eq!(clamped(&bytes(V6[0]), 1500), bytes(V6[0]));
}

#[test]
fn the_answer_to_a_syn_too_but_nothing_else() {
    let mut packet = bytes(EVEN[0]);
    packet[33] = 0x12;
    assert_ne!(clamped(&packet, 1380), packet, "SYN and ACK");
    for flags in [0x10, 0x18, 0x04, 0x01, 0] {
        packet[33] = flags;
        assert_eq!(clamped(&packet, 1380), packet, "flags {flags:#x}");
    }
    for (at, octet) in [(9, 17), (6, 0x20), (7, 1)] {
        let mut packet = bytes(EVEN[0]);
        packet[at] = octet;
        assert_eq!(clamped(&packet, 1380), packet, "UDP, and fragments");
    }
}

#[test]
fn the_way_is_asked_for_only_for_a_syn() {
    let mut packet = bytes(EVEN[0]);
    packet[33] = 0x10;
    clamp(&mut packet, || panic!("no SYN"));
    packet[9] = 17;
    clamp(&mut packet, || panic!("no TCP"));
    let mut packet = bytes(EVEN[0]);
    clamp(&mut packet, || None);
    assert_eq!(packet, bytes(EVEN[0]));
    for limit in 0..=40 {
        assert_eq!(clamped(&packet, limit), packet, "no way takes so little");
    }
}

#[test]
fn options_that_contradict_themselves_change_nothing() {
    for (at, octet) in [(41, 0), (41, 1), (41, 3), (41, 5), (40, 0), (32, 0x50), (32, 0x40), (32, 0x00), (41, 255)] {
        let mut packet = bytes(EVEN[0]);
        packet[at] = octet;
        assert_eq!(clamped(&packet, 1380), packet, "octet {at} = {octet:#x}");
    }
    for length in 0..60 {
        let packet = &bytes(EVEN[0])[..length];
        assert_eq!(clamped(packet, 1380), packet, "{length} octets");
    }
}

#[test]
fn whatever_the_bytes_nothing_but_size_and_checksum_changes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut changed = 0;
    for _ in 0..200_000 {
        let mut packet = bytes([EVEN[0], ODD[0], V6[0]][random() % 3]);
        for _ in 0..random() % 5 {
            let at = random() % packet.len();
            packet[at] = random() as u8;
        }
        packet.truncate(random() % (2 * packet.len()));
        let after = clamped(&packet, random() % 2000);
        let different = packet.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(different <= 4 && packet.len() == after.len());
        changed += usize::from(different > 0);
    }
    assert!(changed > 10_000, "{changed} changed");
}
