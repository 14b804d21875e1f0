//! Ports and sessions: who gets how many, and which.

use std::collections::HashSet;

use super::*;

#[test]
fn rfc6888_req8_a_port_rests_for_two_minutes_before_anybody_gets_it() {
    let nat = nat("20000-20000");
    let [first, second] = [(); 2].map(|()| nat.admit().expect("an account"));
    let flow = udp(remote(1, 53));
    assert_eq!(nat.outbound(first.account(), &end(1, 1), &flow, 0), Ok(20_000));
    let over = 5 * MINUTE;
    sweep_all(&nat, over);
    assert_eq!(nat.totals(), Totals { mappings: 0, resting: 1, sessions: 0 });
    assert_eq!(nat.usage(first.account()), Usage { ports: 1, sessions: 0 }, "it is still the client's");
    sweep_all(&nat, over + 2 * MINUTE - 1);
    assert_eq!(nat.outbound(second.account(), &end(2, 1), &flow, over + 2 * MINUTE - 1), Err(Refusal::PortsExhausted));
    assert_eq!(nat.inbound(20_000, &flow, over), Err(Refusal::NoMapping));
    sweep_all(&nat, over + 2 * MINUTE);
    assert_empty(&nat, &[]);
    assert_eq!(nat.outbound(second.account(), &end(2, 1), &flow, over + 2 * MINUTE), Ok(20_000));
}

#[test]
fn rfc6888_req4_a_client_that_opens_ports_without_end_hits_its_limit_and_hurts_no_other() {
    let nat = nat("20000-21999");
    let [greedy, modest] = [(); 2].map(|()| nat.admit().expect("an account"));
    let mut refused = 0;
    let mut now = 0;
    for port in 0..60_000u16 {
        now += 10;
        nat.sweep(4, now);
        match nat.outbound(greedy.account(), &end(1, port), &udp(remote(1, 53)), now) {
            Ok(_) => {}
            Err(refusal) => {
                assert_eq!(refusal, Refusal::ClientLimit);
                refused += 1;
            }
        }
        assert!(nat.usage(greedy.account()).ports <= 1024);
        if port % 200 == 0 {
            let own = nat.outbound(modest.account(), &end(2, port / 200), &udp(remote(1, 53)), now).expect("a port");
            assert!(nat.inbound(own, &udp(remote(1, 53)), now).is_ok());
        }
    }
    assert!(refused > 50_000, "{refused}");
}

#[test]
fn a_client_has_as_many_sessions_as_it_may_and_they_cost_no_port() {
    let limits = Limits { sessions_per_client: 10, ..settings("20000-29999").limits };
    let nat = Arc::new(Nat::new(Settings { limits, ..settings("20000-29999") }));
    let member = nat.admit().expect("an account");
    for port in 0..10 {
        assert!(nat.outbound(member.account(), &end(1, 1), &udp(remote(1, port)), 0).is_ok());
    }
    assert_eq!(nat.outbound(member.account(), &end(1, 1), &udp(remote(1, 99)), 0), Err(Refusal::ClientLimit));
    assert_eq!(nat.outbound(member.account(), &end(1, 2), &udp(remote(1, 99)), 0), Err(Refusal::ClientLimit));
    assert_eq!(nat.totals(), Totals { mappings: 1, resting: 0, sessions: 10 });
}

#[test]
fn a_full_table_refuses_and_takes_nothing() {
    let limits = Limits { sessions: 3, ..settings("20000-29999").limits };
    let nat = Arc::new(Nat::new(Settings { limits, ..settings("20000-29999") }));
    let member = nat.admit().expect("an account");
    for port in 0..3 {
        assert!(nat.outbound(member.account(), &end(1, port), &udp(remote(1, 1)), 0).is_ok());
    }
    for inside in [end(1, 0), end(1, 9)] {
        assert_eq!(nat.outbound(member.account(), &inside, &udp(remote(1, 2)), 0), Err(Refusal::TableFull));
    }
    assert_eq!(nat.totals(), Totals { mappings: 3, resting: 0, sessions: 3 });
    assert_eq!(nat.usage(member.account()), Usage { ports: 3, sessions: 3 });
}

#[test]
fn every_port_of_the_range_can_be_in_use() {
    let limits = Limits { ports_per_client: 5000, sessions_per_client: 5000, ..settings("20000-24999").limits };
    let nat = Arc::new(Nat::new(Settings { limits, ..settings("20000-24999") }));
    let member = nat.admit().expect("an account");
    let flow = tcp(remote(1, 80), SYN);
    let ports: HashSet<u16> =
        (0..5000).map(|port| nat.outbound(member.account(), &end(1, port), &flow, 0).expect("a port")).collect();
    assert_eq!((ports.len(), ports.iter().min(), ports.iter().max()), (5000, Some(&20_000), Some(&24_999)));
    let other = nat.admit().expect("an account");
    assert_eq!(nat.outbound(other.account(), &end(1, 1), &flow, 0), Err(Refusal::PortsExhausted));
    assert_eq!(nat.usage(other.account()), Usage::default());
}

#[test]
fn ports_outside_the_range_are_another_nodes() {
    let nat = nat("20000-29999");
    for port in [0, 80, 19_999, 30_000, 65_535] {
        assert_eq!(nat.inbound(port, &udp(remote(1, 53)), 0), Err(Refusal::ForeignRange));
        assert_eq!(nat.error_inbound(port, &udp(remote(1, 53)), 0), Err(Refusal::ForeignRange));
    }
    for port in [20_000, 29_999] {
        assert_eq!(nat.inbound(port, &udp(remote(1, 53)), 0), Err(Refusal::NoMapping));
    }
}

/// RFC 6056, RFC 7857 §9: what one client gets tells nothing of what another gets.
#[test]
fn rfc6056_ports_cannot_be_foreseen() {
    let drawn = || {
        let nat = nat("20000-29999");
        let member = nat.admit().expect("an account");
        let port = |port| nat.outbound(member.account(), &end(1, port), &udp(remote(1, 53)), 0).expect("a port");
        (0..200).map(port).collect::<Vec<u16>>()
    };
    let (one, other) = (drawn(), drawn());
    let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < 5, "two nodes draw alike: {same} of 200");
    let near = one.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 10).count();
    assert!(near < 10, "one port is near the one before: {near} of 200");
    let lower = one.iter().filter(|port| **port < 25_000).count();
    assert!((50..150).contains(&lower), "half of the range is preferred: {lower} of 200");
}
