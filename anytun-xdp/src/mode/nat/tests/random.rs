//! Whatever comes: no panic, a refused packet is as it was, a translated one has right checksums if it had them.

use super::*;
use crate::table::nat::Inside;

/// Repeats itself.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Changes a few octets, or cuts the packet, or lengthens it.
pub(super) fn damage(packet: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(packet.len());
        packet[at] = random.next() as u8;
    }
    match random.below(8) {
        0 => packet.truncate(random.below(packet.len())),
        1 => packet.extend_from_slice(&random.next().to_be_bytes()),
        _ => {}
    }
}

/// Whether the test can tell if its checksums are right: no extension headers, and what is in it long enough.
fn can_be_checked(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])) >= usize::from(packet[0] & 15) * 4 + 8,
        _ => [6, 17, 58].contains(&packet[6]),
    }
}

/// What to expect of one packet, whichever way it goes.
fn check<T: std::fmt::Debug>(before: &[u8], after: &[u8], verdict: Result<T, Refusal>) -> bool {
    match verdict {
        Err(_) => assert_eq!(before, after, "a packet that is refused is left alone"),
        Ok(_) if can_be_checked(before) => assert_eq!(is_right(before), is_right(after), "{before:02x?} {after:02x?}"),
        Ok(_) => {}
    }
    assert_eq!(before.len(), after.len());
    verdict.is_ok()
}

#[test]
fn random_packets_neither_panic_nor_come_out_with_wrong_checksums() {
    for family in [V4, V6] {
        let nat = family.nat("20000-20063");
        let member = nat.admit().expect("an account");
        let mut random = Random(u64::from(family.is_v4));
        let mut seeds: Vec<Vec<u8>> = Vec::new();
        let quoted = |packet: &[u8]| {
            let kind = if family.is_v4 { 11 } else { 3 };
            packet::packet(family.router, family.nat, &error(kind, 0, 0, packet))
        };
        for body in family.bodies() {
            let original = packet(family.clients[0], family.server, &body);
            let out = sent(&nat, &member, &original);
            let cut = if family.is_v4 { fragments(&original, 8) } else { fragments_v6(&original, 8) };
            seeds.extend([quoted(&out), mirrored(&out), original, out]);
            seeds.extend(cut);
        }
        let mut carried = [0; 2];
        for turn in 0..50_000u64 {
            let mut before = seeds[random.below(seeds.len())].clone();
            damage(&mut before, &mut random);
            let sums = if turn % 16 == 0 { Sums::Partial } else { Sums::Whole };
            for step in [Step::First, Step::Second] {
                prefetch_outbound(&nat, member.account(), &before, step);
                prefetch_inbound(&nat, &before, step);
            }
            let mut after = before.clone();
            let verdict = outbound(&nat, member.account(), &mut after, sums, turn);
            carried[0] += u32::from(check_with(sums, &before, &after, verdict));
            let mut after = before.clone();
            let verdict = inbound(&nat, &mut after, sums, turn);
            carried[1] += u32::from(check_with(sums, &before, &after, verdict));
        }
        assert!(carried.iter().all(|count| *count > 2000), "{carried:?}");
    }
}

fn check_with<T: std::fmt::Debug>(sums: Sums, before: &[u8], after: &[u8], verdict: Result<T, Refusal>) -> bool {
    match sums {
        Sums::Whole => check(before, after, verdict),
        Sums::Partial => {
            assert_eq!(before.len(), after.len());
            verdict.is_ok()
        }
    }
}

#[test]
fn random_octets_are_refused_or_translated_but_never_panic() {
    let mut random = Random(7);
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        for turn in 0..30_000 {
            let mut octets: Vec<u8> = (0..random.below(120)).map(|_| random.next() as u8).collect();
            if let Some(first) = octets.first_mut() {
                *first = if family.is_v4 { 0x45 } else { 0x60 };
            }
            let _ = outbound(&nat, member.account(), &mut octets, Sums::Whole, turn);
            let _ = inbound(&nat, &mut octets, Sums::Partial, turn);
        }
    }
}

/// There and back: whatever is sent, its mirror image arrives as the mirror image of what was sent.
#[test]
fn translation_there_and_back_is_the_identity() {
    let mut random = Random(3);
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        for _ in 0..5000 {
            let payload: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
            let (from, to) = (random.next() as u16 % 500, random.next() as u16 % 5);
            let body = if random.below(2) == 0 { udp(from, to, &payload) } else { tcp(from, to, SYN, &payload) };
            let original = packet(family.clients[random.below(2)], family.server, &body);
            let mut out = original.clone();
            match outbound(&nat, member.account(), &mut out, Sums::Whole, 0) {
                Ok(onward) => assert_eq!(onward, Onward::Outside),
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::ClientLimit);
                    continue;
                }
            }
            assert_eq!(is_right(&out), (true, true));
            let mut back = mirrored(&out);
            let inside: Inside = inbound(&nat, &mut back, Sums::Whole, 0).expect("let in");
            assert_eq!((inside.account, inside.end.port), (member.account(), from));
            assert_eq!(back, mirrored(&original));
        }
    }
}
