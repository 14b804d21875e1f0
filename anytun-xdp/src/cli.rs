//! The command line, and what each command does.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anytun_xdp::config;
use anytun_xdp::control::client::{self, Client};
use anytun_xdp::control::show::show;
use anytun_xdp::kernel::doctor::{self, Severity};
use anytun_xdp::kernel::privilege;
use anytun_xdp::node::{self, StartError};
use clap::{Args, Parser, Subcommand};

/// Where the configuration is when nothing else is said.
const CONFIG: &str = "/etc/anytun-xdp/node.toml";

/// Exit codes, the same for every command.
const EXIT_CODES: &str = "Exit codes: 0 fine; 1 failure while running; 2 bad usage or configuration; 3 the host cannot do \
                          it (no such interface, not permitted, another XDP program in the way, a directory or \
                          address that cannot be used).";

/// An anycast tunnel relay whose packets bypass the kernel. It speaks the protocol of anytun and uanytun (SATP).
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node in the foreground. SIGTERM stops it, SIGHUP makes it read its configuration again.
    Run(ConfigFile),
    /// Check a configuration and print what it means. Starts nothing.
    Check(ConfigFile),
    /// Look for what on this host would hurt, and print the command that mends it. Changes nothing.
    Doctor(ConfigFile),
    /// Show what a running node does.
    Status(StatusArgs),
    /// Make a running node read its configuration again, as SIGHUP does, and say what came of it.
    Reload(NodeArgs),
    /// Make a running node forget the sequence numbers of a client, so that one that has restarted, and counts from 0
    /// again, is not refused as replayed. Until it speaks, its old packets can be replayed.
    Forget(ForgetArgs),
    /// Ask a running node to stop, as SIGTERM does: not ready at once, and gone once traffic had time to move away.
    Drain(NodeArgs),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Which running node is meant.
#[derive(Debug, Args)]
struct NodeArgs {
    /// The configuration file of the node, for the path of its control socket.
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// The control socket of the node.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    control: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ForgetArgs {
    /// The client's name.
    client: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl NodeArgs {
    fn client(&self) -> Result<Client, Failure> {
        let control = match &self.control {
            Some(path) => path.clone(),
            None => config::control_path(&self.config)?,
        };
        Ok(Client::new(control))
    }
}

/// A command that did not end well: what to say and with which code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn running(error: impl std::fmt::Display) -> Self {
        Self { code: 1, message: error.to_string() }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self { code: 2, message: error.to_string() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Config(_) => 2,
            StartError::Host(_) | StartError::Unavailable(_) => 3,
            StartError::Other(_) => 1,
        };
        Self { code, message: error.to_string() }
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    // Configurations hold secrets. Where it is refused, a start says so; the others go on.
    let _ = privilege::forbid_core_dumps();
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            // Nothing can be done when standard error is gone too; the code still tells.
            let _ = writeln!(std::io::stderr(), "anytun-xdp: {message}");
            ExitCode::from(code)
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run(&args.config),
        Command::Check(args) => check(&args.config),
        Command::Doctor(args) => examine(&args.config),
        Command::Status(args) => status(&args),
        Command::Reload(args) => answered(args.client()?.reload()),
        Command::Forget(args) => answered(args.node.client()?.forget(&args.client)),
        Command::Drain(args) => args.client()?.drain().map_err(Failure::running),
    }
}

fn run(file: &Path) -> Result<(), Failure> {
    log_to_stderr();
    Ok(node::run(file)?)
}

fn check(file: &Path) -> Result<(), Failure> {
    let config = config::read(file)?;
    print(&config::explain(&config))
}

fn examine(file: &Path) -> Result<(), Failure> {
    let config = config::read(file)?;
    let findings = doctor::examine_all(&config);
    let mut text = String::new();
    for finding in &findings {
        text.push_str(&finding.to_string());
        text.push('\n');
    }
    print(&text)?;
    match findings.iter().filter(|finding| finding.severity == Severity::Fatal).count() {
        0 => Ok(()),
        count => Err(Failure { code: 3, message: format!("{count} of these keep the node from starting") }),
    }
}

fn status(args: &StatusArgs) -> Result<(), Failure> {
    let status = args.node.client()?.status().map_err(Failure::running)?;
    if args.json {
        let json = serde_json::to_string_pretty(&status).map_err(Failure::running)?;
        print(&(json + "\n"))
    } else {
        print(&show(&status, None, Duration::ZERO))
    }
}

/// Prints what the node says. What it refuses is a wrong configuration, or wrong usage; it goes on either way.
fn answered(answer: Result<String, client::Error>) -> Result<(), Failure> {
    match answer {
        Ok(message) => print(&(message + "\n")),
        Err(error @ client::Error::Refused { .. }) => Err(Failure { code: 2, message: error.to_string() }),
        Err(error) => Err(Failure::running(error)),
    }
}

/// Prints to standard output. A reader that went away, as `head` does, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::running(error)),
        _ => Ok(()),
    }
}

/// Events go to standard error; `RUST_LOG` chooses which, `info` if it says nothing. The journal has its own clock.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // They would be printed to standard error, which panics when that is what failed.
        .log_internal_errors(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() { events.without_time().init() } else { events.init() }
}
