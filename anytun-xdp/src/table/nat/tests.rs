//! What RFCs ask of a NAT, each under its number.

use super::*;
use crate::config::PortRange;

mod churn;
mod limits;
mod threads;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

fn settings(ports: &str) -> Settings {
    let address = "192.0.2.53".parse().expect("an address");
    Settings::new(address, PortRange::parse(ports).expect("a range"))
}

fn nat(ports: &str) -> Arc<Nat> {
    Arc::new(Nat::new(settings(ports)))
}

fn end(host: u8, port: u16) -> End {
    End { address: mapped([10, 9, 0, host]), port }
}

fn remote(host: u8, port: u16) -> End {
    End { address: mapped([198, 51, 100, host]), port }
}

fn udp(remote: End) -> Flow {
    Flow { protocol: Protocol::Udp, remote, flags: 0 }
}

fn tcp(remote: End, flags: u8) -> Flow {
    Flow { protocol: Protocol::Tcp, remote, flags }
}

fn icmp(remote: End) -> Flow {
    Flow { protocol: Protocol::Icmp, remote, flags: 0 }
}

/// Lets the hand go round completely at a time. As it ends sessions before it frees ports, ports that were held only now rest
/// from now on.
fn sweep_all(nat: &Nat, now: u64) {
    let steps = nat.round();
    (0..steps).for_each(|step| {
        nat.visit(step, now);
    });
}

/// Asserts that nothing is left, in whatever place.
fn assert_empty(nat: &Nat, members: &[Member]) {
    assert_eq!(nat.totals(), Totals::default());
    assert_eq!((nat.by_inside.count(), nat.by_remote.count()), (0, 0));
    let taken = |pool: &Pool| (0..pool.words()).map(|word| pool.taken(word).count_ones()).sum::<u32>();
    assert_eq!(taken(&nat.taken) + nat.ports.iter().map(taken).sum::<u32>(), 0);
    for member in members {
        assert_eq!(nat.usage(member.account()), Usage::default());
    }
}

#[test]
fn rfc4787_req1_the_port_is_the_same_whoever_is_sent_to() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let port = nat.outbound(member.account(), &end(1, 5000), &udp(remote(1, 53)), 0).expect("a port");
    for other in [remote(1, 54), remote(2, 53)] {
        assert_eq!(nat.outbound(member.account(), &end(1, 5000), &udp(other), 0), Ok(port));
    }
    let other = nat.outbound(member.account(), &end(1, 5001), &udp(remote(1, 53)), 0).expect("a port");
    assert_ne!(other, port, "another port inside has its own");
    let other = nat.outbound(member.account(), &end(2, 5000), &udp(remote(1, 53)), 0).expect("a port");
    assert_ne!(other, port, "another address inside has its own");
    let stranger = nat.admit().expect("an account");
    let other = nat.outbound(stranger.account(), &end(1, 5000), &udp(remote(1, 53)), 0).expect("a port");
    assert_ne!(other, port, "two networks may have the same addresses");
    assert_eq!(nat.usage(member.account()), Usage { ports: 3, sessions: 5 });
}

/// RFC 7857 §5: a TCP port and a UDP port have nothing to do with each other.
#[test]
fn rfc7857_mappings_of_protocols_are_apart() {
    let nat = nat("20000-20000");
    let member = nat.admit().expect("an account");
    for flow in [udp(remote(1, 1)), tcp(remote(1, 1), SYN), icmp(remote(1, 0))] {
        assert_eq!(nat.outbound(member.account(), &end(1, 7), &flow, 0), Ok(20_000));
        assert_eq!(nat.outbound(member.account(), &end(1, 8), &flow, 0), Err(Refusal::PortsExhausted));
        assert_eq!(nat.inbound(20_000, &flow, 1).map(|inside| inside.end), Ok(end(1, 7)));
    }
    assert_eq!(nat.totals(), Totals { mappings: 3, resting: 0, sessions: 3 });
}

#[test]
fn rfc4787_req8_only_who_was_sent_to_may_answer() {
    let expected = [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::AddressAndPortDependent, [true, false, false]),
    ];
    for (filtering, passes) in expected {
        let nat = Arc::new(Nat::new(Settings { filtering, ..settings("20000-29999") }));
        let member = nat.admit().expect("an account");
        let port = nat.outbound(member.account(), &end(1, 5000), &udp(remote(1, 53)), 0).expect("a port");
        for (from, passes) in [remote(1, 53), remote(1, 54), remote(2, 53)].into_iter().zip(passes) {
            let expected = if passes {
                Ok(Inside { account: member.account(), end: end(1, 5000) })
            } else {
                Err(Refusal::Filtered)
            };
            assert_eq!(nat.inbound(port, &udp(from), 1), expected, "{filtering:?} {from:?}");
        }
    }
    assert_eq!(Filtering::default(), Filtering::AddressAndPortDependent);
}

