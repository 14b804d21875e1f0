//! Clients and sessions that come and go, and the hand that clears up behind them.

use super::*;

#[test]
fn a_client_that_goes_loses_its_mappings_at_once_and_one_that_comes_gets_none_of_them() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let stays = nat.admit().expect("an account");
    let flow = udp(remote(1, 53));
    let port = nat.outbound(member.account(), &end(1, 5000), &flow, 0).expect("a port");
    let other = nat.outbound(stays.account(), &end(2, 5000), &flow, 0).expect("a port");
    let gone = member.account();
    drop(member);
    assert_eq!(nat.inbound(port, &flow, 1), Err(Refusal::NoMapping));
    assert_eq!(nat.outbound(gone, &end(1, 5001), &flow, 1), Err(Refusal::NoMapping), "a late packet of it");
    let next = nat.admit().expect("an account");
    assert_ne!(next.account().number(), gone.number(), "the number is still in use");
    sweep_all(&nat, 1);
    assert_eq!(nat.usage(gone).sessions, 0);
    sweep_all(&nat, 3 * MINUTE);
    let again =
        (0..3).map(|_| nat.admit().expect("an account")).find(|member| member.account().number() == gone.number());
    let again = again.expect("its number is used again");
    assert_ne!(again.account(), gone);
    assert_eq!(nat.usage(again.account()), Usage::default());
    assert!(nat.inbound(other, &flow, 3 * MINUTE).is_ok(), "the other client kept its own");
}

/// The hand comes by while a worker has written a session and not yet put it in force, and its client is gone.
#[test]
fn a_session_that_is_being_made_is_left_to_its_maker() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    nat.outbound(member.account(), &end(1, 5000), &udp(remote(1, 53)), 0).expect("a port");
    let number = (0..30_000).find(|number| nat.mappings[*number].state().is_live()).expect("a mapping");
    let (words, hash) = nat.remote_key(number, &udp(remote(2, 53)));
    let session = nat.taken.take(0).expect("a session");
    let state = nat.sessions[session].begin(words, 0, 1);
    drop(member);
    sweep_all(&nat, 100 * SECOND);
    assert_eq!(nat.sessions[session].state(), state, "still its maker's");
    assert_eq!(nat.totals().sessions, 1, "the other has ended with its client");
    assert!(nat.by_remote.find(hash, Some).is_none());
}

#[test]
fn one_call_does_bounded_work_and_many_calls_do_all_of_it() {
    let limits = Limits { ports_per_client: 10_000, sessions_per_client: 10_000, ..settings("20000-29999").limits };
    let nat = Arc::new(Nat::new(Settings { limits, ..settings("20000-29999") }));
    let member = nat.admit().expect("an account");
    for port in 0..10_000 {
        nat.outbound(member.account(), &end(1, port), &udp(remote(1, 53)), 0).expect("a port");
    }
    let now = 6 * MINUTE;
    assert!(nat.sweep(2, now) <= 2 * pool::PER_WORD, "two steps");
    assert_eq!(nat.sweep(usize::MAX, now), 0, "no step is due again in the same millisecond");
    for tick in 1..=SWEEP_ROUND / 10 + 10 {
        nat.sweep(1000, now + 10 * tick);
    }
    assert_eq!(nat.totals(), Totals { mappings: 0, resting: 10_000, sessions: 0 }, "one round");
    for tick in 0..=SWEEP_ROUND / 10 {
        nat.sweep(1000, now + 3 * MINUTE + 10 * tick);
    }
    for tick in 0..=SWEEP_ROUND / 10 {
        nat.sweep(1000, now + 4 * MINUTE + 10 * tick);
    }
    assert_empty(&nat, &[member]);
}

/// Ten minutes of clients that open and leave flows of all protocols, in compressed time, with the hand moved as a worker
/// moves it. What was sent to can answer, and in the end nothing is left.
#[test]
fn ten_minutes_of_churn_leave_nothing_behind() {
    let nat = nat("20000-29999");
    let members: Vec<Member> = (0..50).map(|_| nat.admit().expect("an account")).collect();
    let mut random = Random(1);
    let (mut carried, mut most) = (0u32, 0);
    let mut now = 0;
    while now < 10 * MINUTE {
        now += 2;
        nat.sweep(4, now);
        let draw = random.next();
        let client = (draw % 50) as usize;
        // Ports that clients use change, so that mappings end all the while.
        let inside = end(client as u8, (draw >> 8) as u16 % 60 + (now / MINUTE) as u16 * 20);
        let to = remote((draw >> 24) as u8 % 2, (draw >> 32) as u16 % 2);
        let flags = [SYN, SYN, SYN, 0, FIN, RST][(draw >> 48) as usize % 6];
        let flow = match draw >> 56 & 7 {
            0..5 => udp(to),
            5 => tcp(to, flags),
            _ => icmp(End { port: 0, ..to }),
        };
        match nat.outbound(members[client].account(), &inside, &flow, now) {
            Ok(port) => {
                let back = nat.inbound(port, &flow, now);
                assert_eq!(back, Ok(Inside { account: members[client].account(), end: inside }));
                carried += 1;
            }
            Err(Refusal::PortsExhausted | Refusal::TableFull) => {}
            Err(refusal) => assert_eq!((refusal, flow.flags & RST), (Refusal::NoMapping, RST)),
        }
        if now % MINUTE == 0 {
            let totals = nat.totals();
            let usage = members.iter().map(|member| nat.usage(member.account()));
            let (ports, sessions) = usage.fold((0, 0), |(p, s), usage| (p + usage.ports, s + usage.sessions));
            assert_eq!((totals.mappings + totals.resting, totals.sessions), (ports as usize, sessions as usize));
            most = most.max(totals.sessions);
        }
    }
    assert!(carried > 200_000 && most > 10_000, "{carried} {most}");
    // Connections that were opened end last, then their ports rest; a round takes a while besides.
    let quiet = now + 124 * MINUTE + 2 * MINUTE + 5 * SWEEP_ROUND;
    while now < quiet {
        now += 100;
        nat.sweep(1000, now);
    }
    assert_empty(&nat, &members);
}
