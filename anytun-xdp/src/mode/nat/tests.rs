//! Translation of whole packets, checked by checksums that are reckoned from nothing.

use std::sync::Arc;

use super::*;
use crate::config::PortRange;
use crate::table::nat::{Member, SYN, Settings};

mod packet;
mod random;

use packet::{Body, echo, error, fragments, fragments_v6, is_right, mirrored, packet, sum, tcp, udp};

/// Addresses of one family: the NAT's, two clients', a server's, a router's.
struct Family {
    nat: &'static str,
    clients: [&'static str; 2],
    server: &'static str,
    router: &'static str,
    is_v4: bool,
}

const V4: Family = Family {
    nat: "192.0.2.53",
    clients: ["10.9.0.11", "10.9.0.12"],
    server: "198.51.100.7",
    router: "203.0.113.1",
    is_v4: true,
};
const V6: Family = Family {
    nat: "2001:db8::53",
    clients: ["fd00:9::11", "fd00:9::12"],
    server: "2001:db8:1::7",
    router: "2001:db8:2::1",
    is_v4: false,
};

impl Family {
    fn nat(&self, ports: &str) -> Arc<Nat> {
        let range = PortRange::parse(ports).expect("a range");
        Arc::new(Nat::new(Settings::new(packet::address(self.nat), range)))
    }

    /// Octets of the header of IP.
    fn header(&self) -> usize {
        if self.is_v4 { 20 } else { 40 }
    }

    /// Echo, a connection attempt, and datagrams of odd and even length, with and without checksum.
    fn bodies(&self) -> Vec<Body> {
        vec![
            udp(5000, 53, b"a question"),
            udp(5001, 53, b"of odd length"),
            Body::Udp { ports: [5002, 4500], payload: b"without a checksum".to_vec(), has_sum: !self.is_v4 },
            udp(5003, 53, b""),
            tcp(5000, 80, SYN, b""),
            tcp(5001, 80, 0x18, b"GET / HTTP/1.0\r\n\r\n"),
            echo(self.is_v4, true, 77, b"ping"),
            echo(self.is_v4, true, 78, b"pings"),
        ]
    }
}

fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Sends a packet out and returns what leaves.
fn sent(nat: &Nat, member: &Member, packet: &[u8]) -> Vec<u8> {
    let mut out = packet.to_vec();
    assert_eq!(outbound(nat, member.account(), &mut out, Sums::Whole, 0), Ok(Onward::Outside));
    assert_eq!(is_right(&out), (true, true));
    out
}

/// Takes a packet in for `member` and returns what arrives.
fn received(nat: &Nat, member: &Member, packet: &[u8]) -> Vec<u8> {
    let mut inner = packet.to_vec();
    let inside = inbound(nat, &mut inner, Sums::Whole, 0).expect("let in");
    assert_eq!(inside.account, member.account());
    inner
}

/// Asserts that a packet is refused, and left as it is.
fn refused_in(nat: &Nat, packet: &[u8], refusal: Refusal) {
    let mut copy = packet.to_vec();
    assert_eq!(inbound(nat, &mut copy, Sums::Whole, 0), Err(refusal));
    assert_eq!(copy, packet);
}

fn refused_out(nat: &Nat, member: &Member, packet: &[u8], refusal: Refusal) {
    let mut copy = packet.to_vec();
    assert_eq!(outbound(nat, member.account(), &mut copy, Sums::Whole, 0), Err(refusal));
    assert_eq!(copy, packet);
}

#[test]
fn packets_leave_from_the_address_and_a_port_of_the_range_and_answers_come_back_as_sent() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        for body in family.bodies() {
            let original = packet(family.clients[0], family.server, &body);
            let out = sent(&nat, &member, &original);
            let is_icmp = matches!(body, Body::Icmp { .. });
            let at = family.header() + if is_icmp { 4 } else { 0 };
            // The same packet, made from nothing with the other address and port.
            let outside = port(&out, at);
            assert!((20_000..30_000).contains(&outside));
            let body = match body {
                Body::Udp { ports, payload, has_sum } => Body::Udp { ports: [outside, ports[1]], payload, has_sum },
                Body::Tcp { ports, flags, payload } => Body::Tcp { ports: [outside, ports[1]], flags, payload },
                Body::Icmp { payload, .. } => echo(family.is_v4, true, outside, &payload),
            };
            assert_eq!(out, packet(family.nat, family.server, &body));
            if let Body::Icmp { payload, .. } = body {
                let answer = packet(family.server, family.nat, &echo(family.is_v4, false, outside, &payload));
                let expected =
                    packet(family.server, family.clients[0], &echo(family.is_v4, false, port(&original, at), &payload));
                assert_eq!(received(&nat, &member, &answer), expected);
            } else {
                assert_eq!(received(&nat, &member, &mirrored(&out)), mirrored(&original));
            }
        }
    }
}

