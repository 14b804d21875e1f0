//! Every frame is in exactly one place, whatever happens to the links and the clients.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::http;
use anytun_tests::lab::{ANYCAST, Layout, PORT, Running, Who};
use anytun_tests::status::Status;
use anytun_tests::traffic::Echo;
use anytun_tests::wait::{PATIENCE, until};

use crate::endpoint::inner;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("ledger/a-million-forged-packets", forged),
        case("ledger/interface-down-and-up", down_and_up),
        case("ledger/neighbour-stops-reading", stops_reading),
        case("ledger/neighbour-is-gone", neighbour_gone),
        case("ledger/interface-made-anew", made_anew),
    ]
}

/// A million packets with a wrong tag reach the workers. Each is counted, none moves anything, and the clients' own
/// traffic flows again at once.
fn forged() -> Result<()> {
    const MILLION: u64 = 1_000_000;
    const BURST: usize = 60;
    let running = Running::usual(Layout::default())?;
    let endpoints = endpoints(&running.node.status()?);
    let forger = Forger::new(&Crypto::passphrase("a guess"), Who::Alice.mux(), (ANYCAST, PORT).into());
    let outlet = Outlet::bind(running.lab.client(Who::Alice), Ipv4Addr::new(198, 51, 100, 1).into(), 6666)?;
    let inside = datagram(inner(Who::Alice), inner(Who::Bob), 16);
    let packets: Vec<_> = (0..BURST as u32).map(|sequence| forger.seal(1 << 30 | sequence, IPV4, &inside)).collect();
    let (size, burst) = (packets[0].len() as u16, packets.concat());
    // A full ring drops what a busy node cannot take, so more than a million are sent; but not without end.
    let mut bursts = 0;
    while running.node.status()?.verdict("bad-tag") < MILLION {
        ensure!(bursts * BURST < 20 * MILLION as usize, "20 million sent, but the node has not taken a million");
        for _ in 0..1_000 {
            outlet.flood(&burst, size, forger.service())?;
        }
        bursts += 1_000;
        running.node.status()?.ensure_ledgers_hold()?;
    }
    settled(&running)?;
    let status = running.node.status()?;
    ensure!(endpoints == self::endpoints(&status), "an endpoint has moved: {:?}", self::endpoints(&status));
    status.ensure_every_packet_has_a_verdict()?;
    exchange(&running, "after a million forged packets")
}

/// The node's interface goes down and comes back, under load.
fn down_and_up() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flows = running.both_ways(1_000, 0)?;
    for _ in 0..3 {
        running.lab.node.ip("link set link1 down")?;
        stalled(&running, &flows)?;
        running.node.status()?.ensure_ledgers_hold()?;
        running.lab.node.ip("link set link1 up")?;
        resumed(&flows)?;
        running.node.status()?.ensure_ledgers_hold()?;
    }
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    settled(&running)?;
    exchange(&running, "after the interface went down and up")
}

/// Bob's daemon stops reading while alice goes on sending. The node does not notice; alice hears of it from nobody.
fn stops_reading() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flows = running.both_ways(5_000, 0)?;
    running.daemons[Who::Bob as usize].pause()?;
    let before = running.node.status()?.client("bob")?.tx.packets;
    running.node.await_status("more packets have gone to bob, who does not read, than his socket holds", |status| {
        status.ensure_ledgers_hold().is_ok() && status.client("bob").is_ok_and(|bob| bob.tx.packets > before + 500)
    })?;
    running.daemons[Who::Bob as usize].resume()?;
    resumed(&flows)?;
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    settled(&running)?;
    exchange(&running, "after bob read again")
}

/// Bob's end of the link goes down: what is sent to him cannot leave.
fn neighbour_gone() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flows = running.both_ways(2_000, 0)?;
    let bob = running.lab.client(Who::Bob);
    bob.ip("link set eth0 down")?;
    stalled(&running, &flows)?;
    running.node.status()?.ensure_ledgers_hold()?;
    bob.ip("link set eth0 up")?;
    bob.ip("route replace default via 203.0.113.254")?;
    resumed(&flows)?;
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    settled(&running)?;
    exchange(&running, "after bob came back")
}

/// An interface is deleted, and another of its name made: the node carries nothing there any more, and says so where
/// routing asks.
fn made_anew() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let Some(address) = running.config.metrics else { unreachable!("the lab's configuration has metrics") };
    exchange(&running, "before")?;
    let node = &running.lab.node;
    let not_ready = |what: &str| {
        until(what, PATIENCE, || {
            let (code, text) = http::get(node, address, "/readyz")?;
            Ok((code == 503 && text.contains("link1") && text.contains("restart")).then_some(()))
        })
    };
    node.ip("link delete link1")?;
    not_ready("not ready without an interface")?;
    node.ip("link add link1 type veth peer name other")?;
    node.ip("link set link1 up")?;
    node.ip("link set other up")?;
    not_ready("not ready with an interface of the same name")?;
    let status = running.node.status()?;
    ensure!(!status.ready, "status says ready");
    status.ensure_ledgers_hold()
}

fn endpoints(status: &Status) -> Vec<Option<String>> {
    status.clients.iter().map(|client| client.endpoint.clone()).collect()
}

/// Waits until alice has sent a good deal into the void.
fn stalled(running: &Running, flows: &[Echo; 2]) -> Result<()> {
    let sent = flows[0].sent();
    until(
        "alice has sent 500 pings that cannot arrive",
        PATIENCE,
        || Ok((flows[0].sent() > sent + 500).then_some(())),
    )?;
    running.node.status()?.ensure_ledgers_hold()
}

/// Waits until pings sent from now on come back, both ways.
fn resumed(flows: &[Echo; 2]) -> Result<()> {
    let sent = flows.each_ref().map(|flow| flow.numbered());
    until("pings come back both ways", PATIENCE, || {
        Ok(flows.iter().zip(sent).all(|(flow, sent)| flow.latest() > sent + 100).then_some(()))
    })
}

/// Waits until no frame is on its way: all that were received or sent have come back to the worker or the FILL rings.
fn settled(running: &Running) -> Result<()> {
    running.node.await_status("no frame is received or in TX", |status| {
        status.ensure_ledgers_hold().is_ok()
            && status.workers.iter().all(|worker| worker.ledger.received == 0 && worker.ledger.tx == 0)
    })?;
    Ok(())
}

/// 1,000 pings both ways of which none is lost.
fn exchange(running: &Running, when: &str) -> Result<()> {
    for (flow, who) in running.both_ways(1_000, 1_000)?.into_iter().zip(Who::BOTH) {
        flow.finish()?.ensure_none_lost(&format!("{} to {} {when}", who.name(), who.other().name()))?;
    }
    running.node.status()?.ensure_ledgers_hold()
}
