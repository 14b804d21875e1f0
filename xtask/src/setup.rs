//! `cargo xtask setup`: makes a machine able to build, run and test.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::apt;
use crate::need::{BENCHMARK_NEEDS, NEEDS, Need};
use crate::plan::Plan;
use crate::privilege;
use crate::toolchain::{is_new_enough, program, rust_with_source};

/// The version of bpf-linker that is installed, and the least that will do: 0.13.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// Looks for what the tasks need, and installs what is missing. Where it was `asked_for`, it also looks for what only
/// changing the code needs, and reports that nothing is missing.
///
/// # Errors
/// When something is missing that cannot be installed, with the commands that would.
pub(crate) fn setup(asked_for: bool) -> Result<()> {
    let missing = Missing::look(asked_for);
    if missing.is_empty() {
        if asked_for {
            println!("setup: nothing is missing");
        }
        return Ok(());
    }
    missing.install()?;
    let left = Missing::look(asked_for);
    if !left.is_empty() {
        bail!("still missing after all was installed:\n  {}", left.lines().join("\n  "));
    }
    println!("setup: done");
    Ok(())
}

/// Installs what the benchmark compares with, as far as it is to be had, and says what it has to do without.
pub(crate) fn setup_benchmark() {
    let missing = Missing::of(BENCHMARK_NEEDS.iter().filter(|need| !need.is_met()).collect());
    if missing.is_empty() {
        return;
    }
    let (offered, not_offered): (Vec<_>, Vec<_>) =
        missing.needs.iter().copied().partition(|need| !apt::is_present() || apt::offers(&[need.package]));
    // Lists that are absent offer nothing, but have the rest once they are fetched.
    let wanted = Missing::of(if offered.is_empty() { not_offered } else { offered });
    if let Err(error) = wanted.install() {
        eprintln!("setup: {error:#}");
    }
    for need in BENCHMARK_NEEDS.iter().filter(|need| !need.is_met()) {
        println!("setup: the benchmark goes without {}, which is {}", need.name, need.purpose);
    }
}

/// What a machine lacks.
pub(crate) struct Missing {
    /// What the distribution provides.
    pub(crate) needs: Vec<&'static Need>,
    /// A Rust toolchain with the source of `core`.
    pub(crate) rust_source: bool,
    /// bpf-linker.
    pub(crate) bpf_linker: bool,
    /// `cargo fmt` and `cargo clippy`.
    pub(crate) components: bool,
}

impl Missing {
    fn look(for_changes: bool) -> Self {
        Self {
            needs: NEEDS.iter().filter(|need| !need.is_met()).collect(),
            rust_source: rust_with_source().is_none(),
            bpf_linker: !has_bpf_linker(),
            components: for_changes && !["cargo-fmt", "cargo-clippy"].into_iter().all(has_component),
        }
    }

    /// Only what the distribution provides.
    fn of(needs: Vec<&'static Need>) -> Self {
        Self { needs, rust_source: false, bpf_linker: false, components: false }
    }

    /// Says what is missing and installs it.
    fn install(&self) -> Result<()> {
        println!("setup: missing:\n  {}", self.lines().join("\n  "));
        let granted = privilege::is_granted();
        let stale = apt::is_present() && apt::is_stale(&self.packages());
        if stale && granted {
            // A source that does not answer need not be one that the packages come from: the installation will tell.
            if let Err(error) = Plan::update().run() {
                eprintln!("setup: {error:#}setup: going on with the package lists as they are");
            }
        }
        let plan = Plan::make(self);
        if !plan.is_feasible(granted) {
            let reason = if granted {
                "not everything can be installed from here"
            } else {
                "installing takes root, and there is no sudo without a password"
            };
            let update = if stale { Plan::update().to_string() } else { String::new() };
            bail!("{reason}. Run this, then `cargo xtask setup` again:\n{update}{plan}");
        }
        plan.run()
    }

    fn is_empty(&self) -> bool {
        self.needs.is_empty() && !self.rust_source && !self.bpf_linker && !self.components
    }

    /// The packages of the distribution that are missing.
    pub(crate) fn packages(&self) -> Vec<&'static str> {
        self.needs.iter().map(|need| need.package).collect()
    }

    /// One line for each thing: its name and what it is for.
    fn lines(&self) -> Vec<String> {
        let needs = self.needs.iter().map(|need| (need.name, need.purpose));
        let rest = [
            (self.rust_source, "rust-src", "to build core for the XDP program"),
            (self.bpf_linker, "bpf-linker", "to link the XDP program"),
            (self.components, "rustfmt and clippy", "to check changes"),
        ];
        let rest = rest.into_iter().filter(|(missing, ..)| *missing).map(|(_, name, purpose)| (name, purpose));
        needs.chain(rest).map(|(name, purpose)| format!("{name:<20}{purpose}")).collect()
    }
}

fn has_bpf_linker() -> bool {
    program("bpf-linker").is_some_and(|linker| is_new_enough(&linker, BPF_LINKER))
}

/// Whether a subcommand of cargo is in the toolchain in use, or in `PATH`.
fn has_component(name: &str) -> bool {
    let cargo = env::var_os("CARGO").map(PathBuf::from);
    // rustup puts stand-ins for all components into PATH, whether or not a toolchain has them.
    match cargo.as_deref().and_then(|cargo| cargo.parent()) {
        Some(toolchain) => toolchain.join(name).is_file(),
        None => Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()),
    }
}
