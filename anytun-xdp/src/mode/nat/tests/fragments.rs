//! Fragments of what is translated.

use super::*;

/// RFC 4787 REQ-14: fragments behind their first are carried, both ways; others are refused, and early while it may come.
#[test]
fn rfc4787_req14_fragments_follow_their_first() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let cut = |packet: &[u8]| if family.is_v4 { fragments(packet, 16) } else { fragments_v6(packet, 16) };
        let whole = packet(family.clients[0], family.server, &udp(5000, 53, b"a datagram too long for one packet"));
        let [first, second] = cut(&whole);
        refused_out(&nat, &member, &second, Refusal::Fragment);
        let account = Some(member.account());
        assert_eq!([&first, &second].map(|fragment| is_early(&nat, account, fragment, 0)), [false, true]);
        let out = [&first, &second].map(|fragment| {
            let mut fragment = fragment.clone();
            assert_eq!(outbound(&nat, member.account(), &mut fragment, Sums::Whole, 0), Ok(Onward::Outside));
            fragment
        });
        assert!(!is_early(&nat, account, &second, 0) && is_early(&nat, None, &second, 0));
        let expected = sent(&nat, &member, &whole);
        assert_eq!(out, cut(&expected));
        let [first, second] = cut(&mirrored(&expected));
        refused_in(&nat, &second, Refusal::Fragment);
        assert_eq!([&first, &second].map(|fragment| is_early(&nat, None, fragment, 0)), [false, true]);
        let got = [&first, &second].map(|fragment| received(&nat, &member, fragment));
        assert_eq!(got, cut(&mirrored(&whole)));
        assert!(!is_early(&nat, None, &second, 0));
        let mut late = second.clone();
        assert_eq!(inbound(&nat, &mut late, Sums::Whole, 1999).map(|inside| inside.account), Ok(member.account()));
        let mut late = second.clone();
        assert_eq!(inbound(&nat, &mut late, Sums::Whole, 2000), Err(Refusal::Fragment));
    }
}

/// What no NAT ever translates is not early: its first fragment will be refused.
#[test]
fn only_fragments_of_what_may_be_translated_are_early() {
    // ICMP 1, TCP 6, UDP 17, GRE 47, ESP 50, ICMPv6 58, no next header 59, destination options 60 (IANA).
    for (family, early, refused) in
        [(V4, vec![1, 6, 17], vec![47, 50, 58, 59, 60]), (V6, vec![6, 17, 58, 60], vec![1, 47, 50, 59])]
    {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let body = udp(5000, 53, b"a datagram too long for one packet");
        let of = |protocol: u8, is_out: bool| {
            let (from, to) = if is_out { (family.clients[0], family.server) } else { (family.server, family.nat) };
            let mut whole = packet(from, to, &body);
            whole[if family.is_v4 { 9 } else { 6 }] = protocol;
            let [_, second] = if family.is_v4 { fragments(&whole, 16) } else { fragments_v6(&whole, 16) };
            let sender = is_out.then(|| member.account());
            is_early(&nat, sender, &second, 0)
        };
        for is_out in [true, false] {
            assert!(early.iter().all(|protocol| of(*protocol, is_out)), "{early:?}");
            assert!(!refused.iter().any(|protocol| of(*protocol, is_out)), "{refused:?}");
        }
    }
}

/// Of another client, with the same addresses.
#[test]
fn fragments_of_one_client_do_not_let_pass_those_of_another() {
    let nat = V4.nat("20000-29999");
    let [a, b] = [(); 2].map(|()| nat.admit().expect("an account"));
    let whole = packet(V4.clients[0], V4.server, &udp(5000, 53, b"a datagram too long for one packet"));
    let [mut first, second] = fragments(&whole, 16);
    assert_eq!(outbound(&nat, a.account(), &mut first, Sums::Whole, 0), Ok(Onward::Outside));
    refused_out(&nat, &b, &second, Refusal::Fragment);
}

/// RFC 1858 §3: a first fragment that hides the TCP flags.
#[test]
fn rfc1858_tiny_fragments_are_refused() {
    let nat = V4.nat("20000-29999");
    let member = nat.admit().expect("an account");
    let [first, _] = fragments(&packet(V4.clients[0], V4.server, &tcp(5000, 80, SYN, b"")), 8);
    refused_out(&nat, &member, &first, Refusal::Malformed);
}
