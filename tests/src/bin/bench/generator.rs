//! Runs of the generator, `anytun-gen`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use anytun_tests::process::Process;
use anytun_tests::stop::Stop;
use serde::Deserialize;

use crate::topology::{GENERATOR_CPU, Topology};
use crate::traffic::{Size, Traffic, What};

/// Packets a second that are prepared for a run with all that can be sent.
const MOST: u64 = 5_000_000;
/// How much longer than its traffic a run may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which part of the kernel sends or receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Engine {
    /// An AF_XDP socket: every packet is made when it is sent, or checked when it arrives.
    Xsk,
    /// An XDP program: prepared packets, or packets that are counted and dropped.
    Xdp,
}

impl Engine {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Engine::Xsk => "xsk",
            Engine::Xdp => "xdp",
        }
    }
}

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Packets a second; nothing for as many as can be.
    pub(crate) rate: Option<u64>,
    /// How long it is measured.
    pub(crate) time: Duration,
    /// How long it is sent before.
    pub(crate) warm_up: Duration,
    pub(crate) engine: Engine,
    /// Whether round trips are measured: `rate` is the load beside them, none without.
    pub(crate) round_trips: Option<u32>,
}

/// What the generator says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    /// Packets sent a second.
    pub(crate) send_pps: f64,
    /// Packets received a second.
    pub(crate) receive_pps: f64,
    /// Packets sent.
    pub(crate) sent: u64,
    /// Packets received.
    pub(crate) received: u64,
    /// Packets that came twice, too late or changed.
    #[serde(default)]
    pub(crate) duplicated: u64,
    #[serde(default)]
    pub(crate) reordered: u64,
    #[serde(default)]
    pub(crate) corrupt: u64,
    pub(crate) round_trip_us: Option<RoundTrip>,
    /// The last sequence number of the clients of a tunnel.
    #[serde(default)]
    pub(crate) last_sequence: Option<u32>,
}

/// Round trips in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct RoundTrip {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Outcome {
    /// The share of the packets that did not arrive.
    pub(crate) fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { 1.0 - (self.received as f64 / self.sent as f64).min(1.0) }
    }
}

/// The program.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    /// Where it is.
    pub(crate) program: PathBuf,
    /// Where its logs and results go.
    pub(crate) directory: PathBuf,
    pub(crate) stop: Stop,
}

impl Generator {
    /// Sends traffic through a topology and says what came out. Tunnels continue with a sequence number.
    pub(crate) fn run(
        &self,
        topology: &Topology,
        traffic: &Traffic,
        size: Size,
        load: &Load,
        first_sequence: u32,
    ) -> Result<Outcome> {
        let result = self.directory.join("run.json");
        let log = self.directory.join("anytun-gen.log");
        for file in [&result, &log] {
            // Of the run before, if there was one.
            let _ = fs::remove_file(file);
        }
        let mut arguments = self.arguments(topology, traffic, size, load);
        if matches!(traffic.what, What::Tunnel { .. }) {
            arguments.extend(["--first-sequence".to_owned(), first_sequence.to_string()]);
        }
        let mut process = Process::start("anytun-gen", &topology.generator, &self.program, &arguments, &log)?;
        let deadline = Instant::now() + load.time + load.warm_up + PATIENCE;
        let status = loop {
            if let Some(status) = process.ended()? {
                break status;
            }
            if self.stop.requested(Duration::from_millis(10)) {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                bail!("anytun-gen does not end\n{}", self.story(&arguments, &process));
            }
        };
        if !status.success() {
            let log = process.log();
            let reason = log.lines().find(|line| line.contains("error")).or(log.lines().last());
            let reason = reason.unwrap_or("it says nothing");
            bail!("anytun-gen, {status}: {reason}\n{}", self.story(&arguments, &process));
        }
        let text = fs::read_to_string(&result).context("anytun-gen left no result")?;
        serde_json::from_str(&text).with_context(|| format!("anytun-gen wrote {text}"))
    }

    /// How it was started, and what it said.
    fn story(&self, arguments: &[String], process: &Process) -> String {
        format!("{} {}\n{}", self.program.display(), arguments.join(" "), process.log_tail())
    }

    fn arguments(&self, topology: &Topology, traffic: &Traffic, size: Size, load: &Load) -> Vec<String> {
        let rate = load.rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
        let mut words = vec!["run".to_owned()];
        words.extend(traffic.arguments(topology, size));
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--cpu", GENERATOR_CPU.to_string());
        let longest = traffic.longest(size, load.rate.unwrap_or(MOST)).saturating_sub(load.warm_up);
        option("--duration", format!("{}ms", load.time.min(longest).as_millis().max(1)));
        option("--warm-up", format!("{}ms", load.warm_up.as_millis()));
        option("--json", self.directory.join("run.json").display().to_string());
        match load.round_trips {
            Some(probes) => {
                option("--probes", probes.to_string());
                words.push("--round-trip".to_owned());
                if load.rate.is_some() {
                    words.extend(["--rate".to_owned(), rate]);
                }
            }
            None => {
                // Frames of an XDP program arrive at the queue of the processor that sends them, of which there is one.
                let engine = if traffic.queues > 1 { Engine::Xsk } else { load.engine };
                option("--rate", rate);
                option("--engine", engine.name().to_owned());
                option("--sink-engine", engine.name().to_owned());
            }
        }
        words.push("--quiet".to_owned());
        words
    }
}
