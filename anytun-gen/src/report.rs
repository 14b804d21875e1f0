//! Results, for programs and for people.

use serde::Serialize;

use crate::clock;
use crate::session::{Interval, Outcome};

/// The result of a run. The names are fixed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Packets sent a second.
    pub send_pps: f64,
    /// Packets the schedule had but the sender was too slow for.
    pub skipped: u64,
    /// Packets received, each counted once.
    pub received: u64,
    /// Packets received a second, from the first to the last.
    pub receive_pps: f64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Packets that arrived again.
    pub duplicated: u64,
    /// Packets overtaken by a later one.
    pub reordered: u64,
    /// Packets that were changed on the way.
    pub corrupt: u64,
    /// Packets to the sink that were none of the run's.
    pub foreign: u64,
    /// Seconds in which packets were sent.
    pub duration_s: f64,
    /// What was going on in between.
    pub intervals: Vec<Sample>,
    /// How packets were sent: `xsk` or `xdp`.
    pub engine: &'static str,
    /// How they were received: `xsk` or `xdp`.
    pub sink_engine: &'static str,
    /// Sizes as they were asked for.
    pub size: String,
    /// Flows.
    pub flows: u32,
}

/// What was sent and received up to a moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Seconds since the start.
    pub at_s: f64,
    /// Packets sent until then.
    pub sent: u64,
    /// Packets received until then.
    pub received: u64,
}

impl From<&Interval> for Sample {
    fn from(interval: &Interval) -> Self {
        Self { at_s: clock::seconds(interval.at), sent: interval.sent, received: interval.received }
    }
}

impl Report {
    /// The report of a measurement.
    pub fn new(plan: &crate::plan::Plan, outcome: &Outcome) -> Self {
        Self {
            sent: outcome.sent,
            send_pps: outcome.send_rate(),
            skipped: outcome.skipped,
            received: outcome.received,
            receive_pps: outcome.receive_rate(),
            lost: outcome.lost(),
            duplicated: outcome.duplicated,
            reordered: outcome.reordered,
            corrupt: outcome.corrupt,
            foreign: outcome.foreign,
            duration_s: clock::seconds(outcome.sending),
            intervals: outcome.intervals.iter().map(Sample::from).collect(),
            engine: plan.engine.name(),
            sink_engine: plan.sink_engine.name(),
            size: plan.traffic.sizes().to_string(),
            flows: plan.traffic.flows(),
        }
    }
}