#[test]
fn rfc4787_req5_a_udp_mapping_lasts_five_minutes() {
    for offset in [0, 1, 999] {
        let nat = nat("20000-29999");
        let member = nat.admit().expect("an account");
        let flow = udp(remote(1, 53));
        let port = nat.outbound(member.account(), &end(1, 5000), &flow, offset).expect("a port");
        let last = offset + 5 * MINUTE - 1;
        sweep_all(&nat, last);
        assert!(nat.inbound(port, &flow, last).is_ok());
        let over = offset + 5 * MINUTE + SECOND;
        assert_eq!(nat.inbound(port, &flow, over), Err(Refusal::Filtered), "even before the hand came by");
        sweep_all(&nat, over);
        assert_eq!(nat.inbound(port, &flow, over), Err(Refusal::NoMapping));
        assert_eq!(nat.totals().sessions, 0);
    }
}

#[test]
fn rfc4787_req6_packets_of_the_client_refresh_and_others_by_choice() {
    for inbound_refreshes in [false, true] {
        let nat = Arc::new(Nat::new(Settings { inbound_refreshes, ..settings("20000-29999") }));
        let member = nat.admit().expect("an account");
        let flow = udp(remote(1, 53));
        let mut now = 0;
        let mut port = 0;
        for _ in 0..10 {
            port = nat.outbound(member.account(), &end(1, 5000), &flow, now).expect("a port");
            now += 4 * MINUTE;
            sweep_all(&nat, now);
        }
        assert!(nat.inbound(port, &flow, now).is_ok(), "refreshed for 40 minutes");
        now += 2 * MINUTE;
        sweep_all(&nat, now);
        assert_eq!(nat.inbound(port, &flow, now).is_ok(), inbound_refreshes);
    }
}

/// The mapping lasts as long as one of its sessions; the others are filtered when theirs is over.
#[test]
fn rfc4787_req6_each_session_has_its_own_time() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let (early, late) = (udp(remote(1, 53)), udp(remote(2, 53)));
    let port = nat.outbound(member.account(), &end(1, 5000), &early, 0).expect("a port");
    assert_eq!(nat.outbound(member.account(), &end(1, 5000), &late, 4 * MINUTE), Ok(port));
    sweep_all(&nat, 6 * MINUTE);
    assert_eq!(nat.inbound(port, &early, 6 * MINUTE), Err(Refusal::Filtered));
    assert!(nat.inbound(port, &late, 6 * MINUTE).is_ok());
    assert_eq!(nat.outbound(member.account(), &end(1, 5000), &early, 6 * MINUTE), Ok(port));
}

#[test]
fn rfc5382_req5_an_open_connection_lasts_two_hours_and_four_minutes_without_packets() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let from = end(1, 5000);
    let port = nat.outbound(member.account(), &from, &tcp(remote(1, 80), SYN), 0).expect("a port");
    assert!(nat.inbound(port, &tcp(remote(1, 80), SYN), 100).is_ok());
    let last = 124 * MINUTE;
    sweep_all(&nat, last);
    assert!(nat.inbound(port, &tcp(remote(1, 80), 0), last).is_ok());
    sweep_all(&nat, last + 2 * SECOND);
    assert_eq!(nat.inbound(port, &tcp(remote(1, 80), 0), last + 2 * SECOND), Err(Refusal::NoMapping));
}

#[test]
fn rfc5382_req5_an_attempt_lasts_four_minutes() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let port = nat.outbound(member.account(), &end(1, 5000), &tcp(remote(1, 80), SYN), 0).expect("a port");
    sweep_all(&nat, 4 * MINUTE - 1);
    assert!(nat.inbound(port, &tcp(remote(1, 80), RST), 4 * MINUTE - 1).is_ok());
    let nat = self::nat("20000-29999");
    let member = nat.admit().expect("an account");
    nat.outbound(member.account(), &end(1, 5000), &tcp(remote(1, 80), SYN), 0).expect("a port");
    sweep_all(&nat, 4 * MINUTE);
    assert_eq!(nat.totals().sessions, 0);
}

/// RFC 5382 REQ-4: no answer to a SYN that nobody asked for, whatever follows; REQ-2: opened from both ends at once.
#[test]
fn rfc5382_req4_an_early_syn_is_dropped_in_silence_and_a_simultaneous_open_works() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    // Makes the port known to the other end.
    let port = nat.outbound(member.account(), &end(1, 5000), &tcp(remote(9, 3478), SYN), 0).expect("a port");
    let peer = |flags| tcp(remote(1, 7000), flags);
    assert_eq!(nat.inbound(port, &peer(SYN), SECOND), Err(Refusal::Filtered));
    assert_eq!(nat.usage(member.account()).sessions, 1, "it left nothing behind");
    assert_eq!(nat.outbound(member.account(), &end(1, 5000), &peer(SYN), 3 * SECOND), Ok(port));
    assert!(nat.inbound(port, &peer(SYN), 4 * SECOND).is_ok(), "the SYN is sent again");
    sweep_all(&nat, 60 * MINUTE);
    assert!(nat.inbound(port, &peer(0), 60 * MINUTE).is_ok(), "established");
}

