//! Several workers at once, on a clock that they push on themselves.

use std::sync::atomic::Ordering::SeqCst;

use super::*;

const THREADS: u64 = 4;
const CLIENTS: usize = 3;
const PORTS: usize = 8;
const REMOTES: u64 = 4;
const LIFE: u64 = 5 * MINUTE;

/// What is known of a client's port: the port outside and when it was last refreshed.
struct Known(AtomicU64);

impl Known {
    fn set(&self, port: u16, now: u64) {
        self.0.store(now << 16 | u64::from(port), SeqCst);
    }

    fn get(&self) -> Option<(u16, u64)> {
        let word = self.0.load(SeqCst);
        (word != 0).then_some((word as u16, word >> 16))
    }
}

/// Every thread sends from the same few ports of the same few clients while the clock runs fast, so that mappings are made by
/// several at once, refreshed while they expire and used again while others read them. Then:
///
/// * a port that was refreshed leads to who refreshed it, until its time is over;
/// * until then its owner has no other;
/// * sums agree in the end, and all can be taken away.
fn hammer(rest: u32, ports: &str, turns: u64) {
    let timers = Timers { rest, ..Timers::default() };
    let nat = Arc::new(Nat::new(Settings { timers, ..settings(ports) }));
    let members: Vec<Member> = (0..CLIENTS).map(|_| nat.admit().expect("an account")).collect();
    let clock = AtomicU64::new(1);
    let known: Vec<Known> = (0..CLIENTS * PORTS).map(|_| Known(AtomicU64::new(0))).collect();
    let carried = AtomicU64::new(0);
    let start = std::sync::Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (nat, members, clock, known, carried, start) = (&nat, &members, &clock, &known, &carried, &start);
            scope.spawn(move || {
                let mut random = Random(thread);
                start.wait();
                for _ in 0..turns {
                    let draw = random.next();
                    if draw >> 58 == 0 {
                        clock.fetch_add(draw % (LIFE / 3), SeqCst);
                    }
                    let now = clock.load(SeqCst);
                    nat.sweep(1000, now);
                    let (client, port) = (draw as usize % CLIENTS, (draw >> 8) as usize % PORTS);
                    let (inside, flow) =
                        (end(client as u8, port as u16), udp(remote((draw >> 16 & (REMOTES - 1)) as u8, 1)));
                    let before = known[client * PORTS + port].get();
                    let outside = match nat.outbound(members[client].account(), &inside, &flow, now) {
                        Ok(outside) => outside,
                        Err(Refusal::PortsExhausted) => continue,
                        Err(refusal) => panic!("{refusal:?}"),
                    };
                    carried.fetch_add(1, SeqCst);
                    let later = clock.load(SeqCst);
                    if let Some((expected, refreshed)) = before
                        && later < refreshed + LIFE
                    {
                        assert_eq!(outside, expected, "a mapping that was refreshed was lost");
                    }
                    let back = nat.inbound(outside, &flow, later);
                    if clock.load(SeqCst) < now + LIFE {
                        let expected = Inside { account: members[client].account(), end: inside };
                        assert_eq!(back, Ok(expected), "a port has two owners or was lost");
                    }
                    known[client * PORTS + port].set(outside, now);
                }
            });
        }
    });
    assert!(carried.load(SeqCst) > turns, "packets are carried");
    let totals = nat.totals();
    let usage: Vec<Usage> = members.iter().map(|member| nat.usage(member.account())).collect();
    assert_eq!(usage.iter().map(|usage| usage.ports as usize).sum::<usize>(), totals.mappings + totals.resting);
    assert_eq!(usage.iter().map(|usage| usage.sessions as usize).sum::<usize>(), totals.sessions);
    assert_eq!((nat.by_inside.count(), nat.by_remote.count()), (totals.mappings, totals.sessions));
    let now = clock.load(SeqCst);
    sweep_all(&nat, now + 2 * LIFE);
    sweep_all(&nat, now + 4 * LIFE);
    assert_empty(&nat, &members);
}

#[test]
fn no_port_has_two_owners_and_none_that_was_refreshed_is_lost() {
    hammer(120, "20000-29999", 20_000);
}

/// Ports that do not rest and are few are used again at once, while others still look at what they were.
#[test]
fn ports_that_are_used_again_at_once_are_never_mistaken() {
    hammer(0, "20000-20023", 30_000);
    hammer(0, "20000-20009", 30_000);
}

/// All threads begin the same flows together, again and again: there is one mapping and one session for each.
#[test]
fn a_flow_that_all_begin_at_once_is_begun_once() {
    let nat = nat("20000-29999");
    let member = nat.admit().expect("an account");
    let barrier = std::sync::Barrier::new(THREADS as usize);
    let ports: Vec<Vec<u16>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let port = |port| {
                        barrier.wait();
                        nat.outbound(member.account(), &end(1, port), &udp(remote(1, 53)), 0).expect("a port")
                    };
                    (0..1000).map(port).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    assert!(ports.iter().all(|own| *own == ports[0]), "all got the same ports");
    assert_eq!(nat.totals(), Totals { mappings: 1000, resting: 0, sessions: 1000 });
    assert_eq!(nat.usage(member.account()), Usage { ports: 1000, sessions: 1000 });
}

/// A limit holds whoever counts.
#[test]
fn a_limit_is_never_exceeded_by_many_at_once() {
    let limits = Limits { ports_per_client: 100, sessions_per_client: 150, ..settings("20000-29999").limits };
    let nat = Arc::new(Nat::new(Settings { limits, ..settings("20000-29999") }));
    let member = nat.admit().expect("an account");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (nat, member) = (&nat, &member);
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..10_000 {
                    let draw = random.next();
                    let flow = udp(remote((draw >> 32) as u8, 1));
                    let _ = nat.outbound(member.account(), &end(1, draw as u16 % 200), &flow, 0);
                    let totals = nat.usage(member.account());
                    assert!(totals.ports <= 100 && totals.sessions <= 150, "{totals:?}");
                }
            });
        }
    });
    assert_eq!(nat.usage(member.account()).sessions, 150);
    assert_eq!(nat.totals().sessions, 150);
}

/// Clients come and go while their packets are under way: late ones leave nothing behind.
#[test]
fn clients_that_go_under_load_leave_nothing_behind() {
    let nat = nat("20000-29999");
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (nat, clock) = (&nat, &clock);
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..300 {
                    let now = clock.fetch_add(100, SeqCst);
                    let member = nat.admit().expect("an account");
                    let account = member.account();
                    let mut member = Some(member);
                    for turn in 0..50 {
                        let flow = udp(remote(1, random.next() as u16 % 4));
                        let sent = nat.outbound(account, &end(1, random.next() as u16 % 4), &flow, now);
                        match (&member, sent) {
                            (Some(_), Ok(port)) => {
                                assert_eq!(nat.inbound(port, &flow, now).map(|inside| inside.account), Ok(account));
                            }
                            (Some(_), Err(refusal)) => assert_eq!(refusal, Refusal::PortsExhausted),
                            // Of a worker that has not let go of the old snapshot yet.
                            (None, Ok(port)) => assert_eq!(nat.inbound(port, &flow, now), Err(Refusal::NoMapping)),
                            (None, Err(refusal)) => assert_eq!(refusal, Refusal::NoMapping),
                        }
                        if turn == 25 {
                            member = None;
                        }
                        nat.sweep(10, now);
                    }
                }
            });
        }
    });
    sweep_all(&nat, clock.load(SeqCst) + LIFE);
    sweep_all(&nat, clock.load(SeqCst) + 2 * LIFE);
    assert_empty(&nat, &[]);
}
