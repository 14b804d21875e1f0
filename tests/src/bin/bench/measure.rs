//! The benchmark itself: for every size the best rate of each subject, then rounds in which one subject follows the other.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::contestant::{Contestant, Observation};
use crate::cpu::Cost;
use crate::generator::{Generator, Outcome, RoundTrip};
use crate::plan::Plan;
use crate::profile::{self, Profile};
use crate::progress::Progress;
use crate::relay::Programs;
use crate::subject::{Shape, Subject};
use crate::sweep::Checked;
use crate::traffic::Size;

/// The loss that counts as none.
pub(crate) const LOSSLESS: f64 = 0.001;
/// Overload is this many times the peak.
pub(crate) const OVERLOAD: u64 = 8;
/// The highest rate that is tried.
const HIGHEST_RATE: u64 = 12_000_000;
/// The most packets a second beside round trips: what the generator's sockets send and receive on one processor without
/// making the round trips longer themselves.
const MOST_BESIDE: u64 = 250_000;
/// The same where the threads that receive for the relay are on that processor, too.
const MOST_BESIDE_ALL: u64 = 100_000;
/// A generator that sends less than this part of what it was asked for is at its limit, and so is the peak if as much of
/// that comes out.
const GENERATOR_LIMIT: f64 = 0.9;

/// All that was measured of one subject and one size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// The rate at which most packets come out.
    pub(crate) best_rate: u64,
    pub(crate) peak: Vec<f64>,
    pub(crate) lossless: Vec<f64>,
    /// As `lossless`, but what is lost at the ring before the relay does not count.
    pub(crate) lossless_past_ring: Vec<f64>,
    pub(crate) overload: Vec<f64>,
    /// What was sent in overload.
    pub(crate) overload_rate: Vec<f64>,
    pub(crate) cost: Vec<Cost>,
    pub(crate) idle: Vec<RoundTrip>,
    pub(crate) half_load: Vec<RoundTrip>,
    /// Packets a second beside the round trips of `half_load`.
    pub(crate) half_load_rate: u64,
    /// What became of every packet at several loads.
    pub(crate) checked: Vec<Checked>,
    /// Where the time goes at the peak.
    pub(crate) profile: Option<Profile>,
    /// Whether the generator was at its limit where the peak is.
    pub(crate) generator_bound: bool,
    pub(crate) repeats: u32,
    pub(crate) disturbed: u32,
}

impl Samples {
    /// Whether anything that counts was measured.
    pub(crate) fn is_measured(&self) -> bool {
        !self.peak.is_empty() || !self.idle.is_empty()
    }

    /// The most that came out in every round, be it at the peak or in overload: the rate of the peak was found in another
    /// minute, and the speed of a shared processor changes by the minute.
    pub(crate) fn best(&self) -> Vec<f64> {
        self.peak.iter().zip(&self.overload).map(|(peak, overload)| peak.max(*overload)).collect()
    }

    /// That of every round divided by that of another subject in the same round.
    pub(crate) fn ratios(&self, other: &Self) -> Vec<f64> {
        let both = self.best().into_iter().zip(other.best());
        both.filter(|(_, other)| *other > 0.0).map(|(own, other)| own / other).collect()
    }
}

/// What came of it all.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) samples: HashMap<(Subject, Size), Samples>,
    /// Subjects that were left out of sizes, or altogether, and why.
    pub(crate) left_out: Vec<(Subject, String)>,
}

/// The bench at work.
pub(crate) struct Bench<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) generator: &'a Generator,
    pub(crate) programs: &'a Programs,
    pub(crate) progress: Progress,
}

