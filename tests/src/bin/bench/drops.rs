//! What the interfaces count: packets that arrived, and packets that found the relay's receiving ring full.

use anyhow::{Context, Result};
use anytun_tests::namespace::output;
use serde::Deserialize;

use crate::topology::Topology;

/// Counters of the links at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Links {
    /// Packets that came out of the relay, at the interface where they are expected.
    pub(crate) arrived: f64,
    /// Packets that were sent into link0, those that were dropped there included.
    pub(crate) sent: f64,
    /// Of these, packets that were dropped because its ring of 256 was full: the relay has not seen them.
    pub(crate) ring_full: f64,
}

impl Links {
    /// Reads them.
    pub(crate) fn read(topology: &Topology, one_interface: bool) -> Result<Self> {
        let text = topology.generator.ip("-j -s link")?;
        let links: Vec<Link> = serde_json::from_str(&text).with_context(|| format!("ip printed {text}"))?;
        let find = |name: &str| links.iter().find(|link| link.ifname == name).context("a link is gone");
        let sink = find(if one_interface { "gen0" } else { "sink0" })?;
        let text = output(topology.generator.command("ethtool").args(["-S", "gen0"]))?;
        // Frames of an XDP program are counted apart, by the receiving end's queues.
        let frames: u64 = text.lines().filter_map(xmit_errors).sum();
        let tx = &find("gen0")?.stats64.tx;
        let ring_full = tx.dropped.max(frames) as f64;
        Ok(Self { arrived: sink.stats64.rx.packets as f64, sent: tx.packets as f64 + ring_full, ring_full })
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            arrived: self.arrived - before.arrived,
            sent: self.sent - before.sent,
            ring_full: self.ring_full - before.ring_full,
        }
    }
}

/// The value of a line such as `tx_queue_0_xdp_xmit_errors: 17`.
fn xmit_errors(line: &str) -> Option<u64> {
    let (name, value) = line.trim().split_once(": ")?;
    (name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit_errors")).then(|| value.parse().ok())?
}

/// What `ip -j -s link` prints.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    stats64: Stats,
}

#[derive(Deserialize)]
struct Stats {
    rx: Counters,
    tx: Counters,
}

#[derive(Deserialize)]
struct Counters {
    packets: u64,
    dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_queues_count() {
        assert_eq!(xmit_errors("     tx_queue_0_xdp_xmit_errors: 17"), Some(17));
        assert_eq!(xmit_errors("     tx_queue_11_xdp_xmit_errors: 2"), Some(2));
        assert_eq!(xmit_errors("     rx_queue_0_xdp_packets: 3"), None);
        assert_eq!(xmit_errors("NIC statistics:"), None);
    }
}
