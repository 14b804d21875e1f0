//! What each command does.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anytun_common::stamp::{DATA, Stamp};
use anytun_gen::error::Error;
use anytun_gen::outcome::Outcome;
use anytun_gen::pcap::Writer;
use anytun_gen::rate::{Rate, Schedule};
use anytun_gen::report::Report;
use anytun_gen::search::{Found, Step, search};
use anytun_gen::session::Session;
use anytun_xdp::kernel::privilege;
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Cli, Command, PcapArgs, RunArgs};
use crate::progress::Progress;

/// What a search tries first when nothing is said.
const HIGHEST_TRIED: u64 = 10_000_000;
/// Sealed packets a second that the XDP sender gets through: those are prepared for the rate `max`.
const PREPARED: u64 = 5_000_000;
/// Octets of the largest frame.
const FRAME: usize = 2048;

/// Where the result goes as JSON.
enum Json {
    Output,
    /// With its name.
    File(String, File),
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    // Configurations hold secrets. Where it is refused, it goes on.
    let _ = privilege::forbid_core_dumps();
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Pcap(args) => pcap(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done when standard error is gone too; the code still tells.
            let _ = writeln!(io::stderr(), "anytun-gen: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn run(args: &RunArgs) -> Result<(), Error> {
    privilege::check()?;
    privilege::raise_locked_memory();
    let stop = stop_on_signal()?;
    let mut progress = Progress::new(args.quiet);
    let plan = args.plan()?;
    // Before anything is sent: a result that cannot be kept need not be measured.
    let json = args.json.as_deref().map(json).transpose()?;
    let mut session = Session::open(plan, &stop)?;
    let warm_up = match args.ramp {
        Some(ramp) => Schedule::fixed(Rate::Fixed(ramp.from), args.warm_up),
        None if args.search => Schedule::fixed(Rate::Fixed(HIGHEST_TRIED / 100), args.warm_up),
        None => Schedule::fixed(args.offered(), args.warm_up),
    };
    let schedule = match args.ramp {
        Some(ramp) => Schedule::ramp(ramp, args.duration),
        None => Schedule::fixed(args.offered(), args.duration),
    };
    let needed =
        |schedule: &Schedule| schedule.total().unwrap_or((PREPARED as f64 * schedule.duration.as_secs_f64()) as u64);
    // A round that is begun is not continued, so each of the two may need one more.
    let rounds = 2 * u64::from(session.plan().traffic.flows());
    let pool = args.pool.unwrap_or(needed(&warm_up) + needed(&schedule) + rounds);
    session.prepare(pool, &mut |made, of| progress.prepared(made, of))?;
    // Not before: packets are prepared on all processors. The threads to come inherit it.
    if let Some(cpu) = args.cpu {
        pin(cpu)?;
    }
    if !args.warm_up.is_zero() {
        session.measure(&warm_up, &mut |_| {}, &stop)?;
    }
    let (outcome, found) = match args.search {
        true => find(args, &mut session, &mut progress, &stop)?,
        false => (session.measure(&schedule, &mut |moment| progress.moment(moment), &stop)?, None),
    };
    let report = Report::new(&session, &outcome, found.as_ref());
    show(json, &report)
}

/// Opens the file for the result, and leaves what is in it for now.
fn json(path: &Path) -> Result<Json, Error> {
    if path.as_os_str() == "-" {
        return Ok(Json::Output);
    }
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let name = path.display().to_string();
    file.map(|file| Json::File(name.clone(), file))
        .map_err(|error| Error::usage(format!("--json {name} cannot be written: {error}")))
}

/// Searches; returns the last measurement too, which is that of the result.
fn find(
    args: &RunArgs,
    session: &mut Session,
    progress: &mut Progress,
    stop: &AtomicBool,
) -> Result<(Outcome, Option<Found>), Error> {
    let most = match args.offered() {
        Rate::Fixed(rate) => rate,
        Rate::Max => HIGHEST_TRIED,
    };
    let mut last = Outcome::default();
    let measure = |rate| {
        let outcome = session.measure(&Schedule::fixed(Rate::Fixed(rate), args.duration), &mut |_| {}, stop)?;
        let step = (!stop.load(Ordering::Relaxed)).then(|| Step::from(&outcome));
        last = outcome;
        Ok(step)
    };
    let found = search(most, args.loss, measure, |step| progress.step(step))?;
    Ok((last, Some(found)))
}

fn show(json: Option<Json>, report: &Report) -> Result<(), Error> {
    let Some(json) = json else { return print(&report.to_string()) };
    let text = serde_json::to_string(report).map_err(|error| Error::running("the result", error))? + "\n";
    match json {
        Json::Output => print(&text),
        Json::File(name, file) => {
            write(file, text.as_bytes()).map_err(|error| Error::running(&name, error))?;
            print(&report.to_string())
        }
    }
}

/// Replaces what is in a file. A pipe or a device has nothing to replace.
fn write(mut file: File, octets: &[u8]) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(octets)
}

/// Prints to standard output. A reader that went away, as `head` does, is no failure.
fn print(text: &str) -> Result<(), Error> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::running("standard output", error)),
        _ => Ok(()),
    }
}

fn pcap(args: &PcapArgs) -> Result<(), Error> {
    let (traffic, first) = args.traffic()?;
    let gap = match args.rate {
        Rate::Fixed(rate) => Duration::from_secs(1).as_nanos() as u64 / rate,
        Rate::Max => 0,
    };
    let flows = traffic.flows();
    if args.count.div_ceil(flows) > u32::MAX - first {
        return Err(Error::usage(format!(
            "--first-sequence {first} leaves too few numbers for {} packets",
            args.count
        )));
    }
    // Not before all is known to be right: what is in the file is gone then.
    let failed = |error: io::Error| Error::running(&args.out.display().to_string(), error);
    let out: Box<dyn Write> = match args.out.as_os_str() == "-" {
        true => Box::new(io::stdout().lock()),
        false => Box::new(File::create(&args.out).map_err(failed)?),
    };
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let mut writer = Writer::new(BufWriter::new(out)).map_err(failed)?;
    let mut frame = [0; FRAME];
    for number in 0..args.count {
        let sequence = number / flows;
        let stamp = Stamp { magic: [DATA, 0], flow: (number % flows) as u16, sequence, timestamp: 0 };
        let length = traffic.write(&mut frame, &stamp, first + sequence);
        writer.packet(start + u64::from(number) * gap, &frame[..length]).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

/// Sets a flag at the first SIGINT or SIGTERM; the second ends the process.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Error::running("taking signals", error))?;
    }
    Ok(stop)
}

fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| Error::usage(format!("--cpu {cpu}: {error}; see `nproc --all` for how many there are")))
}
