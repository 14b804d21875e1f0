//! Results, for programs and for people.

use std::fmt;

use serde::Serialize;

use crate::clock;
use crate::outcome::{Interval, Outcome};
use crate::search::{Found, Step};
use crate::session::Session;
use crate::tally::Times;

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
    /// Packets to the sink that were none of the run's; those of its own warm-up that come late do not count.
    pub foreign: u64,
    /// Seconds in which packets were sent.
    pub duration_s: f64,
    /// One way; nothing where packets carry no time or are only counted.
    pub latency_us: Option<Latency>,
    /// There and back; nothing without --round-trip.
    pub round_trip_us: Option<Latency>,
    /// What was going on in between.
    pub intervals: Vec<Sample>,
    /// The search, if there was one; then all else is of its last step.
    pub search: Option<Search>,
    /// How packets were sent: `xsk` or `xdp`.
    pub engine: &'static str,
    /// How they were received: `xsk` or `xdp`.
    pub sink_engine: &'static str,
    /// Sizes as they were asked for.
    pub size: String,
    /// Octets of the largest frame that was sent.
    pub largest_frame: usize,
    /// Flows: source ports, or clients that send.
    pub flows: u32,
    /// Clients: two for each flow, or one where packets leave an open network; nothing for plain UDP.
    pub clients: Option<u32>,
    /// The highest SATP sequence number in use; the next run starts above it.
    pub last_sequence: Option<u32>,
    /// Whether the prepared packets ran out before the time.
    pub exhausted: bool,
    /// Whether the run was ended early.
    pub stopped: bool,
}

/// Times in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// What 99 of 100 are below.
    pub p99: f64,
    /// What 999 of 1000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many there are.
    pub count: u64,
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

/// A search and its steps.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// The highest rate within the loss that was allowed; 0 when none was.
    pub lossless_pps: f64,
    /// What was tried, in order.
    pub steps: Vec<Tried>,
}

/// A step of a search.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tried {
    /// Packets sent a second.
    pub offered_pps: f64,
    /// Packets received a second.
    pub received_pps: f64,
    /// The share that did not arrive.
    pub loss: f64,
}

impl Latency {
    fn new(times: &Times) -> Option<Self> {
        (times.count() > 0).then(|| Self {
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
            p999: times.quantile(0.999),
            max: times.max(),
            count: times.count(),
        })
    }
}

impl From<&Interval> for Sample {
    fn from(interval: &Interval) -> Self {
        Self { at_s: clock::seconds(interval.at), sent: interval.sent, received: interval.received }
    }
}

impl From<&Step> for Tried {
    fn from(step: &Step) -> Self {
        Self { offered_pps: step.offered, received_pps: step.received, loss: step.loss }
    }
}

impl Report {
    /// The report of a measurement, which may have been the last one of a search.
    pub fn new(session: &Session, outcome: &Outcome, found: Option<&Found>) -> Self {
        let (plan, tally) = (session.plan(), &outcome.tally);
        let traffic = &plan.traffic;
        Self {
            sent: outcome.sent,
            send_pps: outcome.send_rate(),
            skipped: outcome.skipped,
            received: tally.received,
            receive_pps: outcome.receive_rate(),
            lost: outcome.lost(),
            duplicated: tally.duplicated,
            reordered: tally.reordered,
            corrupt: tally.corrupt,
            foreign: tally.foreign,
            duration_s: clock::seconds(outcome.sending),
            latency_us: Latency::new(&tally.latency),
            round_trip_us: Latency::new(&tally.round_trip),
            intervals: outcome.intervals.iter().map(Sample::from).collect(),
            search: found.map(|found| Search {
                lossless_pps: found.lossless,
                steps: found.steps.iter().map(Tried::from).collect(),
            }),
            engine: plan.engine.name(),
            sink_engine: plan.sink_engine.name(),
            size: traffic.sizes().to_string(),
            largest_frame: traffic.largest(),
            flows: traffic.flows(),
            clients: traffic.satp().map(|satp| satp.flows() + satp.receivers()),
            last_sequence: session.last_sequence(),
            exhausted: outcome.exhausted,
            stopped: outcome.stopped,
        }
    }
}

/// What a person reads.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = 100.0 * self.lost as f64 / self.sent.max(1) as f64;
        writeln!(f, "sent      {:>12}  {:>12.0}/s in {:.2} s", self.sent, self.send_pps, self.duration_s)?;
        writeln!(f, "received  {:>12}  {:>12.0}/s", self.received, self.receive_pps)?;
        writeln!(f, "lost      {:>12}  {loss:>12.3} %", self.lost)?;
        if self.sink_engine == "xsk" {
            writeln!(
                f,
                "duplicated {}, reordered {}, corrupt {}, foreign {}",
                self.duplicated, self.reordered, self.corrupt, self.foreign
            )?;
        }
        for (name, times) in [("one way", &self.latency_us), ("round trip", &self.round_trip_us)] {
            if let Some(t) = times {
                writeln!(
                    f,
                    "{name}: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us ({} packets)",
                    t.p50, t.p99, t.p999, t.max, t.count
                )?;
            }
        }
        if let Some(search) = &self.search {
            writeln!(f, "highest rate within the loss allowed: {:.0}/s", search.lossless_pps)?;
        }
        if self.skipped > 0 {
            writeln!(f, "{} packets were not sent, because the sender was too slow for the rate", self.skipped)?;
        }
        if self.exhausted {
            writeln!(f, "the prepared packets ran out before the time was over: --pool prepares more")?;
        }
        if let Some(last) = self.last_sequence {
            writeln!(
                f,
                "last sequence number: {last}; the next run needs --first-sequence {}",
                last.saturating_add(1)
            )?;
        }
        Ok(())
    }
}
