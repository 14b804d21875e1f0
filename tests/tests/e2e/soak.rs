//! Minutes of full load with a client that never stays where it is.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anytun_tests::config::Client;
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::{ANYCAST, Layout, PORT, Running, Who};
use anytun_tests::wait::{PATIENCE, until};

use crate::endpoint::inner;
use crate::{Case, case};

/// How long, unless `ANYTUN_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 300;
/// The time after which memory must not grow any more.
const WARM: Duration = Duration::from_secs(30);
/// What the kernel and the allocator may move about in a process whose memory is flat.
const FLAT: u64 = 4_000_000;
/// Where carol wanders.
const PORTS: std::ops::Range<u16> = 20_000..20_200;

pub(crate) fn cases() -> Vec<Case> {
    vec![case("soak/both-clients-flood-and-a-third-wanders", soak)]
}

fn soak() -> Result<()> {
    let seconds = std::env::var("ANYTUN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let running = Running::usual(Layout { queues: 2, ..Layout::default() })?;
    let crypto = Crypto::passphrase("carol never rests");
    let mut config = running.config.clone();
    config.clients.push(Client {
        endpoint: None,
        name: "carol".to_owned(),
        service: "anycast".to_owned(),
        mux: 3,
        addresses: vec![[10, 9, 0, 13].into()],
        crypto: crypto.clone(),
    });
    running.node.reconfigure(&config)?;
    let carol = Forger::new(&crypto, 3, (ANYCAST, PORT).into());
    let flows = running.both_ways(10_000, 0)?;
    let (start, mut warm, mut sequence) = (Instant::now(), None, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let sent = flows.each_ref().map(|flow| flow.numbered());
        for port in PORTS {
            sequence += 1;
            wander(&running, &carol, port, sequence)?;
        }
        until("both flows still go on", PATIENCE, || {
            Ok(flows.iter().zip(sent).all(|(flow, sent)| flow.latest() > sent).then_some(()))
        })?;
        let status = running.node.status()?;
        status.ensure_ledgers_hold()?;
        if start.elapsed() >= WARM.min(Duration::from_secs(seconds / 2)) {
            let first = *warm.get_or_insert(status.memory.rss_bytes);
            let now = status.memory.rss_bytes;
            ensure!(now <= first + FLAT, "memory grew from {first} to {now} octets in {:?}", start.elapsed());
        }
    }
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    running.node.await_status("no frame is on its way any more", |status| {
        status.ensure_ledgers_hold().is_ok()
            && status.workers.iter().all(|worker| worker.ledger.received == 0 && worker.ledger.tx == 0)
    })?;
    let last = wander(&running, &carol, PORTS.end, sequence + 1)?;
    running.node.await_status("carol is where she spoke last", |status| {
        status.client("carol").is_ok_and(|carol| carol.endpoint.as_ref() == Some(&last))
    })?;
    for (flow, who) in running.both_ways(1_000, 1_000)?.into_iter().zip(Who::BOTH) {
        flow.finish()?.ensure_none_lost(&format!("{} after the soak", who.name()))?;
    }
    Ok(())
}

/// Carol speaks once from a port; the place as `status` shows it.
fn wander(running: &Running, carol: &Forger, port: u16, sequence: u32) -> Result<String> {
    let alice = running.lab.client(Who::Alice);
    let outlet = Outlet::bind(alice, Ipv4Addr::new(198, 51, 100, 1).into(), port)?;
    let packet = carol.seal(sequence, IPV4, &datagram(Ipv4Addr::new(10, 9, 0, 13), inner(Who::Bob), 32));
    outlet.send(&packet, carol.service())?;
    outlet.endpoint()
}
