//! The commands that install what is missing.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::privilege;
use crate::setup::{BPF_LINKER, Missing};
use crate::step::Step;
use crate::toolchain::{is_at_least, program};

/// Debian's Rust with its source. The suite that carries it is for building browsers, so it is recent.
const RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What bpf-linker is built against: the LLVM of Rust 1.95 and 1.96.
const LLVM_PACKAGES: [&str; 4] = ["llvm-22-dev", "libclang-22-dev", "libpolly-22-dev", "libzstd-dev"];

/// How the missing things are installed.
pub(crate) struct Plan {
    /// Commands, in the order in which they are run.
    actions: Vec<Action>,
    /// What no known command installs here.
    by_hand: Vec<String>,
}

struct Action {
    root: bool,
    environment: &'static [(&'static str, &'static str)],
    command: Vec<String>,
    usual_time: &'static str,
    log: &'static str,
}

impl Plan {
    /// What installs the missing things here.
    pub(crate) fn make(missing: &Missing) -> Self {
        let mut packages = missing.packages();
        let mut plan = Self { actions: Vec::new(), by_hand: Vec::new() };
        if missing.rust_source {
            if offers_rust() {
                packages.extend(RUST_PACKAGES);
            } else {
                plan.add_component(&["rust-src"]);
            }
        }
        if missing.components {
            plan.add_component(&["rustfmt", "clippy"]);
        }
        if missing.bpf_linker {
            if apt::is_present() && apt::offers(&LLVM_PACKAGES) {
                packages.extend(LLVM_PACKAGES);
                plan.actions.push(bpf_linker_from_source());
            } else {
                plan.actions.extend(bpf_linker_prebuilt());
            }
        }
        if apt::is_present() && !packages.is_empty() {
            plan.actions.insert(0, install(&packages));
        } else {
            plan.by_hand.extend(packages.iter().map(|package| format!("what Debian calls {package}")));
        }
        plan
    }

    /// Fetches the package lists.
    pub(crate) fn update() -> Self {
        Self { actions: vec![apt_get(&["update"], "10 s", "apt-update.log")], by_hand: Vec::new() }
    }

    fn add_component(&mut self, components: &[&str]) {
        if program("rustup").is_some() {
            self.actions.push(rustup_component(components));
        } else {
            self.by_hand.push(format!("the components {} of the Rust toolchain", components.join(" and ")));
        }
    }

    /// Whether this process may and can run it all.
    pub(crate) fn is_feasible(&self, granted: bool) -> bool {
        self.by_hand.is_empty() && (granted || !self.actions.iter().any(|action| action.root))
    }

    /// Runs the commands, up to the first that fails.
    pub(crate) fn run(&self) -> Result<()> {
        self.actions.iter().try_for_each(Action::run)
    }
}

/// The commands as a user would type them, one on each line, and what is left.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            let sudo = if action.root && !privilege::is_root() { "sudo " } else { "" };
            writeln!(f, "  {sudo}{}", action.line())?;
        }
        for thing in &self.by_hand {
            writeln!(f, "  (install {thing})")?;
        }
        Ok(())
    }
}

impl Action {
    fn line(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        environment.chain(self.command.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    fn run(&self) -> Result<()> {
        let program = match self.command[0].as_str() {
            // The one that runs this program: it need not be in PATH.
            "cargo" => env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            other => OsString::from(other),
        };
        let mut command = if self.root { privilege::as_root(program) } else { Command::new(program) };
        command.args(&self.command[1..]).envs(self.environment.iter().copied());
        Step { command_line: self.line(), usual_time: self.usual_time, log: self.log }.run(&mut command)
    }
}

fn offers_rust() -> bool {
    apt::is_present()
        && apt::offers(&RUST_PACKAGES)
        && apt::candidate(RUST_PACKAGES[0]).is_some_and(|version| is_at_least(&version, env!("CARGO_PKG_RUST_VERSION")))
}

fn install(packages: &[&str]) -> Action {
    // Nothing that the machine has is taken away for what it lacks.
    let arguments = [&["install", "--yes", "--no-install-recommends", "--no-remove"], packages].concat();
    apt_get(&arguments, "1 to 4 minutes", "apt-install.log")
}

fn apt_get(arguments: &[&str], usual_time: &'static str, log: &'static str) -> Action {
    Action {
        root: true,
        environment: &[("DEBIAN_FRONTEND", "noninteractive")],
        command: words("apt-get", arguments),
        usual_time,
        log,
    }
}

fn rustup_component(components: &[&str]) -> Action {
    let arguments = [&["component", "add"], components].concat();
    Action {
        root: false,
        environment: &[],
        command: words("rustup", &arguments),
        usual_time: "10 s",
        log: "rustup.log",
    }
}

fn bpf_linker_from_source() -> Action {
    let arguments = [
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--locked",
        "--no-default-features",
        "--features",
        "llvm-22",
    ];
    Action {
        root: false,
        environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        command: words("cargo", &arguments),
        usual_time: "1 to 5 minutes",
        log: "bpf-linker.log",
    }
}

/// Where no LLVM is to be had that is recent enough, its authors' build, which has one in it.
fn bpf_linker_prebuilt() -> Vec<Action> {
    let install = |arguments: &[&str], usual_time, log| Action {
        root: false,
        environment: &[],
        command: words("cargo", arguments),
        usual_time,
        log,
    };
    let mut actions = Vec::new();
    if program("cargo-binstall").is_none() {
        actions.push(install(&["install", "cargo-binstall", "--locked"], "3 to 5 minutes", "cargo-binstall.log"));
    }
    actions.push(install(
        &["binstall", "--no-confirm", "bpf-linker", "--version", BPF_LINKER],
        "10 s",
        "bpf-linker.log",
    ));
    actions
}

fn words(program: &str, arguments: &[&str]) -> Vec<String> {
    [&[program], arguments].concat().into_iter().map(str::to_owned).collect()
}