/// RFC 768: zero means that there is no checksum, so a sum of zero is written as all ones.
#[test]
fn rfc768_no_udp_checksum_stays_none_and_a_sum_of_zero_is_all_ones() {
    let nat = V4.nat("20000-20000");
    let member = nat.admit().expect("an account");
    // Of all values of a word in the payload one makes the sum zero; all are tried.
    let mut all_ones = 0;
    for word in 0..=u16::MAX {
        let original = packet(V4.clients[0], V4.server, &udp(5000, 53, &word.to_be_bytes()));
        let out = sent(&nat, &member, &original);
        assert_ne!(&out[26..28], &[0, 0]);
        all_ones += u32::from(out[26..28] == [0xff, 0xff]);
    }
    assert_eq!(all_ones, 1);
    let body = Body::Udp { ports: [5000, 53], payload: b"bare".to_vec(), has_sum: false };
    assert_eq!(&sent(&nat, &member, &packet(V4.clients[0], V4.server, &body))[26..28], &[0, 0]);
}

#[test]
fn a_damaged_packet_stays_damaged() {
    let nat = V4.nat("20000-29999");
    let member = nat.admit().expect("an account");
    let mut original = packet(V4.clients[0], V4.server, &udp(5000, 53, b"a question"));
    original[30] ^= 1;
    let mut out = original.clone();
    assert_eq!(outbound(&nat, member.account(), &mut out, Sums::Whole, 0), Ok(Onward::Outside));
    assert_eq!(is_right(&out), (true, false));
}

/// What a virtual interface hands over: the sum over the pseudo-header alone.
#[test]
fn partial_checksums_are_reckoned_anew() {
    for family in [V4, V6] {
        for body in [udp(53, 0, b"an answer"), tcp(80, 0, 0x12, b"")] {
            let nat = family.nat("20000-29999");
            let member = nat.admit().expect("an account");
            let (request, at) = match &body {
                Body::Tcp { .. } => (tcp(5000, 80, SYN, b""), 16),
                _ => (udp(5000, 53, b""), 6),
            };
            let out = sent(&nat, &member, &packet(family.clients[0], family.server, &request));
            let mut answer = packet(family.server, family.nat, &body);
            let header = family.header();
            answer[header + 2..header + 4].copy_from_slice(&out[header..header + 2]);
            answer[header + at..header + at + 2].copy_from_slice(&[0x12, 0x34]);
            assert_eq!(is_right(&answer), (true, false));
            assert!(inbound(&nat, &mut answer, Sums::Partial, 0).is_ok());
            assert_eq!(is_right(&answer), (true, true));
        }
    }
}

/// 20,000 concurrent UDP flows of 50 clients, correct both ways: of each client 200 ports, with two servers each, in
/// a range of 10,000 ports; and as many ports as flows in one of 20,000.
#[test]
fn twenty_thousand_flows_of_fifty_clients_go_both_ways() {
    for (ports, inside_ports, servers) in [("20000-29999", 200u16, 2u8), ("20000-39999", 400, 1)] {
        let nat = V4.nat(ports);
        let members: Vec<Member> = (0..50).map(|_| nat.admit().expect("an account")).collect();
        let mut outside = Vec::new();
        for (client, member) in members.iter().enumerate() {
            for inside in 0..inside_ports {
                for server in 1..=servers {
                    let (from, to) = (format!("10.9.0.{client}"), format!("198.51.100.{server}"));
                    let payload = [client as u8, (inside >> 8) as u8, inside as u8, server];
                    let original = packet(&from, &to, &udp(1000 + inside, 53, &payload));
                    outside.push((client, sent(&nat, member, &original), original));
                }
            }
        }
        assert_eq!((outside.len(), nat.totals().sessions), (20_000, 20_000));
        assert_eq!(nat.totals().mappings, 50 * usize::from(inside_ports));
        for (client, out, original) in outside.iter().rev() {
            assert_eq!(received(&nat, &members[*client], &mirrored(out)), mirrored(original));
        }
    }
}

