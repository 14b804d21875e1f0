//! What came of a measurement.

use crate::clock;
use crate::tally::Tally;

/// What came of a measurement.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Packets left out because the sender was too slow for the rate.
    pub skipped: u64,
    /// How long was sent, in nanoseconds.
    pub sending: u64,
    /// What arrived. Where an XDP program counts, nothing but packets and times.
    pub tally: Tally,
    /// What was going on in between.
    pub intervals: Vec<Interval>,
    /// Whether it was ended early.
    pub stopped: bool,
    /// Whether the sender ran out of prepared packets.
    pub exhausted: bool,
}

/// What was sent and received up to a moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Interval {
    /// Nanoseconds since the start.
    pub at: u64,
    /// Packets sent until then.
    pub sent: u64,
    /// Packets received until then.
    pub received: u64,
}

impl Outcome {
    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.tally.received)
    }

    /// The share of packets that did not arrive.
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }

    /// Packets sent a second.
    pub fn send_rate(&self) -> f64 {
        rate(self.sent.saturating_sub(1), self.sending)
    }

    /// Packets received a second, from the first to the last.
    pub fn receive_rate(&self) -> f64 {
        rate(self.tally.received.saturating_sub(1), self.tally.last.saturating_sub(self.tally.first))
    }
}

fn rate(packets: u64, nanoseconds: u64) -> f64 {
    if nanoseconds == 0 { 0.0 } else { packets as f64 / clock::seconds(nanoseconds) }
}
