//! Counters of one client.

use std::sync::atomic::{AtomicU64, Ordering};

use anytun_common::verdict::{Outcome, Verdict};

/// The first verdict that is counted for each client; every one from here on is, and means a drop. Those before it are
/// nobody's, or for want of what all clients share.
const FIRST_DROP: usize = Verdict::Short as usize;
const DROPS: usize = Verdict::COUNT - FIRST_DROP;

const _: () = {
    // With the count of owners behind it, five cache lines: there are many clients.
    assert!(size_of::<ClientCounters>() <= 256);
    let mut index = FIRST_DROP;
    while index < Verdict::COUNT {
        assert!(matches!(Verdict::ALL[index].outcome(), Outcome::Dropped));
        index += 1;
    }
};

/// What one worker counted for one client. Written by that worker alone, so a load and a store make an increment; read
/// by anyone. Aligned so that two workers never write to one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct ClientCounters {
    rx_packets: AtomicU64,
    rx_octets: AtomicU64,
    tx_packets: AtomicU64,
    tx_octets: AtomicU64,
    drops: [AtomicU64; DROPS],
}

impl Default for ClientCounters {
    fn default() -> Self {
        Self {
            rx_packets: AtomicU64::new(0),
            rx_octets: AtomicU64::new(0),
            tx_packets: AtomicU64::new(0),
            tx_octets: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DROPS],
        }
    }
}

#[inline]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl ClientCounters {
    /// Counts an authentic packet from the client; `octets` are those of the SATP packet.
    #[inline]
    pub fn received(&self, octets: usize) {
        add(&self.rx_packets, 1);
        add(&self.rx_octets, octets as u64);
    }

    /// Counts a packet handed over for transmission to the client; `octets` are those of the SATP packet.
    #[inline]
    pub fn sent(&self, octets: usize) {
        add(&self.tx_packets, 1);
        add(&self.tx_octets, octets as u64);
    }

    /// Counts a dropped packet. Verdicts that are no drops are not counted here.
    #[inline]
    pub fn dropped(&self, verdict: Verdict) {
        if let Some(counter) = (verdict as usize).checked_sub(FIRST_DROP).and_then(|index| self.drops.get(index)) {
            add(counter, 1);
        }
    }
}

/// The counters of a client over all workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientTotals {
    /// Authentic packets from the client.
    pub rx_packets: u64,
    /// Octets of those, from the SATP header to the tag.
    pub rx_octets: u64,
    /// Packets handed over for transmission to the client.
    pub tx_packets: u64,
    /// Octets of those, from the SATP header to the tag.
    pub tx_octets: u64,
    drops: [u64; DROPS],
}

impl ClientTotals {
    /// Sums up the counters of every worker.
    pub fn sum(workers: &[ClientCounters]) -> Self {
        let mut totals = Self { rx_packets: 0, rx_octets: 0, tx_packets: 0, tx_octets: 0, drops: [0; DROPS] };
        for counters in workers {
            totals.rx_packets += counters.rx_packets.load(Ordering::Relaxed);
            totals.rx_octets += counters.rx_octets.load(Ordering::Relaxed);
            totals.tx_packets += counters.tx_packets.load(Ordering::Relaxed);
            totals.tx_octets += counters.tx_octets.load(Ordering::Relaxed);
            for (sum, drops) in totals.drops.iter_mut().zip(&counters.drops) {
                *sum += drops.load(Ordering::Relaxed);
            }
        }
        totals
    }

    /// Dropped packets by reason, those with none left out.
    pub fn drops(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL[FIRST_DROP..].iter().copied().zip(self.drops).filter(|&(_, count)| count != 0)
    }
}
