//! The benchmark: the node beside what an operator would use instead, over one topology, in one run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::evidence;
use anytun_tests::namespace;
use anytun_tests::node;
use anytun_tests::stop::Stop;
use clap::Parser;

use crate::contestant::Contestant;
use crate::generator::{Engine, Generator};
use crate::header::Header;
use crate::measure::{Bench, Measured, Samples};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::relay::Programs;
use crate::report::Report;
use crate::subject::Subject;
use crate::topology::RELAY_CPU;
use crate::traffic::Size;

mod contestant;
mod cpu;
mod docs;
mod drops;
mod generator;
mod header;
mod measure;
mod pipeline;
mod plan;
mod plot;
mod profile;
mod progress;
mod relay;
mod report;
mod rows;
mod spread;
mod subject;
mod sweep;
mod table;
mod topology;
mod traffic;
mod turn;

/// Exit codes: something could not be measured; the host cannot do it.
const FAILED: u8 = 1;
const HOST: u8 = 3;

/// Measures relays side by side in network namespaces that are removed at the end: packets a second at the peak, without
/// loss and in overload, processor time of a packet, round trips.
///
/// Subjects take turns, round by round. Progress goes to stderr, the tables to stdout. Ctrl-C ends it, tidies up and shows
/// what was measured until then, which --json has, too, but not --docs.
/// Nothing else should run beside it: a run during which something else used more than a tenth of a processor is
/// repeated.
#[derive(Parser)]
#[command(name = "cargo xtask bench", max_term_width = 100)]
struct Arguments {
    /// The main subjects at 64 octets only, without open tunnel mode, in short runs: under two minutes
    #[arg(long)]
    quick: bool,
    /// Only these, such as anytun-xdp/null,reflector; the reflector and the peers in it are what ratios refer to
    #[arg(long, value_name = "SUBJECT,..", value_delimiter = ',')]
    only: Vec<Subject>,
    /// Octets of the Ethernet frames without FCS, and imix [default: 64,512,1400,imix, or 64 with --quick]
    #[arg(long, value_name = "SIZE,..", value_delimiter = ',')]
    sizes: Vec<Size>,
    /// Sample where the time of the node goes at its peak (perf), which the whole does without being asked
    #[arg(long)]
    profile: bool,
    /// Nothing but packets a second and processor time: no search for the lossless rate, no round trips, no checks
    #[arg(long, conflicts_with_all = ["profile", "docs"])]
    rates: bool,
    /// How often each is measured [default: 5, or 3 with --quick]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How the generator sends: xdp is several times as fast, xsk checks every packet that arrives
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "xdp")]
    engine: Engine,
    /// Say what would be measured and how long it would take, and end
    #[arg(long)]
    dry_run: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write tables and charts to benchmarks.md and benchmarks/ in this directory [with no value: docs]
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = "docs")]
    docs: Option<PathBuf>,
    /// The program anytun-xdp [default: the one built last beside this program]
    #[arg(long, value_name = "PATH")]
    node: Option<PathBuf>,
    /// The program anytun-gen [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    generator: Option<PathBuf>,
    /// What sealing and opening cost, as `cargo bench -p anytun-xdp --bench crypto -- --json` prints it
    #[arg(long, value_name = "FILE")]
    crypto: Option<PathBuf>,
    /// What the packet path costs without a kernel, as `cargo bench -p anytun-xdp --bench pipeline -- --json` prints it
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.dry_run {
        println!("{}", plan(&arguments));
        return ExitCode::SUCCESS;
    }
    if let Some(obstacle) = namespace::obstacle() {
        eprintln!("bench: {obstacle}");
        return ExitCode::from(HOST);
    }
    match bench(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("bench: {error:#}\n{}", evidence::take());
            ExitCode::from(FAILED)
        }
    }
}

