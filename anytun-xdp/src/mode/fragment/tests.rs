use super::*;

/// A packet with `options` and `data` octets of data that tell their place.
fn packet(options: &[u8], data: usize, flags: u16) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet =
        vec![0x40 | (header / 4) as u8, 0xb8, 0, 0, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 10, 9, 0, 11, 10, 9, 0, 12];
    packet.extend_from_slice(options);
    packet.extend((0..data).map(|at| (at % 251) as u8));
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    let sum = checksum::of(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// All fragments, in order.
fn fragments(packet: &[u8], limit: usize) -> Option<Vec<Vec<u8>>> {
    let cut = Cut::new(packet, limit)?;
    let mut rest: Vec<Vec<u8>> = (1..cut.count())
        .map(|index| {
            let mut out = vec![0xee; limit];
            let length = cut.write(packet, index, &mut out).expect("a fragment");
            out.truncate(length);
            out
        })
        .collect();
    assert_eq!(cut.write(packet, cut.count(), &mut vec![0; limit]), None);
    assert_eq!(cut.write(packet, 0, &mut vec![0; limit]), None);
    let mut first = packet.to_vec();
    let length = cut.shorten(&mut first).expect("a fragment");
    first.truncate(length);
    rest.insert(0, first);
    Some(rest)
}

/// Puts fragments together as RFC 791 §3.2 says; returns data, and flags and offset of the whole.
fn reassembled(fragments: &[Vec<u8>], limit: usize) -> (Vec<u8>, u16) {
    let (mut data, mut start, mut more) = (Vec::new(), None, 0);
    for fragment in fragments {
        let header = usize::from(fragment[0] & 0xf) * 4;
        let flags = u16::from_be_bytes([fragment[6], fragment[7]]);
        assert!(fragment.len() <= limit);
        assert_eq!(usize::from(u16::from_be_bytes([fragment[2], fragment[3]])), fragment.len());
        assert_eq!(checksum::of(&fragment[..header]), 0);
        assert_eq!((fragment[1], &fragment[4..6], &fragment[8..10]), (0xb8, &[0x12, 0x34][..], &[64, 17][..]));
        assert_eq!(fragment[12..20], [10, 9, 0, 11, 10, 9, 0, 12]);
        let offset = usize::from(flags & 0x1fff) * 8;
        let start = *start.get_or_insert(offset);
        assert_eq!(offset - start, data.len(), "no gap, no overlap");
        data.extend_from_slice(&fragment[header..]);
        more = flags & 0x2000;
    }
    (data, more | (start.unwrap_or(0) / 8) as u16)
}

#[test]
fn fragments_make_the_packet_again() {
    for limit in [68, 576, 1000, 1001, 1007, 1008, 1442] {
        for data in [1, 8, 500, 1422, 1423, 1424, 1430, 2000, 3000] {
            let packet = packet(&[], data, 0);
            let Some(fragments) = fragments(&packet, limit) else {
                assert!(packet.len() <= limit || data.div_ceil((limit - 20) & !7) > MOST, "{data} into {limit}");
                continue;
            };
            assert!(packet.len() > limit);
            assert_eq!(fragments.len(), data.div_ceil((limit - 20) & !7));
            assert_eq!(reassembled(&fragments, limit), (packet[20..].to_vec(), 0));
            assert!(fragments[..fragments.len() - 1].iter().all(|fragment| fragment.len() == 20 + ((limit - 20) & !7)));
        }
    }
}

#[test]
fn a_fragment_is_fragmented_again_where_it_belongs() {
    for flags in [0x2000, 0x2000 | 185, 185] {
        let packet = packet(&[], 1480, flags);
        let fragments = fragments(&packet, 576).expect("fragments");
        assert_eq!(reassembled(&fragments, 576), (packet[20..].to_vec(), flags));
        let middle = &fragments[1];
        assert_eq!(u16::from_be_bytes([middle[6], middle[7]]), 0x2000 | ((flags & 0x1fff) + 69));
    }
    assert_eq!(fragments(&packet(&[], 1480, 8191), 576), None, "its end would be behind what an offset can say");
}

/// RFC 791 §3.1: security (130) and loose source route (131) are copied, timestamp (68) and record route (7) are not.
#[test]
fn options_go_where_their_flag_says() {
    let options = [131, 7, 4, 10, 9, 0, 1, 1, 68, 4, 5, 0, 7, 3, 4, 130, 2, 1, 1, 0];
    let fragments = fragments(&packet(&options, 1000, 0), 576).expect("fragments");
    assert_eq!(fragments[0][20..40], options);
    for later in &fragments[1..] {
        assert_eq!(later[0], 0x48);
        assert_eq!(later[20..32], [131, 7, 4, 10, 9, 0, 1, 130, 2, 0, 0, 0]);
    }
    assert_eq!(reassembled(&fragments, 576).0, packet(&options, 1000, 0)[40..]);
    for options in [[130, 0, 0, 0], [130, 1, 0, 0], [130, 5, 0, 0], [1, 1, 1, 130]] {
        assert_eq!(super::tests::fragments(&packet(&options, 1000, 0), 576), None, "{options:?}");
    }
}

#[test]
fn what_must_not_or_need_not_be_fragmented_is_not() {
    assert_eq!(Cut::new(&packet(&[], 1000, 0x4000), 576), None);
    assert_eq!(Cut::new(&packet(&[], 556, 0), 576), None);
    assert!(Cut::new(&packet(&[], 557, 0), 576).is_some());
    for limit in 0..28 {
        assert_eq!(Cut::new(&packet(&[], 1000, 0), limit), None, "no room for 8 octets");
    }
    let mut v6 = packet(&[], 1000, 0);
    v6[0] = 0x65;
    assert_eq!(Cut::new(&v6, 576), None);
    let padded = [packet(&[], 1000, 0), vec![0]].concat();
    assert_eq!(Cut::new(&padded, 576), None);
}

#[test]
fn whatever_the_bytes_nothing_breaks() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut cuts = 0;
    for _ in 0..50_000 {
        let mut packet = packet(&[0x44, 4, 5, 0, 0x83, 3, 4, 1][..random() % 3 * 4], random() % 1500, 0);
        for _ in 0..random() % 4 {
            let at = random() % packet.len().min(40);
            packet[at] = random() as u8;
        }
        let limit = random() % 1600;
        let Some(cut) = Cut::new(&packet, limit) else { continue };
        cuts += 1;
        let data: usize = (1..cut.count())
            .map(|index| {
                let length = cut.write(&packet, index, &mut vec![0; limit]).expect("a fragment");
                length - cut.copied_length
            })
            .sum();
        let first = cut.shorten(&mut packet).expect("a fragment");
        assert!(first <= limit);
        assert_eq!(first + data, packet.len());
    }
    assert!(cuts > 1000, "{cuts} cuts");
}
