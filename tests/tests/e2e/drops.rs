//! What is not authentic, not new or not meant: changes nothing, reaches nobody, and is counted under its own reason.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::Who;
use anytun_xdp::satp::Role;

use crate::endpoint::{Forged, inner};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![case("drops/each-under-its-own-reason", drops)]
}

/// Packets that must be dropped, by the reason they must be counted under.
fn bad_packets(forged: &Forged) -> Vec<(&'static str, Vec<u8>)> {
    let to_bob = datagram(inner(Who::Alice), inner(Who::Bob), 32);
    let good = |sequence| forged.alice.seal(sequence, IPV4, &to_bob);
    let service: SocketAddr = forged.alice.service();
    let forger = |passphrase: &str| Forger::new(&Crypto::passphrase(passphrase), Who::Alice.mux(), service);
    let mut flipped_tag = good(300);
    let last = flipped_tag.len() - 1;
    flipped_tag[last] ^= 1;
    let mut flipped_body = good(301);
    flipped_body[20] ^= 0x80;
    let mut other_sequence = good(302);
    other_sequence[3] ^= 1;
    let mut cut = good(304);
    cut.pop();
    let mut other_mux = good(305);
    other_mux[6..8].copy_from_slice(&999u16.to_be_bytes());
    let guessed = forger("a guess").seal(306, IPV4, &to_bob);
    let reflected = forger(Who::Alice.passphrase()).with_role(Role::Left).seal(307, IPV4, &to_bob);
    let stranger = datagram(Ipv4Addr::new(10, 9, 0, 99), inner(Who::Bob), 32);
    let posing_as_bob = datagram(inner(Who::Bob), inner(Who::Bob), 32);
    let nowhere = datagram(inner(Who::Alice), Ipv4Addr::new(10, 9, 0, 200), 32);
    vec![
        ("bad-tag", flipped_tag),
        ("bad-tag", flipped_body),
        ("bad-tag", other_sequence),
        ("bad-tag", cut),
        ("bad-tag", guessed),
        ("bad-tag", reflected),
        ("replayed", good(100)),
        ("unknown-mux", other_mux),
        ("short", vec![0]),
        ("short", good(309)[..17].to_vec()),
        ("foreign-source", forged.alice.seal(310, IPV4, &stranger)),
        ("foreign-source", forged.alice.seal(311, IPV4, &posing_as_bob)),
        // From here on the packets are authentic and honest, only of no use.
        ("no-route", forged.alice.seal(312, IPV4, &nowhere)),
        ("payload-type", forged.alice.seal(313, 0x6558, &[0; 60])),
        ("malformed-inner", forged.alice.seal(314, IPV4, &to_bob[..19])),
    ]
}

/// How many of the packets above must not move the endpoint either. An honest one may.
const CHANGE_NOTHING: usize = 12;

fn drops() -> Result<()> {
    let forged = Forged::start()?;
    forged.introduce()?;
    // Everything comes from a place where alice has never been.
    let elsewhere = Outlet::bind(forged.lab.client(Who::Bob), Ipv4Addr::new(203, 0, 113, 1).into(), 6666)?;
    let home = Some(forged.home.endpoint()?);
    let start = forged.node.status()?;
    for (index, (reason, packet)) in bad_packets(&forged).into_iter().enumerate() {
        let before = forged.node.status()?;
        elsewhere.send(&packet, forged.alice.service())?;
        let what = format!("packet {index} is counted under {reason}");
        let after = forged.node.await_status(&what, |now| now.verdict(reason) == before.verdict(reason) + 1)?;
        let drops: u64 = after.workers.iter().flat_map(|worker| worker.verdicts.values()).sum();
        let earlier: u64 = before.workers.iter().flat_map(|worker| worker.verdicts.values()).sum();
        ensure!(drops == earlier + 1, "packet {index} was counted {} times", drops - earlier);
        if index < CHANGE_NOTHING {
            let endpoint = forged.endpoint()?;
            ensure!(endpoint == home, "packet {index} ({reason}) moved alice's endpoint to {endpoint:?}");
        }
    }
    let end = forged.node.status()?;
    for who in Who::BOTH {
        let (start, end) = (start.client(who.name())?.tx, end.client(who.name())?.tx);
        ensure!(start == end, "the node sent something to {}: {start:?}, then {end:?}", who.name());
    }
    ensure!(forged.bobs.is_silent()? && forged.home.is_silent()?, "a dropped packet reached a client");
    for reason in ["bad-tag", "replayed", "foreign-source"] {
        let (client, all) = (end.client("alice")?.drops.get(reason).copied(), end.verdict(reason));
        ensure!(client == Some(all), "alice's own counter of {reason} shows {client:?} of {all}");
    }
    // The windows are as they were: the numbers of the forged packets are still good.
    forged.alice_sends(320, &forged.home)?;
    forged.alice_sends(300, &forged.home)?;
    forged.bob_sends(101, &forged.home)?;
    forged.node.status()?.ensure_ledgers_hold()
}