/// Whether everything was measured that was to be, apart from peers that are not installed.
fn bench(arguments: &Arguments) -> Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores > RELAY_CPU, "the benchmark takes two processors, one for the generator");
    let stop = Stop::new()?;
    let plan = plan(arguments);
    let beside = |name: &str| -> Result<PathBuf> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let path = own.with_file_name(name);
        ensure!(path.is_file(), "{} is not built; `cargo xtask bench` does it", path.display());
        Ok(path)
    };
    let given = |path: &Option<PathBuf>, name: &str| path.clone().map_or_else(|| beside(name), Ok);
    let programs =
        Programs { node: arguments.node.clone().map_or_else(node::program, Ok)?, reflector: beside("reflector")? };
    let directory = tempfile::Builder::new().prefix("anytun-bench-").tempdir().context("cannot make a directory")?;
    let generator = Generator {
        program: given(&arguments.generator, "anytun-gen")?,
        directory: directory.path().to_owned(),
        stop: stop.clone(),
    };
    namespace::sweep();
    let header = Header::new(&plan, command());
    let mut measured = Measured::default();
    let mut bench = Bench {
        plan: &plan,
        generator: &generator,
        programs: &programs,
        progress: Progress::new(plan.total(plan.subjects.iter().copied())),
    };
    let absent = measured.left_out.len();
    let mut contestants = set_up(&plan, directory.path(), &programs, &bench.progress, &stop, &mut measured)?;
    let not_installed = measured.left_out.iter().filter(|(subject, _)| missing(*subject).is_some()).count() - absent;
    bench.progress = Progress::new(plan.total(contestants.iter().map(|contestant| contestant.subject)));
    let interrupted = match bench.run(&mut contestants, &mut measured) {
        Err(error) if stop.requested(Duration::ZERO) && measured.samples.values().any(Samples::is_measured) => {
            bench.progress.say(&format!("interrupted: {error:#}"));
            true
        }
        result => result.map(|()| false)?,
    };
    drop(contestants);
    let (crypto, pipeline) = (rows::read(arguments.crypto.as_deref())?, rows::read(arguments.pipeline.as_deref())?);
    let by_design = measured.left_out.iter().filter(|(_, why)| why.starts_with("not at ")).count();
    let complete = measured.left_out.len() == not_installed + by_design;
    let mut report = Report::new(header, &plan, &measured, crypto, pipeline);
    report.header.interrupted = interrupted;
    show(&report, arguments)?;
    Ok(complete && !interrupted)
}

/// What the options ask for.
fn plan(arguments: &Arguments) -> Plan {
    let mut plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    if !arguments.only.is_empty() {
        plan.subjects = Subject::ALL.into_iter().filter(|subject| arguments.only.contains(subject)).collect();
    }
    if !arguments.sizes.is_empty() {
        plan.sizes.clone_from(&arguments.sizes);
    }
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    plan.engine = arguments.engine;
    plan.profile |= arguments.profile;
    if arguments.rates { plan.rates_only() } else { plan }
}

/// Starts every subject on ground of its own. What is not installed, or does not start, is left out.
fn set_up(
    plan: &Plan,
    directory: &Path,
    programs: &Programs,
    progress: &Progress,
    stop: &Stop,
    measured: &mut Measured,
) -> Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    let start = Instant::now();
    for &subject in &plan.subjects {
        if stop.requested(Duration::ZERO) {
            bail!("interrupted");
        }
        let made = match missing(subject) {
            Some(program) => Err(anyhow::anyhow!("{program} is not installed")),
            None => Contestant::new(subject, directory, programs),
        };
        match made {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => {
                progress.say(&format!("{subject} is left out: {error:#}"));
                measured.left_out.push((subject, format!("{error:#}")));
            }
        }
    }
    ensure!(!contestants.is_empty(), "there is nothing to measure");
    progress.say(&format!("{} subjects are up after {:.1} s", contestants.len(), start.elapsed().as_secs_f64()));
    Ok(contestants)
}

/// A program that a subject takes and the machine lacks.
fn missing(subject: Subject) -> Option<&'static str> {
    subject.needs().iter().copied().find(|program| !namespace::installed(program))
}

fn show(report: &Report, arguments: &Arguments) -> Result<()> {
    for (name, words) in report.header.lines() {
        println!("{name:<10} {words}");
    }
    for size in report.sizes() {
        println!("\n{}", table::terminal(report, size));
    }
    let checked = report.checked_rows();
    if !checked.is_empty() {
        println!("{}", table::checked(&checked));
    }
    if !report.profiles.is_empty() {
        println!("{}", table::profiles(&report.profiles));
    }
    if !report.crypto.is_empty() {
        println!("{}", table::crypto(&report.crypto));
    }
    if !report.pipeline.is_empty() {
        println!("{}\n{}\n", pipeline::tables(&report.pipeline), pipeline::LEGEND);
    }
    println!("{}", table::LEGEND);
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // A document is of a whole run.
    let docs = arguments.docs.as_deref().filter(|_| !report.header.interrupted);
    docs.map_or(Ok(()), |docs| docs::write(report, docs))
}

/// The command that makes this again, without where things are on this machine.
fn command() -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    let mut rest = std::env::args().skip(1).peekable();
    while let Some(word) = rest.next() {
        let option = word.split('=').next().unwrap_or_default();
        let dropped = ["--node", "--generator", "--crypto", "--pipeline", "--json"].contains(&option);
        if !word.contains('=') && (dropped || option == "--docs") {
            // Its value, which --docs need not have.
            rest.next_if(|value| !value.starts_with('-'));
        }
        if !dropped {
            words.push(if option == "--docs" { option.to_owned() } else { word });
        }
    }
    words.join(" ")
}