#[test]
fn rfc7857_closed_and_reset_connections_last_four_minutes() {
    let endings: [&[(bool, u8)]; 4] =
        [&[(true, FIN), (false, FIN), (true, 0)], &[(false, FIN), (true, FIN)], &[(true, RST)], &[(false, RST)]];
    for ending in endings {
        let nat = nat("20000-29999");
        let member = nat.admit().expect("an account");
        let flow = |flags| tcp(remote(1, 80), flags);
        let port = nat.outbound(member.account(), &end(1, 5000), &flow(SYN), 0).expect("a port");
        nat.inbound(port, &flow(SYN), 0).expect("let in");
        let close = 30 * MINUTE;
        for (is_out, flags) in ending {
            if *is_out {
                assert_eq!(nat.outbound(member.account(), &end(1, 5000), &flow(*flags), close), Ok(port));
            } else {
                assert!(nat.inbound(port, &flow(*flags), close).is_ok());
            }
        }
        sweep_all(&nat, close + 4 * MINUTE - 1);
        assert_eq!(nat.totals().sessions, 1, "{ending:?}");
        sweep_all(&nat, close + 4 * MINUTE);
        assert_eq!(nat.totals().sessions, 0, "{ending:?}");
    }
}

/// A forged reset does not end a connection that goes on.
#[test]
fn rfc7857_a_reset_connection_that_goes_on_is_established() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let flow = |flags| tcp(remote(1, 80), flags);
    let port = nat.outbound(member.account(), &end(1, 5000), &flow(SYN), 0).expect("a port");
    for flags in [SYN, RST] {
        nat.inbound(port, &flow(flags), 0).expect("let in");
    }
    assert_eq!(nat.outbound(member.account(), &end(1, 5000), &flow(0), 3 * MINUTE), Ok(port));
    sweep_all(&nat, 60 * MINUTE);
    assert!(nat.inbound(port, &flow(0), 60 * MINUTE).is_ok());
}

#[test]
fn a_reset_for_nothing_makes_nothing_and_a_connection_met_halfway_is_carried() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let flow = |flags| tcp(remote(1, 80), flags);
    assert_eq!(nat.outbound(member.account(), &end(1, 5000), &flow(RST), 0), Err(Refusal::NoMapping));
    assert_empty(&nat, &[]);
    let port = nat.outbound(member.account(), &end(1, 5000), &flow(0), 0).expect("a port");
    assert!(nat.inbound(port, &flow(RST), 1).is_ok(), "so the client learns that its server knows nothing of it");
}

#[test]
fn rfc5508_req2_a_query_lasts_a_minute() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let flow = icmp(remote(1, 0));
    let id = nat.outbound(member.account(), &end(1, 77), &flow, 0).expect("an identifier");
    assert!(nat.inbound(id, &flow, MINUTE - 1).is_ok());
    assert_eq!(nat.inbound(id, &flow, MINUTE), Err(Refusal::Filtered));
    sweep_all(&nat, MINUTE);
    assert_eq!(nat.totals(), Totals { mappings: 0, resting: 1, sessions: 0 });
}

/// RFC 5508 REQ-6, RFC 4787 REQ-12, RFC 5382 REQ-10.
#[test]
fn rfc5508_req6_errors_neither_make_nor_refresh_nor_end() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let flow = udp(remote(1, 53));
    assert_eq!(nat.error_outbound(member.account(), &end(1, 5000), &flow, 0), Err(Refusal::NoMapping));
    assert_empty(&nat, &[]);
    let port = nat.outbound(member.account(), &end(1, 5000), &flow, 0).expect("a port");
    let inside = Inside { account: member.account(), end: end(1, 5000) };
    for now in [1, 4 * MINUTE] {
        assert_eq!(nat.error_outbound(member.account(), &end(1, 5000), &flow, now), Ok(port));
        assert_eq!(nat.error_inbound(port, &flow, now), Ok(inside));
        assert_eq!(nat.error_inbound(port, &udp(remote(2, 53)), now), Err(Refusal::NoMapping));
        assert!(nat.inbound(port, &flow, now).is_ok());
    }
    assert_eq!(nat.error_inbound(port, &flow, 5 * MINUTE), Err(Refusal::NoMapping));
    assert_eq!(nat.error_outbound(member.account(), &end(1, 5000), &flow, 5 * MINUTE), Err(Refusal::NoMapping));
}

/// Repeats itself, for tests that can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
