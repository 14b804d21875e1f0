//! ICMP errors about what was translated (RFC 5508 §4).

use super::*;

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
