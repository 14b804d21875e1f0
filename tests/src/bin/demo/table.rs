//! The live table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anytun_common::verdict::{Outcome, Verdict};
use anytun_tests::status::{Status, Traffic};
use anytun_tests::traffic::Echo;

/// What the node did for all clients together.
pub(crate) struct Sum {
    /// Packets sent to clients.
    pub(crate) packets: u64,
    /// Their octets.
    pub(crate) bytes: u64,
    /// Drops by reason, or nothing.
    pub(crate) drops: String,
}

impl Sum {
    /// Adds up a status.
    pub(crate) fn of(status: &Status) -> Self {
        let sent = || status.clients.iter().map(|client| client.tx);
        let dropped =
            Verdict::ALL.iter().filter(|verdict| matches!(verdict.outcome(), Outcome::Shed | Outcome::Dropped));
        let drops = dropped.map(|verdict| (verdict.name().to_owned(), status.verdict(verdict.name()))).collect();
        Self {
            packets: sent().map(|Traffic { packets, .. }| packets).sum(),
            bytes: sent().map(|Traffic { bytes, .. }| bytes).sum(),
            drops: reasons(&drops),
        }
    }
}

/// The table as text: a line per client, a line per queue, a line about the pings.
pub(crate) fn render(status: &Status, flows: &[Echo; 2], programs: [&str; 2], elapsed: Duration) -> String {
    let mut text = format!(
        "{:<7}{:<9}{:<22}{:>11}{:>11}{:>12}{:>11}  dropped\n",
        "client", "program", "endpoint", "packets in", "octets in", "packets out", "octets out"
    );
    for (client, program) in status.clients.iter().zip(programs) {
        let endpoint = client.endpoint.as_deref().unwrap_or("not heard from yet");
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "{:<7}{program:<9}{endpoint:<22}{:>11}{:>11}{:>12}{:>11}  {}",
            client.name,
            client.rx.packets,
            octets(client.rx.bytes),
            client.tx.packets,
            octets(client.tx.bytes),
            reasons(&client.drops)
        );
    }
    let _ = writeln!(text, "{:<11}{:>5}  XDP asked, got        socket asked, got", "interface", "queue");
    for interface in &status.interfaces {
        for queue in &interface.queues {
            let xdp = format!("{}, {}", interface.xdp.asked, interface.xdp.got);
            let socket = format!("{}, {}", queue.mode.asked, queue.mode.got);
            let _ = writeln!(text, "{:<11}{:>5}  {xdp:<20}  {socket}", interface.name, queue.queue);
        }
    }
    let [alice, bob] = flows;
    let _ = writeln!(
        text,
        "{:>4} s   pings answered: alice to bob {} of {}, bob to alice {} of {}",
        elapsed.as_secs(),
        alice.received(),
        alice.sent(),
        bob.received(),
        bob.sent()
    );
    text
}

/// A count of octets with a unit that keeps it short.
pub(crate) fn octets(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// `3 replayed, 1 no-endpoint`; reasons that did not occur are left out.
fn reasons(drops: &BTreeMap<String, u64>) -> String {
    let shown: Vec<_> =
        drops.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    shown.join(", ")
}
