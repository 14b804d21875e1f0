//! Counters of one worker.

use std::sync::atomic::{AtomicU64, Ordering};

use anytun_common::verdict::Verdict;

use super::io::{IoCounters, Ledger};
use crate::mode::icmp::Kind;
use crate::table::Latch;

/// What a worker shows of itself. It alone writes; anyone may read.
#[derive(Debug)]
pub struct WorkerCounters {
    verdicts: [AtomicU64; Verdict::COUNT],
    icmp_errors: [AtomicU64; Kind::COUNT],
    ledger: Latch<5>,
    io: [AtomicU64; 5],
    rx_packets: AtomicU64,
    copies: AtomicU64,
    injected: AtomicU64,
    turns: AtomicU64,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            verdicts: [const { AtomicU64::new(0) }; Verdict::COUNT],
            icmp_errors: [const { AtomicU64::new(0) }; Kind::COUNT],
            ledger: Latch::default(),
            io: [const { AtomicU64::new(0) }; 5],
            rx_packets: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            turns: AtomicU64::new(0),
        }
    }
}

/// What a worker has counted and not shown yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Packets by verdict.
    pub verdicts: [u64; Verdict::COUNT],
    /// Packets that were turned into ICMP errors about them, by kind.
    pub icmp_errors: [u64; Kind::COUNT],
    /// Packets received.
    pub rx_packets: u64,
    /// Copies of packets to groups.
    pub copies: u64,
    /// Packets of the node's kernel that were taken from the slow path, and queries for members of groups.
    pub injected: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            verdicts: [0; Verdict::COUNT],
            icmp_errors: [0; Kind::COUNT],
            rx_packets: 0,
            copies: 0,
            injected: 0,
            turns: 0,
        }
    }
}

impl Tally {
    /// Counts `n` packets under a verdict.
    #[inline]
    pub fn count(&mut self, verdict: Verdict, n: u64) {
        self.verdicts[verdict as usize] += n;
    }
}

impl WorkerCounters {
    /// Shows what was counted and where the frames are.
    pub fn publish(&self, tally: &Tally, ledger: Ledger, io: IoCounters) {
        let store = |cells: &[AtomicU64], values: &[u64]| {
            for (cell, &value) in cells.iter().zip(values) {
                cell.store(value, Ordering::Relaxed);
            }
        };
        store(&self.verdicts, &tally.verdicts);
        store(&self.icmp_errors, &tally.icmp_errors);
        self.ledger.store([ledger.free, ledger.fill, ledger.received, ledger.tx, ledger.total]);
        store(&self.io, &[io.tx_kicks, io.fill_kicks, io.polls, io.rx_batches, io.tx_batches]);
        self.rx_packets.store(tally.rx_packets, Ordering::Relaxed);
        self.copies.store(tally.copies, Ordering::Relaxed);
        self.injected.store(tally.injected, Ordering::Relaxed);
        self.turns.store(tally.turns, Ordering::Relaxed);
    }

    /// Packets that met a verdict.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize].load(Ordering::Relaxed)
    }

    /// Packets that were turned into ICMP errors about them.
    pub fn icmp_errors(&self, kind: Kind) -> u64 {
        self.icmp_errors[kind as usize].load(Ordering::Relaxed)
    }

    /// Packets received.
    pub fn rx_packets(&self) -> u64 {
        self.rx_packets.load(Ordering::Relaxed)
    }

    /// Packets handed over for transmission, one in two fragments once: sealed for clients, or sent out of an open network.
    pub fn tx_packets(&self) -> u64 {
        self.verdict(Verdict::Forwarded) + self.verdict(Verdict::Outward)
    }

    /// Packets of the node's kernel that were taken from the slow path, and queries for members of groups.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Copies of packets to groups, each of which has a verdict of its own.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    /// Turns of the loop: as long as they grow, the worker lives.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Where the frames were when the worker last showed them.
    pub fn ledger(&self) -> Ledger {
        let [free, fill, received, tx, total] = self.ledger.load().unwrap_or_default();
        Ledger { free, fill, received, tx, total }
    }

    /// What the packets cost in calls.
    pub fn io(&self) -> IoCounters {
        let [tx_kicks, fill_kicks, polls, rx_batches, tx_batches] =
            std::array::from_fn(|i| self.io[i].load(Ordering::Relaxed));
        IoCounters { tx_kicks, fill_kicks, polls, rx_batches, tx_batches }
    }
}
