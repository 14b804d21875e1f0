//! The results as they are written: a row for every subject and size.

use serde::{Deserialize, Serialize};

use crate::cpu::Cost;
use crate::generator::RoundTrip;
use crate::header::Header;
use crate::measure::{Measured, OVERLOAD, Samples};
use crate::pipeline::PipelineRow;
use crate::plan::Plan;
use crate::profile::{self, Profile};
use crate::spread::{Spread, median};
use crate::subject::{Shape, Subject};
use crate::sweep::Checked;
use crate::traffic::Size;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) header: Header,
    pub(crate) rows: Vec<Row>,
    pub(crate) crypto: Vec<CryptoRow>,
    pub(crate) pipeline: Vec<PipelineRow>,
    pub(crate) profiles: Vec<ProfileRow>,
}

/// Where the time of the relay's processor goes at the peak of one subject.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ProfileRow {
    #[serde(serialize_with = "display")]
    pub(crate) subject: Subject,
    pub(crate) size: Size,
    #[serde(flatten)]
    pub(crate) profile: Profile,
}

/// One subject at one size. Spreads are null where nothing was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(serialize_with = "display")]
    pub(crate) subject: Subject,
    pub(crate) size: Size,
    /// Packets a second that come out at the best rate.
    pub(crate) peak_pps: Option<Spread>,
    /// The highest of which at most one in a thousand is lost.
    pub(crate) lossless_pps: Option<Spread>,
    /// The same, without what is lost at the ring of 256 in front of the relay.
    pub(crate) lossless_past_ring_pps: Option<Spread>,
    /// What comes out in overload.
    pub(crate) overload_pps: Option<Spread>,
    /// What went in, in overload, and whether that was all that the generator can.
    pub(crate) overload_offered_pps: Option<f64>,
    pub(crate) overload_is_generator_limit: bool,
    /// Processor time of a packet at the peak, in nanoseconds, and the medians of its parts.
    pub(crate) cpu_ns_per_packet: Option<Spread>,
    pub(crate) cpu_parts_ns: Cost,
    /// Round trips at half the peak, medians of rounds, and the load.
    pub(crate) rtt_us: Option<RttRow>,
    pub(crate) rtt_load_pps: u64,
    /// Round trips without load.
    pub(crate) rtt_idle_us: Option<RttRow>,
    /// Packets that came twice, too late or changed.
    pub(crate) faults: Faults,
    /// Whether the generator was at its limit at the peak: then the relay may reach more.
    pub(crate) generator_bound: bool,
    /// The [most that came out](Samples::best) in a round divided by that of the reflector, or of the best peer, in the same
    /// round: the median, and what the rounds spread over.
    pub(crate) ratio_to_reflector: Option<f64>,
    pub(crate) ratio_to_reflector_spread: Option<Spread>,
    pub(crate) ratio_to_best_peer: Option<f64>,
    pub(crate) ratio_to_best_peer_spread: Option<Spread>,
}

/// Packets that were not as they should be.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Faults {
    /// How many there were at all loads together.
    pub(crate) packets: u64,
    /// At half load beside the round trips of every round and, of the node, at the loads of the sweep.
    pub(crate) loads: Vec<Checked>,
}

/// Quantiles of round trips, in microseconds: medians of rounds, and what the rounds spread over.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct RttRow {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p50_spread: Spread,
    pub(crate) p99_spread: Spread,
}

/// Sealing or opening one packet, in a batch of 64 and alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct CryptoRow {
    /// `seal` or `open`.
    pub(crate) what: String,
    /// Octets of the inner packet.
    pub(crate) size: u32,
    pub(crate) batched_ns: f64,
    pub(crate) single_ns: f64,
}

