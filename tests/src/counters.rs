//! What an interface counts.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::namespace::{Namespace, output};

/// Counters of one interface at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that arrived.
    pub received: u64,
    /// Packets that were sent, without those that were dropped.
    pub sent: u64,
    /// Packets that were to be sent and were dropped; on a veth, because the receiving ring of the other end was full.
    pub dropped: u64,
    /// Of these, frames of XDP programs (veth).
    pub frames_refused: u64,
}

impl Counters {
    /// Reads them.
    pub fn read(namespace: &Namespace, name: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-j -s link show dev {name}"))?;
        let links: Vec<Link> = serde_json::from_str(&text).with_context(|| format!("ip printed {text}"))?;
        let Stats { rx, tx } = links.into_iter().next().with_context(|| format!("{name} is gone"))?.stats64;
        // Frames of an XDP program are counted by the receiving end's queues.
        let text = output(namespace.command("ethtool").args(["-S", name]))?;
        let frames_refused = text.lines().filter_map(refused).sum();
        Ok(Self { received: rx.packets, sent: tx.packets, dropped: tx.dropped, frames_refused })
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            received: self.received - before.received,
            sent: self.sent - before.sent,
            dropped: self.dropped - before.dropped,
            frames_refused: self.frames_refused - before.frames_refused,
        }
    }
}

/// The value of a line such as `tx_queue_0_xdp_xmit_errors: 17`.
fn refused(line: &str) -> Option<u64> {
    let (name, value) = line.trim().split_once(": ")?;
    (name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit_errors")).then(|| value.parse().ok())?
}

/// What `ip -j -s link` prints.
#[derive(Deserialize)]
struct Link {
    stats64: Stats,
}

#[derive(Deserialize)]
struct Stats {
    rx: Packets,
    tx: Packets,
}

#[derive(Deserialize)]
struct Packets {
    packets: u64,
    dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_queues_count() {
        assert_eq!(refused("     tx_queue_0_xdp_xmit_errors: 17"), Some(17));
        assert_eq!(refused("     tx_queue_11_xdp_xmit_errors: 2"), Some(2));
        assert_eq!(refused("     rx_queue_0_xdp_packets: 3"), None);
        assert_eq!(refused("NIC statistics:"), None);
    }
}
