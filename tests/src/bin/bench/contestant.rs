//! A subject on a topology of its own, and one measurement of it. While others are measured it costs nothing: it has no
//! packets, or it rests.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cpu::{Clocks, Cost};
use crate::drops::Links;
use crate::generator::{Generator, Load, Outcome};
use crate::relay::{Programs, Relay};
use crate::subject::{Shape, Subject};
use crate::topology::Topology;
use crate::traffic::{Size, Traffic};

/// How much of a processor something else may use during a run, and how often the run is repeated if it used more.
const FOREIGN: f64 = 0.1;
const REPEATS: u32 = 3;
/// The error of a share of time that is counted in ticks: at most two of 10 ms on each processor.
const TICKS: f64 = 0.04;

/// A subject that can be measured.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) subject: Subject,
    /// Before the topology, because processes go before what they use.
    relay: Relay,
    pub(crate) traffic: Traffic,
    topology: Topology,
    directory: PathBuf,
    /// A node refuses the sequence numbers that it has seen.
    next_sequence: Cell<u32>,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) outcome: Outcome,
    /// Processor time of the relay for one packet that came out of it.
    pub(crate) cost: Cost,
    /// Of all packets sent, warm-up included, the share that was dropped at the relay's receiving ring.
    pub(crate) ring_loss: f64,
    /// Runs before this one that were thrown away because something else used the processors.
    pub(crate) repeats: u32,
    /// Whether this one had to be taken although something else did.
    pub(crate) disturbed: bool,
}

impl Contestant {
    /// Makes the topology and starts the subject. Files go to a directory in `directory`.
    pub(crate) fn new(subject: Subject, directory: &Path, programs: &Programs) -> Result<Self> {
        let directory = directory.join(subject.to_string().replace('/', "-"));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let topology = Topology::new(subject.shape().queues(), subject.shape() == Shape::Spinning)?;
        let (relay, traffic) = Relay::start(subject, &topology, &directory, programs)?;
        let mut contestant = Self { subject, relay, traffic, topology, directory, next_sequence: Cell::new(0) };
        contestant.rest();
        Ok(contestant)
    }

    /// Ends the subject until it is started anew if it uses its processor without packets, too.
    pub(crate) fn rest(&mut self) {
        if self.subject.shape() == Shape::Spinning {
            self.relay = Relay::Kernel;
        }
    }

    /// Starts the subject anew, so that what one process was lucky with, such as its place in memory, does not stay.
    pub(crate) fn restart(&mut self, programs: &Programs) -> Result<()> {
        // The old one goes first: it has the interfaces and the ports.
        self.relay = Relay::Kernel;
        (self.relay, self.traffic) = Relay::start(self.subject, &self.topology, &self.directory, programs)?;
        Ok(())
    }

    /// One run of the generator, repeated while something else uses the processors.
    pub(crate) fn observe(&self, generator: &Generator, size: Size, load: &Load) -> Result<Observation> {
        let mut repeats = 0;
        loop {
            let (before, links) = (self.clocks()?, self.links()?);
            let outcome = generator.run(&self.topology, &self.traffic, size, load, self.next_sequence.get())?;
            self.next_sequence.set(outcome.last_sequence.map_or(0, |last| last.wrapping_add(1)));
            let (links, after) = (self.links()?.since(&links), self.clocks()?);
            let disturbed = after.foreign_since(&before) > FOREIGN + TICKS / after.seconds_since(&before);
            if disturbed && repeats < REPEATS {
                repeats += 1;
                continue;
            }
            let sent = links.sent.max(1.0);
            return Ok(Observation {
                outcome,
                cost: after.since(&before).per(links.arrived.max(1.0)),
                ring_loss: links.ring_full / sent,
                repeats,
                disturbed,
            });
        }
    }

    fn clocks(&self) -> Result<Clocks> {
        let Topology { relay_threads, generator_threads, .. } = &self.topology;
        Clocks::read(&self.relay.pids(), relay_threads, generator_threads)
    }

    fn links(&self) -> Result<Links> {
        Links::read(&self.topology, self.traffic.one_interface)
    }
}