impl Bench<'_> {
    /// Measures all contestants. A subject that fails is left out from there on; only an interrupt ends all.
    pub(crate) fn run(&mut self, contestants: &mut [Contestant], measured: &mut Measured) -> Result<()> {
        for &size in &self.plan.sizes {
            let mut field: Vec<&mut Contestant> = Vec::new();
            for contestant in contestants.iter_mut().filter(|one| self.plan.measures(one.subject, size)) {
                match contestant.traffic.obstacle(size) {
                    Some(reason) => measured.left_out.push((contestant.subject, format!("not at {size}: {reason}"))),
                    None => field.push(contestant),
                }
            }
            self.all(&mut field, size, measured, |bench, contestant, samples| bench.search(contestant, size, samples))?;
            for subject in self
                .plan
                .subjects
                .iter()
                .filter(|subject| subject.is_for_latency() && self.plan.measures(**subject, size))
            {
                // The same load as that of the one whose threads are where those of all others are.
                let other = measured.samples.get(&(subject.with_shape(Shape::TwoInterfaces), size));
                let best_rate = other.map_or(subject.modest_rate(), |samples| samples.best_rate);
                measured.samples.entry((*subject, size)).or_default().best_rate = best_rate;
            }
            for round in 0..self.plan.rounds {
                self.all(&mut field, size, measured, |bench, contestant, samples| {
                    bench.round(contestant, size, round, samples)
                })?;
            }
            field.retain(|contestant| contestant.subject.is_checked());
            self.all(&mut field, size, measured, |bench, contestant, samples| bench.sweep(contestant, size, samples))?;
            if self.plan.profile && self.plan.sizes.first() == Some(&size) && profile::obstacle().is_none() {
                field.retain(|contestant| contestant.subject.is_profiled());
                self.all(&mut field, size, measured, |bench, contestant, samples| {
                    bench.profile(contestant, size, samples)
                })?;
            }
        }
        Ok(())
    }

    /// Does something with one contestant after the other.
    fn all(
        &mut self,
        field: &mut Vec<&mut Contestant>,
        size: Size,
        measured: &mut Measured,
        mut step: impl FnMut(&mut Self, &mut Contestant, &mut Samples) -> Result<()>,
    ) -> Result<()> {
        let mut failed = Vec::new();
        for contestant in field.iter_mut() {
            let samples = measured.samples.entry((contestant.subject, size)).or_default();
            if let Err(error) = step(self, contestant, samples) {
                if self.generator.stop.requested(std::time::Duration::ZERO) {
                    return Err(error);
                }
                self.progress.say(&format!("{} is left out from here on: {error:#}", contestant.subject));
                failed.push(contestant.subject);
                measured.left_out.push((contestant.subject, format!("at {size}: {error:#}")));
            }
        }
        field.retain(|contestant| !failed.contains(&contestant.subject));
        Ok(())
    }

    /// Doubles the rate until less and less comes out, then looks around the best one.
    fn search(&mut self, contestant: &Contestant, size: Size, samples: &mut Samples) -> Result<()> {
        if contestant.subject.is_for_latency() {
            return Ok(());
        }
        let at_limit = |outcome: &Outcome, rate: u64| outcome.send_pps < GENERATOR_LIMIT * rate as f64;
        let mut best = 0.0;
        let mut try_rate = |rate: u64, samples: &mut Samples| -> Result<Observation> {
            let seen = self.observe(contestant, size, &self.plan.step(rate), samples)?;
            if seen.outcome.receive_pps > best {
                best = seen.outcome.receive_pps;
                samples.best_rate = rate;
                samples.generator_bound = at_limit(&seen.outcome, rate) && 1.0 - seen.outcome.loss() > GENERATOR_LIMIT;
            }
            Ok(seen)
        };
        let mut rate = contestant.subject.modest_rate();
        while rate <= HIGHEST_RATE {
            let outcome = try_rate(rate, samples)?.outcome;
            ensure!(outcome.received > 0, "nothing comes out of it");
            if outcome.receive_pps < 0.6 * rate as f64 || at_limit(&outcome, rate) {
                break;
            }
            rate *= 2;
        }
        if !samples.generator_bound {
            let around = samples.best_rate as f64;
            for part in self.plan.refinements {
                try_rate((around * part) as u64, samples)?;
            }
        }
        let (pps, rate) = (kilo(best), kilo(samples.best_rate as f64));
        let line = format!("{size:>4}  {:<28} search   {pps:>8} at {rate} offered", name(contestant));
        self.progress.done(self.plan.search_time(contestant.subject), &line);
        Ok(())
    }

    fn round(&mut self, contestant: &mut Contestant, size: Size, round: u32, samples: &mut Samples) -> Result<()> {
        if contestant.subject.is_for_latency() {
            return self.latency_round(contestant, size, round, samples);
        }
        if self.plan.restart {
            contestant.restart(self.programs)?;
        }
        let seen = self.observe(contestant, size, &self.plan.run(Some(samples.best_rate)), samples)?;
        let peak = seen.outcome.receive_pps;
        samples.peak.push(peak);
        samples.cost.push(seen.cost);

        let rate = Some(OVERLOAD * peak as u64).filter(|rate| *rate < HIGHEST_RATE);
        let flood = self.observe(contestant, size, &self.plan.run(rate), samples)?;
        samples.overload.push(flood.outcome.receive_pps);
        samples.overload_rate.push(flood.outcome.send_pps);

        if round < self.plan.lossless_rounds {
            self.lossless(contestant, size, peak, samples)?;
        }
        if round < self.plan.round_trip_rounds {
            self.round_trips(contestant, size, peak, samples)?;
        }
        let (peak, flooded, cost) = (kilo(peak), kilo(flood.outcome.receive_pps), seen.cost.total());
        let line = format!(
            "{size:>4}  {:<28} round {}  {peak:>8}, {cost:>6.0} ns a packet, {flooded:>8} in overload",
            name(contestant),
            round + 1
        );
        self.progress.done(self.plan.round_time(contestant.subject, round), &line);
        Ok(())
    }

    /// A round of a subject of which only round trips are measured.
    fn latency_round(
        &mut self,
        contestant: &mut Contestant,
        size: Size,
        round: u32,
        samples: &mut Samples,
    ) -> Result<()> {
        if round >= self.plan.round_trip_rounds {
            return Ok(());
        }
        contestant.restart(self.programs)?;
        let result = self.round_trips(contestant, size, samples.best_rate as f64, samples);
        contestant.rest();
        result?;
        let p50 = |trips: &[RoundTrip]| trips.last().map_or(f64::NAN, |trip| trip.p50);
        let (idle, half) = (p50(&samples.idle), p50(&samples.half_load));
        let line = format!(
            "{size:>4}  {:<28} round {}  {idle:>5.0} us there and back, {half:.0} us at half load",
            name(contestant),
            round + 1
        );
        self.progress.done(self.plan.round_time(contestant.subject, round), &line);
        Ok(())
    }

    /// Halves the distance to the highest rate of which nothing is lost.
    fn lossless(&mut self, contestant: &Contestant, size: Size, peak: f64, samples: &mut Samples) -> Result<()> {
        let (mut low, mut high) = (0.0, 1.0);
        let (mut best, mut past_ring) = (0.0, 0.0f64);
        for _ in 0..self.plan.search_steps {
            let middle = f64::midpoint(low, high);
            let rate = (peak * middle) as u64;
            let seen = self.observe(contestant, size, &self.plan.step(rate), samples)?;
            let loss = seen.outcome.loss();
            if loss - seen.ring_loss <= LOSSLESS {
                past_ring = past_ring.max(seen.outcome.receive_pps);
            }
            if loss <= LOSSLESS {
                (low, best) = (middle, seen.outcome.receive_pps);
            } else {
                high = middle;
            }
        }
        samples.lossless.push(best);
        samples.lossless_past_ring.push(past_ring.max(best));
        Ok(())
    }

    fn round_trips(&mut self, contestant: &Contestant, size: Size, peak: f64, samples: &mut Samples) -> Result<()> {
        let idle = self.observe(contestant, size, &self.plan.round_trips(None), samples)?.outcome;
        samples.idle.extend(idle.round_trip_us);
        let most = if contestant.subject.is_for_latency() { MOST_BESIDE_ALL } else { MOST_BESIDE };
        let load = (peak as u64 / 2).min(most);
        let half = self.observe(contestant, size, &self.plan.round_trips(Some(load)), samples)?.outcome;
        samples.half_load_rate = load;
        samples.half_load.extend(half.round_trip_us);
        samples.checked.push(Checked::new(load, &half));
        Ok(())
    }

    pub(crate) fn observe(
        &self,
        contestant: &Contestant,
        size: Size,
        load: &crate::generator::Load,
        samples: &mut Samples,
    ) -> Result<Observation> {
        let seen = contestant.observe(self.generator, size, load)?;
        samples.repeats += seen.repeats;
        samples.disturbed += u32::from(seen.disturbed);
        Ok(seen)
    }
}

pub(crate) fn name(contestant: &Contestant) -> String {
    contestant.subject.to_string()
}

/// `683 k` packets a second.
pub(crate) fn kilo(pps: f64) -> String {
    if pps < 10_000.0 { format!("{:.1} k", pps / 1e3) } else { format!("{:.0} k", pps / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    /// The second round was in a slow minute for both, and the third one's peak was missed.
    #[test]
    fn ratios_are_of_the_same_round_and_of_the_better_figure() {
        let own = Samples { peak: vec![450.0, 90.0, 200.0], overload: vec![400.0, 80.0, 360.0], ..Samples::default() };
        let other = Samples { peak: vec![500.0, 100.0, 400.0], overload: vec![300.0, 90.0, 0.0], ..Samples::default() };
        assert_eq!(own.ratios(&other), [0.9; 3]);
        let nothing = Samples { peak: vec![0.0], overload: vec![0.0], ..Samples::default() };
        assert!(own.ratios(&nothing).is_empty() && own.ratios(&Samples::default()).is_empty());
    }
}
