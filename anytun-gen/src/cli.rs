//! The command line, and what each command does.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anytun_gen::error::Error;
use anytun_gen::hop::{self, Mac};
use anytun_gen::plan::{Engine, Plan};
use anytun_gen::rate::{Rate, Schedule};
use anytun_gen::report::Report;
use anytun_gen::session::Session;
use anytun_gen::size::Sizes;
use anytun_gen::traffic::Plain;
use anytun_gen::traffic::headers::Ends;
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::Link;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

/// A packet generator and sink for nodes of anytun-xdp and for whatever else relays UDP.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send packets, receive them where they come out, and say what became of them.
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How packets are sent.
    #[arg(long, value_enum, default_value = "xsk")]
    engine: EngineArg,
    /// How packets are received.
    #[arg(long, value_enum, default_value = "xsk")]
    sink_engine: EngineArg,
    /// Packets a second, such as 5000, 100k or 1.5M, or `max` for as many as can be sent.
    #[arg(long, value_name = "PPS", default_value = "max")]
    rate: Rate,
    /// How long to send, such as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    duration: Duration,
    /// How long to send before that without counting.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    warm_up: Duration,
    /// Run on this processor alone.
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
    /// Write the result as JSON to a file, or to standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct TrafficArgs {
    /// The interface that packets are sent out of.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// The interface where packets must come out [default: the same].
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Source address and port of the packets; the ports of further flows are counted up.
    #[arg(long, value_name = "ADDRESS:PORT")]
    source: SocketAddr,
    /// Destination address and port of the packets.
    #[arg(long, value_name = "ADDRESS:PORT")]
    destination: SocketAddr,
    /// Flows, each with a source port of its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// UDP destination port of the packets that arrive at the sink [default: that of --destination].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    arrive_port: Option<u16>,
    /// Octets in front of the payload.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = octets)]
    prefix: Octets,
    /// Octets in front of the payload of the packets that arrive at the sink.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = octets)]
    arrive_prefix: Octets,
    /// Octets of the Ethernet frames without FCS: one size, a list such as 64,512, or `imix`: 64, 594 and 1514 octets in
    /// the proportion 7:4:1.
    #[arg(long, value_name = "OCTETS", default_value = "64")]
    size: Sizes,
    /// MAC address of the next hop [default: asked from the kernel].
    #[arg(long, value_name = "MAC")]
    gateway_mac: Option<Mac>,
}

/// Octets written in hex.
#[derive(Clone, Debug)]
struct Octets(Vec<u8>);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineArg {
    /// AF_XDP sockets: every packet is made, or checked, one by one.
    Xsk,
    /// XDP programs: prepared packets sent as live frames, or packets counted and dropped; for overload.
    Xdp,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Xsk => Self::Xsk,
            EngineArg::Xdp => Self::Xdp,
        }
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done when standard error is gone too; the code still tells.
            let _ = writeln!(std::io::stderr(), "anytun-gen: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(args) => run(&args),
    }
}

fn run(args: &RunArgs) -> Result<(), Error> {
    if let Some(cpu) = args.cpu {
        pin(cpu)?;
    }
    let stop = stop_on_signal()?;
    let mut session = Session::open(plan(args)?)?;
    let warm_up = Schedule::fixed(args.rate, args.warm_up);
    if !args.warm_up.is_zero() {
        session.measure(&warm_up, &mut |_| {}, &stop)?;
    }
    let outcome = session.measure(&Schedule::fixed(args.rate, args.duration), &mut |_| {}, &stop)?;
    let report = Report::new(session.plan(), &outcome);
    write_json(args, &report)
}

fn plan(args: &RunArgs) -> Result<Plan, Error> {
    let traffic = &args.traffic;
    let interface = Link::find(&traffic.interface)?;
    let sink = match &traffic.sink {
        Some(name) => Link::find(name)?,
        None => interface.clone(),
    };
    let hop = match traffic.gateway_mac {
        Some(mac) => mac,
        None => hop::resolve(&interface, traffic.destination.ip(), "--gateway-mac")?,
    };
    let ends = Ends { source: traffic.source, destination: traffic.destination };
    let plain =
        Plain::new([hop.0, interface.mac], ends, traffic.flows, traffic.prefix.0.clone(), traffic.size.clone())?;
    Ok(Plan {
        interface,
        sink,
        engine: args.engine.into(),
        sink_engine: args.sink_engine.into(),
        mode: XdpMode::Auto,
        traffic: plain,
        arrive_port: traffic.arrive_port.unwrap_or(traffic.destination.port()),
        arrive_prefix: traffic.arrive_prefix.0.clone(),
    })
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

fn write_json(args: &RunArgs, report: &Report) -> Result<(), Error> {
    let Some(file) = &args.json else { return Ok(()) };
    let json = serde_json::to_string(report).map_err(|error| Error::running("the result", error))? + "\n";
    if file.as_os_str() == "-" {
        return std::io::stdout().write_all(json.as_bytes()).map_err(|error| Error::running("standard output", error));
    }
    fs::write(file, json).map_err(|error| Error::running(&file.display().to_string(), error))
}

/// Reads a time such as `2s`, `500ms` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write it such as 500ms, 2s or 1m");
    let split = text.find(|character: char| character.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let digits = number.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    let number: f64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

fn octets(text: &str) -> Result<Octets, String> {
    hex::decode(text).map(Octets).map_err(|error| format!("no hex digits: {error}"))
}