impl Report {
    /// Of what was measured.
    pub(crate) fn new(
        mut header: Header,
        plan: &Plan,
        measured: &Measured,
        crypto: Vec<CryptoRow>,
        pipeline: Vec<PipelineRow>,
    ) -> Self {
        let samples = |subject, size| measured.samples.get(&(subject, size));
        let mut rows = Vec::new();
        for &size in &plan.sizes {
            let reflector = samples(Subject::Reflector(Shape::TwoInterfaces), size);
            let peers = Subject::ALL.into_iter().filter(|subject| subject.is_peer());
            let peers = peers.filter_map(|subject| samples(subject, size));
            let best = |samples: &Samples| median(&samples.best()).unwrap_or(0.0);
            let best_peer = peers.max_by(|one, other| best(one).total_cmp(&best(other)));
            for &subject in &plan.subjects {
                if let Some(samples) = samples(subject, size).filter(|samples| samples.is_measured()) {
                    rows.push(Row::new(subject, size, samples, reflector, best_peer));
                }
            }
        }
        header.repeated = measured.samples.values().map(|samples| samples.repeats).sum();
        header.disturbed = measured.samples.values().map(|samples| samples.disturbed).sum();
        header.left_out =
            measured.left_out.iter().map(|(subject, why)| format!("{subject}: {}", first_line(why))).collect();
        let missing = profile::obstacle().filter(|_| plan.profile);
        header.left_out.extend(missing);
        let profile = |row: &Row| {
            let profile = samples(row.subject, row.size)?.profile.clone()?;
            Some(ProfileRow { subject: row.subject, size: row.size, profile })
        };
        let profiles = rows.iter().filter_map(profile).collect();
        Self { header, rows, crypto, pipeline, profiles }
    }

    /// The rows of a size.
    pub(crate) fn rows_of(&self, size: Size) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.size == size)
    }

    /// The rows whose every packet was checked at several loads.
    pub(crate) fn checked_rows(&self) -> Vec<&Row> {
        let is_checked = |row: &&Row| row.subject.is_checked() && !row.faults.loads.is_empty();
        self.rows.iter().filter(is_checked).collect()
    }

    /// The rows with round trips.
    pub(crate) fn round_trip_rows(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.rtt_idle_us.is_some()).collect()
    }

    /// The sizes, in the order in which they were measured.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        let mut sizes: Vec<Size> = self.rows.iter().map(|row| row.size).collect();
        sizes.dedup();
        sizes
    }
}

impl Row {
    fn new(
        subject: Subject,
        size: Size,
        samples: &Samples,
        reflector: Option<&Samples>,
        best_peer: Option<&Samples>,
    ) -> Self {
        let peak_pps = Spread::of(&samples.peak);
        let ratio = |to: Option<&Samples>| Spread::of(&samples.ratios(to?));
        let (to_reflector, to_best_peer) = (ratio(reflector), ratio(best_peer));
        let part = |part: fn(&Cost) -> f64| median(&samples.cost.iter().map(part).collect::<Vec<_>>()).unwrap_or(0.0);
        let overload_offered_pps = median(&samples.overload_rate);
        let reached = overload_offered_pps.zip(peak_pps).map(|(offered, peak)| offered / peak.median);
        Self {
            subject,
            size,
            peak_pps,
            lossless_pps: Spread::of(&samples.lossless),
            lossless_past_ring_pps: Spread::of(&samples.lossless_past_ring),
            overload_pps: Spread::of(&samples.overload),
            overload_offered_pps,
            overload_is_generator_limit: reached.is_some_and(|times| times < 0.9 * OVERLOAD as f64),
            cpu_ns_per_packet: Spread::of(&samples.cost.iter().map(Cost::total).collect::<Vec<_>>()),
            cpu_parts_ns: Cost {
                user: part(|cost| cost.user),
                system: part(|cost| cost.system),
                softirq: part(|cost| cost.softirq),
            },
            rtt_us: RttRow::of(&samples.half_load),
            rtt_load_pps: samples.half_load_rate,
            rtt_idle_us: RttRow::of(&samples.idle),
            faults: Faults {
                packets: samples.checked.iter().map(Checked::faults).sum(),
                loads: samples.checked.clone(),
            },
            generator_bound: samples.generator_bound,
            ratio_to_reflector: to_reflector.map(|ratio| ratio.median),
            ratio_to_reflector_spread: to_reflector,
            ratio_to_best_peer: to_best_peer.map(|ratio| ratio.median),
            ratio_to_best_peer_spread: to_best_peer,
        }
    }
}

impl RttRow {
    /// Those of several rounds.
    fn of(trips: &[RoundTrip]) -> Option<Self> {
        let spread = |quantile: fn(&RoundTrip) -> f64| Spread::of(&trips.iter().map(quantile).collect::<Vec<_>>());
        let (p50_spread, p99_spread) = (spread(|trip| trip.p50)?, spread(|trip| trip.p99)?);
        Some(Self { p50: p50_spread.median, p99: p99_spread.median, p50_spread, p99_spread })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn display<S: serde::Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(subject)
}