#[test]
fn rfc4787_req9_two_clients_talk_by_their_addresses_outside() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let [a, b] = [(); 2].map(|()| nat.admit().expect("an account"));
        let header = family.header();
        let known = |member, from| {
            port(&sent(&nat, member, &packet(from, family.server, &udp(5000, 3478, b"who am I"))), header)
        };
        let (port_a, port_b) = (known(&a, family.clients[0]), known(&b, family.clients[1]));
        let send = |member: &Member, from, to_port| {
            let mut out = packet(from, family.nat, &udp(5000, to_port, b"hello"));
            assert_eq!(outbound(&nat, member.account(), &mut out, Sums::Whole, 0), Ok(Onward::Hairpin));
            out
        };
        // The first is filtered, as b has not sent to a yet, and opens the way for the other.
        refused_in(&nat, &send(&a, family.clients[0], port_b), Refusal::Filtered);
        let got = received(&nat, &a, &send(&b, family.clients[1], port_a));
        assert_eq!(
            got,
            packet(family.nat, family.clients[0], &udp(port_b, 5000, b"hello")),
            "from the address outside"
        );
        let got = received(&nat, &b, &send(&a, family.clients[0], port_b));
        assert_eq!(got, packet(family.nat, family.clients[1], &udp(port_a, 5000, b"hello")));
        // RFC 5508 REQ-7: an error about it finds its way too.
        let (kind, code) = if family.is_v4 { (3, 3) } else { (1, 4) };
        let mut refusal = packet(family.clients[1], family.nat, &error(kind, code, 0, &got));
        assert_eq!(outbound(&nat, b.account(), &mut refusal, Sums::Whole, 0), Ok(Onward::Hairpin));
        let got = received(&nat, &a, &refusal);
        let quoted = packet(family.clients[0], family.nat, &udp(5000, port_b, b"hello"));
        assert_eq!(got, packet(family.nat, family.clients[0], &error(kind, code, 0, &quoted)));
    }
}

#[test]
fn a_client_reaches_nothing_else_of_the_address_through_the_nat() {
    let nat = V4.nat("20000-29999");
    let member = nat.admit().expect("an account");
    refused_out(&nat, &member, &packet(V4.clients[0], V4.nat, &udp(5000, 4444, b"")), Refusal::ForeignRange);
    refused_out(&nat, &member, &packet(V4.clients[0], V4.nat, &echo(true, true, 1, b"")), Refusal::NoMapping);
    assert_eq!(nat.usage(member.account()).ports, 0);
}

#[test]
fn packets_that_nobody_asked_for_are_refused_by_name() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let out = sent(&nat, &member, &packet(family.clients[0], family.server, &udp(5000, 53, b"")));
        let own = port(&out, family.header());
        let from_outside = |body: &Body| packet(family.server, family.nat, body);
        let other = if own == 20_000 { 20_001 } else { 20_000 };
        refused_in(&nat, &from_outside(&udp(53, other, b"")), Refusal::NoMapping);
        refused_in(&nat, &from_outside(&udp(54, own, b"")), Refusal::Filtered);
        refused_in(&nat, &packet(family.router, family.nat, &udp(53, own, b"")), Refusal::Filtered);
        refused_in(&nat, &from_outside(&tcp(53, own, SYN, b"")), Refusal::NoMapping);
        refused_in(&nat, &from_outside(&udp(53, 30_000, b"")), Refusal::ForeignRange);
        refused_in(&nat, &from_outside(&echo(family.is_v4, false, 9, b"")), Refusal::ForeignRange);
        refused_in(&nat, &from_outside(&echo(family.is_v4, true, own, b"")), Refusal::NoMapping);
        refused_in(&nat, &packet(family.server, family.router, &udp(53, own, b"")), Refusal::NoMapping);
        refused_out(
            &nat,
            &member,
            &packet(family.clients[0], family.server, &echo(family.is_v4, false, 9, b"")),
            Refusal::NoMapping,
        );
    }
}

#[test]
fn what_has_no_ports_is_refused() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        // SCTP, ESP and GRE in the place of UDP.
        for protocol in [132, 50, 47] {
            let mut other = packet(family.clients[0], family.server, &udp(5000, 53, b"payload"));
            other[if family.is_v4 { 9 } else { 6 }] = protocol;
            refused_out(&nat, &member, &other, Refusal::Protocol);
            let mut other = packet(family.server, family.nat, &udp(53, 5000, b"payload"));
            other[if family.is_v4 { 9 } else { 6 }] = protocol;
            refused_in(&nat, &other, Refusal::Protocol);
        }
    }
    let (nat, other) = (V4.nat("20000-29999"), packet(V6.clients[0], V6.server, &udp(5000, 53, b"")));
    refused_out(&nat, &nat.admit().expect("an account"), &other, Refusal::Protocol);
}

/// Traceroute and path-MTU discovery: errors of routers about what a client sent, with as much quoted as RFC 792 or
/// RFC 4443 asks for, and less.
#[test]
fn rfc5508_req4_errors_from_outside_are_translated_inside_and_out() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let kinds =
            if family.is_v4 { [(11, 0, 0), (3, 4, 1400), (3, 3, 0)] } else { [(3, 0, 0), (2, 0, 1400), (1, 4, 0)] };
        for body in family.bodies() {
            let original = packet(family.clients[0], family.server, &body);
            let out = sent(&nat, &member, &original);
            for (kind, code, word) in kinds {
                for octets in [8, 12, 20, out.len()] {
                    let end = (family.header() + octets).min(out.len());
                    let outer = packet(family.router, family.nat, &error(kind, code, word, &out[..end]));
                    let expected = packet(family.router, family.clients[0], &error(kind, code, word, &original[..end]));
                    assert_eq!(received(&nat, &member, &outer), expected);
                }
            }
        }
    }
}

