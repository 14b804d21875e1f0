//! Packets right behind one another.

use super::random::{Random, damage};
use super::*;
use crate::table::nat::{FIN, RST};

const ACK: u8 = 0x10;

/// Sends a packet out and returns what goes for those right behind it.
fn first(nat: &Nat, member: &Member, packet: &[u8]) -> Crossing {
    let mut out = packet.to_vec();
    let sent = outbound_first(nat, member.account(), &mut out, Sums::Whole, 0).expect("sent");
    sent.1.expect("a model for others")
}

#[test]
fn what_is_repeated_is_as_if_it_was_looked_up() {
    for family in [V4, V6] {
        let nat = family.nat("20000-20063");
        let member = nat.admit().expect("an account");
        let mut random = Random(u64::from(family.is_v4) + 17);
        let mut seeds = Vec::new();
        for body in family.bodies() {
            let original = packet(family.clients[0], family.server, &body);
            seeds.extend(if family.is_v4 { fragments(&original, 8) } else { fragments_v6(&original, 8) });
            seeds.extend([packet(family.clients[1], family.server, &body), original]);
        }
        let mut last: Option<Crossing> = None;
        let mut seed = 0;
        let mut times = 0;
        for turn in 0..50_000 {
            if random.below(2) == 0 {
                seed = random.below(seeds.len());
            }
            let mut packet = seeds[seed].clone();
            if random.below(4) == 0 {
                damage(&mut packet, &mut random);
            }
            let (mut looked_up, mut repeated) = (packet.clone(), packet.clone());
            let is_repeated = last.as_ref().is_some_and(|last| last.repeat(&mut repeated));
            let sent = outbound_first(&nat, member.account(), &mut looked_up, Sums::Whole, turn);
            if is_repeated {
                assert_eq!(sent.map(|(onward, _)| onward), Ok(Onward::Outside), "{packet:02x?}");
                assert_eq!(repeated, looked_up, "{packet:02x?}");
                times += 1;
            } else {
                assert_eq!(repeated, packet, "what is not of the flow is as it came");
            }
            last = sent.ok().and_then(|(_, crossing)| crossing);
        }
        assert!(times > 2000, "{times}");
    }
}

#[test]
fn what_begins_or_ends_a_connection_is_looked_up() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let segment = |flags| packet(family.clients[0], family.server, &tcp(5000, 80, flags, b"GET"));
        let mut out = segment(SYN);
        let sent = outbound_first(&nat, member.account(), &mut out, Sums::Whole, 0).expect("sent");
        assert!(sent.1.is_none(), "one that begins a connection is no model either");
        let crossing = first(&nat, &member, &segment(ACK));
        for flags in [SYN, FIN, RST, SYN | ACK, FIN | ACK, RST | ACK] {
            assert!(!crossing.repeat(&mut segment(flags)), "{flags:#x}");
        }
        assert!(crossing.repeat(&mut segment(ACK)) && crossing.repeat(&mut segment(ACK | 0x08)));
    }
}

#[test]
fn neighbours_of_a_flow_are_looked_up() {
    for family in [V4, V6] {
        let nat = family.nat("20000-29999");
        let member = nat.admit().expect("an account");
        let datagram = |from, to, ports: [u16; 2]| packet(from, to, &udp(ports[0], ports[1], b"of odd length"));
        let [client, other] = family.clients;
        let crossing = first(&nat, &member, &datagram(client, family.server, [5000, 53]));
        let neighbours = [
            datagram(other, family.server, [5000, 53]),
            datagram(client, family.router, [5000, 53]),
            datagram(client, family.nat, [5000, 53]),
            datagram(client, family.server, [5001, 53]),
            datagram(client, family.server, [5000, 54]),
            packet(client, family.server, &tcp(5000, 53, ACK, b"of odd length")),
            packet(client, family.server, &echo(family.is_v4, true, 5000, b"ping")),
        ];
        for mut neighbour in neighbours {
            assert!(!crossing.repeat(&mut neighbour), "{neighbour:02x?}");
        }
        let mut same = datagram(client, family.server, [5000, 53]);
        assert!(crossing.repeat(&mut same));
        assert_eq!(is_right(&same), (true, true));
    }
}
