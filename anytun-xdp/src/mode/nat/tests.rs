//! Translation of whole packets, checked by checksums that are reckoned from nothing.

use std::sync::Arc;

use super::*;
use crate::config::PortRange;
use crate::table::nat::{Member, SYN, Settings};

mod crossing;
mod errors;
mod fragments;
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