#[test]
fn rfc5508_req5_errors_of_clients_are_translated_inside_and_out() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let out = sent(&nat, &member, &packet(family.clients[0], family.server, &udp(5000, 53, b"a question")));
        let answer = mirrored(&out);
        let got = received(&nat, &member, &answer);
        let (kind, code) = if family.is_v4 { (3, 3) } else { (1, 4) };
        // From the client itself and from a router behind it that never sent anything.
        for from in family.clients {
            let refusal = packet(from, family.server, &error(kind, code, 0, &got));
            let expected = packet(family.nat, family.server, &error(kind, code, 0, &answer));
            assert_eq!(sent(&nat, &member, &refusal), expected);
        }
    }
}

#[test]
fn rfc5508_req3_errors_that_are_wrong_or_about_nothing_known_are_refused() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let stranger = nat.admit().expect("an account");
        let original = packet(family.clients[0], family.server, &udp(5000, 53, b"a question"));
        let out = sent(&nat, &member, &original);
        let kind = if family.is_v4 { 11 } else { 3 };
        let about = |quote: &[u8]| packet(family.router, family.nat, &error(kind, 0, 0, quote));
        let mut damaged = about(&out);
        *damaged.last_mut().expect("octets") ^= 1;
        refused_in(&nat, &damaged, Refusal::Malformed);
        let at = family.header();
        for (offset, refusal) in [(0, Refusal::NoMapping), (2, Refusal::NoMapping)] {
            let mut other = out.clone();
            other[at + offset + 1] ^= 1;
            refused_in(&nat, &about(&other), refusal);
        }
        // Sent by somebody else, or quoting what cannot be an IP packet, or another error.
        refused_in(&nat, &about(&original), Refusal::NoMapping);
        refused_in(&nat, &about(&[]), Refusal::Malformed);
        refused_in(&nat, &about(&out[..at + 7]), Refusal::Malformed);
        refused_in(&nat, &about(&about(&out)), Refusal::NoMapping);
        // From inside: about a packet to another client.
        let forged = packet(family.clients[1], family.server, &error(kind, 0, 0, &mirrored(&original)));
        refused_out(&nat, &stranger, &forged, Refusal::NoMapping);
    }
}

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

/// RFC 8200 §4.1: options stand before the transport; a routing header is not looked behind.
#[test]
fn rfc8200_extension_headers_are_passed_over() {
    let nat = V6.nat("20000-29999");
    let member = nat.admit().expect("an account");
    let plain = packet(V6.clients[0], V6.server, &udp(5000, 53, b"a question"));
    let with = |next: u8, headers: &[u8]| {
        let mut packet = [&plain[..40], headers, &plain[40..]].concat();
        packet[4..6].copy_from_slice(&((plain.len() - 40 + headers.len()) as u16).to_be_bytes());
        packet[6] = next;
        packet
    };
    let options = [60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut out = with(0, &options);
    assert_eq!(outbound(&nat, member.account(), &mut out, Sums::Whole, 0), Ok(Onward::Outside));
    let bare = sent(&nat, &member, &plain);
    assert_eq!((&out[8..40], &out[40..64], &out[64..]), (&bare[8..40], &options[..], &bare[40..]));
    refused_out(&nat, &member, &with(43, &[17, 0, 0, 0, 0, 0, 0, 0]), Refusal::Protocol);
    refused_out(&nat, &member, &with(60, &[17, 200, 0, 0, 0, 0, 0, 0]), Refusal::Malformed);
    // A packet in a single fragment (RFC 6946) has its ports and needs no memory.
    let mut single = with(44, &[17, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(outbound(&nat, member.account(), &mut single, Sums::Whole, 0), Ok(Onward::Outside));
    assert_eq!(&single[48..], &bare[40..]);
}

#[test]
fn options_of_ipv4_are_passed_over() {
    let nat = V4.nat("20000-29999");
    let member = nat.admit().expect("an account");
    let plain = packet(V4.clients[0], V4.server, &udp(5000, 53, b"a question"));
    let mut with = [&plain[..20], &[1; 4], &plain[20..]].concat();
    with[0] = 0x46;
    with[3] += 4;
    with[10..12].fill(0);
    let checksum = !sum(&with[..24]);
    with[10..12].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(sent(&nat, &member, &with)[24..], sent(&nat, &member, &plain)[20..]);
}
