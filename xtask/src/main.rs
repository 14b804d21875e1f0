//! `cargo xtask`: what a developer of anytun-xdp does with the workspace as a whole.

mod apt;
mod need;
mod plan;
mod privilege;
mod setup;
mod step;
mod toolchain;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Set up, build, run and test anytun-xdp.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, running and testing need.
    ///
    /// Looks for each tool and library, says what is missing and what it is for, and installs it: as root or with a sudo
    /// that asks for no password, on Debian and its derivatives. Elsewhere it prints the commands and fails. With
    /// nothing missing it changes nothing. The other tasks do this first.
    Setup,
    /// Build the node and the generator: `anytun-xdp` and `anytun-gen`, with their XDP programs in them.
    Build {
        /// Build optimised, into target/release.
        #[arg(long)]
        release: bool,
    },
    /// Run the demonstration, or, with arguments after `--`, anytun-xdp itself.
    ///
    /// The demonstration starts a node between two network namespaces, a real anytun client in one and a real uanytun
    /// client in the other, pings both ways and shows what is carried. Ctrl-C ends it. It exits with 0 if traffic
    /// flowed and none was lost.
    ///
    /// `cargo xtask run -- ARGS` runs `anytun-xdp ARGS` and exits as it does. Both are built optimised and run as root,
    /// through sudo where needed.
    Run(Run),
    /// Run all tests: those of the crates, then the end-to-end tests against real anytun and uanytun daemons.
    ///
    /// The end-to-end tests need root: without it they are named as skipped.
    Test(Test),
    /// Measure the node beside what an operator would use instead; writes tables, JSON and charts.
    ///
    /// Builds the programs optimised, asks for the peers (nginx, socat, coturn, nftables) where they are missing and goes
    /// without those that cannot be had. `cargo xtask bench --help` lists its options, among them --quick, --only,
    /// --sizes, --rounds, --rates, --profile, --dry-run, --json FILE and --docs.
    #[command(disable_help_flag = true)]
    Bench {
        /// Options of the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
}

#[derive(Args)]
struct Run {
    /// End the demonstration after this time, such as 20s or 2m.
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "arguments")]
    duration: Option<String>,
    /// Arguments of anytun-xdp, such as `run --config node.toml`.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

#[derive(Args)]
struct Test {
    /// Run the soak test alone: five minutes of load, not part of the other tests.
    #[arg(long, conflicts_with = "filters")]
    soak: bool,
    /// Run the test of zero-copy alone, in a virtual machine; not part of the other tests.
    ///
    /// It boots a kernel in QEMU whose network interfaces do zero-copy (virtio_net, then igb) and runs the node between
    /// two of them. Takes about two minutes, the first time three. Needs no root. QEMU and the kernel, about 140 MB, are
    /// fetched from the Debian archive that this host installs from, into target/vm; nothing is installed. Where they
    /// cannot be had it is skipped, and one line says what is missing.
    #[arg(long, conflicts_with_all = ["soak", "filters"])]
    vm: bool,
    /// Run the tests whose names contain this. Options of the test harness may stand here too.
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    setup::setup(matches!(task, Task::Setup))?;
    match task {
        Task::Setup => Ok(()),
        Task::Build { release } => {
            workspace::build_node(release).and_then(|_| workspace::build_generator(release)).map(drop)
        }
        Task::Run(Run { duration, arguments }) if arguments.is_empty() => workspace::demonstrate(duration.as_deref()),
        Task::Run(Run { arguments, .. }) => workspace::run_node(&arguments),
        Task::Test(Test { vm: true, .. }) => vm::test(),
        Task::Test(Test { soak: true, .. }) => workspace::soak(),
        Task::Test(Test { filters, .. }) => workspace::test(&filters),
        Task::Bench { arguments } => workspace::bench(&arguments),
    }
}
