//! How much is measured, and for how long.

use std::time::Duration;

use crate::generator::{Engine, Load};
use crate::subject::{Shape, Subject};
use crate::traffic::Size;

/// The rates that a benchmark of one subject and one size goes through.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) sizes: Vec<Size>,
    /// Runs at the peak and in overload.
    pub(crate) rounds: u32,
    /// Of the rounds, in how many the lossless rate is searched and round trips are measured.
    pub(crate) slow_rounds: u32,
    /// A run of the search for the peak or the lossless rate.
    step: Duration,
    /// A run that counts.
    run: Duration,
    warm_up: Duration,
    /// Steps of a search for the lossless rate.
    pub(crate) search_steps: u32,
    /// Rates around the best one of the doubling, as parts of it.
    pub(crate) refinements: &'static [f64],
    /// Round trips of a run.
    probes: u32,
    /// Whether subjects are started anew for every round.
    pub(crate) restart: bool,
    pub(crate) engine: Engine,
}

impl Plan {
    /// Everything: five rounds of two seconds.
    pub(crate) fn full() -> Self {
        Self {
            subjects: Subject::ALL.to_vec(),
            sizes: vec![Size::Octets(64), Size::Octets(512), Size::Octets(1400), Size::Imix],
            rounds: 5,
            slow_rounds: 3,
            step: Duration::from_millis(500),
            run: Duration::from_secs(2),
            warm_up: Duration::from_millis(200),
            search_steps: 6,
            refinements: &[0.6, 0.7, 0.84, 1.19, 1.41],
            probes: 2000,
            restart: true,
            engine: Engine::Xdp,
        }
    }

    /// All main subjects at 64 octets, in under two minutes.
    pub(crate) fn quick() -> Self {
        let main = |subject: &Subject| subject.shape() == Shape::TwoInterfaces;
        Self {
            subjects: Subject::ALL.into_iter().filter(main).collect(),
            sizes: vec![Size::Octets(64)],
            rounds: 3,
            slow_rounds: 1,
            step: Duration::from_millis(100),
            run: Duration::from_millis(250),
            warm_up: Duration::from_millis(30),
            search_steps: 3,
            refinements: &[0.75, 1.4],
            probes: 300,
            restart: false,
            ..Self::full()
        }
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

    fn load(&self, rate: Option<u64>, time: Duration) -> Load {
        Load { rate, time, warm_up: self.warm_up, engine: self.engine, round_trips: None }
    }

    /// About how long it takes: the search for the peak of one subject and size, and one round of it.
    pub(crate) fn times(&self, round: u32) -> [Duration; 2] {
        // What a run takes besides its traffic.
        let more = self.warm_up + Duration::from_millis(320);
        let search = (self.step + more) * (4 + self.refinements.len() as u32);
        let mut once = (self.run + more) * 2;
        if round < self.slow_rounds {
            once += (self.step + more) * self.search_steps + (self.run + more) * 2;
        }
        [search, once]
    }

    /// About how long all of it takes for so many subjects.
    pub(crate) fn total(&self, subjects: usize) -> Duration {
        let [search, _] = self.times(0);
        let rounds: Duration = (0..self.rounds).map(|round| self.times(round)[1]).sum();
        (search + rounds) * (subjects * self.sizes.len()) as u32
    }
}
