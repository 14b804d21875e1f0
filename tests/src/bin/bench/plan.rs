//! How much is measured, and for how long.

use std::fmt;
use std::time::Duration;

use crate::generator::{Engine, Load};
use crate::subject::{Shape, Subject};
use crate::traffic::Size;

/// What a run takes besides its traffic.
const BESIDES: Duration = Duration::from_millis(320);

/// The rates that a benchmark of one subject and one size goes through.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) sizes: Vec<Size>,
    /// Runs at the peak and in overload.
    pub(crate) rounds: u32,
    /// Of the rounds, in how many the lossless rate is searched.
    pub(crate) lossless_rounds: u32,
    /// Of the rounds, in how many round trips are measured.
    pub(crate) round_trip_rounds: u32,
    /// A run of the search for the peak or the lossless rate.
    step: Duration,
    /// A run that counts.
    run: Duration,
    warm_up: Duration,
    /// Steps of a search for the lossless rate.
    pub(crate) search_steps: u32,
    /// Rates around the best one of the doubling, as parts of it.
    pub(crate) refinements: &'static [f64],
    /// Round trips a second.
    probes: u32,
    /// Loads at which every packet is checked, as parts of the peak.
    pub(crate) checked_loads: &'static [f64],
    /// Whether the node is profiled at the peak of the first size.
    pub(crate) profile: bool,
    /// Whether subjects are started anew for every round.
    pub(crate) restart: bool,
    pub(crate) engine: Engine,
}

impl Plan {
    /// Everything: five rounds of runs of a second.
    pub(crate) fn full() -> Self {
        Self {
            subjects: Subject::ALL.to_vec(),
            sizes: vec![Size::Octets(64), Size::Octets(512), Size::Octets(1400), Size::Imix],
            rounds: 5,
            lossless_rounds: 3,
            round_trip_rounds: 5,
            step: Duration::from_millis(300),
            run: Duration::from_secs(1),
            warm_up: Duration::from_millis(200),
            search_steps: 6,
            refinements: &[0.6, 0.7, 0.84, 1.19, 1.41],
            probes: 5000,
            checked_loads: &[0.1, 0.3, 0.5, 0.7, 0.9],
            profile: true,
            restart: true,
            engine: Engine::Xdp,
        }
    }

    /// All main subjects at 64 octets, in under two minutes.
    pub(crate) fn quick() -> Self {
        Self {
            subjects: Subject::ALL.into_iter().filter(|subject| subject.is_quick()).collect(),
            sizes: vec![Size::Octets(64)],
            rounds: 3,
            lossless_rounds: 1,
            round_trip_rounds: 1,
            step: Duration::from_millis(100),
            run: Duration::from_millis(250),
            warm_up: Duration::from_millis(30),
            search_steps: 3,
            refinements: &[0.75, 1.4],
            probes: 2000,
            profile: false,
            restart: false,
            ..Self::full()
        }
    }

    /// The same without what is measured besides the peak and overload.
    pub(crate) fn rates_only(mut self) -> Self {
        self.subjects.retain(|subject| !subject.is_for_latency());
        Self { lossless_rounds: 0, round_trip_rounds: 0, checked_loads: &[], profile: false, ..self }
    }

    /// Whether a subject is measured at a size: those that differ from another one by interfaces, queues or idle policy only,
    /// and those of open tunnel mode, at the first.
    pub(crate) fn measures(&self, subject: Subject, size: Size) -> bool {
        let is_main = subject.shape() == Shape::TwoInterfaces && !subject.is_open();
        is_main || self.sizes.first() == Some(&size)
    }

    /// A short run at a rate, for searching.
    pub(crate) fn step(&self, rate: u64) -> Load {
        self.load(Some(rate), self.step)
    }

    /// A run at a rate, or with all that the generator can, that counts.
    pub(crate) fn run(&self, rate: Option<u64>) -> Load {
        self.load(rate, self.run)
    }

    /// Round trips beside a load, or without any.
    pub(crate) fn round_trips(&self, rate: Option<u64>) -> Load {
        Load { round_trips: Some(self.probes), engine: Engine::Xsk, ..self.load(rate, self.run) }
    }

    /// A run at a rate in which every packet is checked.
    pub(crate) fn checked(&self, rate: u64) -> Load {
        Load { engine: Engine::Xsk, ..self.run(Some(rate)) }
    }

    fn load(&self, rate: Option<u64>, time: Duration) -> Load {
        Load { rate, time, warm_up: self.warm_up, engine: self.engine, round_trips: None }
    }

    /// About how long the search for the peak of one subject and size takes.
    pub(crate) fn search_time(&self, subject: Subject) -> Duration {
        if subject.is_for_latency() { Duration::ZERO } else { self.steps(4 + self.refinements.len() as u32) }
    }

    /// About how long a round of one subject and size takes.
    pub(crate) fn round_time(&self, subject: Subject, round: u32) -> Duration {
        let trips = if round < self.round_trip_rounds { self.runs(2) } else { Duration::ZERO };
        let lossless = if round < self.lossless_rounds { self.steps(self.search_steps) } else { Duration::ZERO };
        if subject.is_for_latency() { trips } else { self.runs(2) + lossless + trips }
    }

    /// About how long checking every packet of one subject and size takes.
    pub(crate) fn check_time(&self, subject: Subject) -> Duration {
        if subject.is_checked() { self.runs(self.checked_loads.len() as u32) } else { Duration::ZERO }
    }

    /// About how long a profile of one subject takes.
    pub(crate) fn profile_time(&self, subject: Subject) -> Duration {
        if self.profile && subject.is_profiled() { self.runs(1) } else { Duration::ZERO }
    }

    /// About how long all of it takes for these subjects.
    pub(crate) fn total(&self, subjects: impl IntoIterator<Item = Subject>) -> Duration {
        let of = |subject| {
            let rounds: Duration = (0..self.rounds).map(|round| self.round_time(subject, round)).sum();
            self.search_time(subject) + rounds + self.check_time(subject)
        };
        let sizes = |subject| self.sizes.iter().filter(|&&size| self.measures(subject, size)).count() as u32;
        subjects.into_iter().map(|subject| of(subject) * sizes(subject) + self.profile_time(subject)).sum()
    }

    fn runs(&self, number: u32) -> Duration {
        (self.run + self.warm_up + BESIDES) * number
    }

    fn steps(&self, number: u32) -> Duration {
        (self.step + self.warm_up + BESIDES) * number
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |words: Vec<String>| words.join(", ");
        writeln!(f, "subjects: {}", join(self.subjects.iter().map(Subject::to_string).collect()))?;
        writeln!(f, "sizes: {}; rounds: {}", join(self.sizes.iter().map(Size::to_string).collect()), self.rounds)?;
        let seconds = self.total(self.subjects.iter().copied()).as_secs();
        match seconds {
            0..100 => write!(f, "about {seconds} s, and what it takes to start everything"),
            _ => write!(f, "about {} min, and what it takes to start everything", seconds.div_ceil(60)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_plan_takes_less_than_two_minutes() {
        let plan = Plan::quick();
        let total = plan.total(plan.subjects.iter().copied());
        assert!(total < Duration::from_secs(110), "{total:?}, and ten seconds to start everything");
        let all = Plan::full();
        assert!(Subject::ALL.into_iter().all(|subject| all.measures(subject, Size::Octets(64))));
        let total = all.total(all.subjects.iter().copied());
        assert!(total < Duration::from_secs(75 * 60), "{total:?}, where the document says about an hour");
    }
}
