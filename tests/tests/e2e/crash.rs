//! A node that dies without a word and starts again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anytun_tests::capture::{Capture, ensure_unique};
use anytun_tests::lab::{ANYCAST, Layout, PORT, Running, Who};
use anytun_tests::wait::until;

use crate::{Case, case};

/// How long is waited for the traffic of both clients to resume after the restart. The node is ready after a quarter of a
/// second; with the daemons at both ends it takes one or two more.
const RESUMED: Duration = Duration::from_secs(5);

pub(crate) fn cases() -> Vec<Case> {
    vec![case("crash/kill-and-restart-under-load", crash)]
}

/// Killed three times under load. What the node sent over the whole time, as captured on both links, never has the same
/// sequence number twice for a key and sender ID.
fn crash() -> Result<()> {
    let mut running = Running::usual(Layout::default())?;
    let filter = format!("udp and src host {ANYCAST}");
    let capture = |who| Capture::start(running.lab.client(who), "eth0", &filter, running.lab.directory());
    let captures = [capture(Who::Alice)?, capture(Who::Bob)?];
    let clients = running.daemons.each_ref().map(|daemon| daemon.pid());
    let flows = running.both_ways(1_000, 0)?;
    for _ in 0..3 {
        let before = flows.each_ref().map(|flow| flow.numbered());
        until("traffic flows before the crash", RESUMED, || {
            Ok(flows.iter().zip(before).all(|(flow, sent)| flow.latest() > sent + 200).then_some(()))
        })?;
        running.node.kill()?;
        let restart = Instant::now();
        running.node.relaunch(&running.lab.node)?;
        let sent = flows.each_ref().map(|flow| flow.numbered());
        until("the traffic of both clients has resumed after the restart", RESUMED, || {
            Ok(flows.iter().zip(sent).all(|(flow, sent)| flow.latest() > sent).then_some(()))
        })?;
        println!("resumed {} ms after the restart", restart.elapsed().as_millis());
    }
    let reports = flows.map(|flow| flow.stop());
    ensure!(clients == running.daemons.each_ref().map(|daemon| daemon.pid()), "a client was restarted");
    let mut carried = 0;
    for (report, who) in reports.into_iter().zip(Who::BOTH) {
        carried += report?.received;
        ensure!(carried > 0, "nothing of {} came back", who.name());
    }
    let mut headers = Vec::new();
    for capture in captures {
        headers.append(&mut capture.stop()?.headers_from(ANYCAST.into(), PORT));
    }
    // Each ping that came back was sent to one client, its reply to the other.
    ensure!(headers.len() >= 2 * carried as usize, "{} packets captured for {carried} pings", headers.len());
    ensure_unique(&headers)?;
    running.node.await_ready(RESUMED)?;
    running.node.status()?.ensure_ledgers_hold()
}
