//! The program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::config::Config;
use crate::evidence;
use crate::namespace::{Namespace, output};
use crate::process::Process;
use crate::status::Status;
use crate::wait::{PATIENCE, until};

/// Where the program is: `ANYTUN_XDP`, or beside the running executable, release before debug.
pub fn program() -> Result<PathBuf> {
    built("anytun-xdp", "ANYTUN_XDP")
}

/// Where the generator is: `ANYTUN_GEN`, or beside the running executable, release before debug.
pub fn generator() -> Result<PathBuf> {
    built("anytun-gen", "ANYTUN_GEN")
}

/// A program of the workspace, which an environment variable may name.
fn built(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = fs::canonicalize(&path)
            .with_context(|| format!("{variable} names {}, which is not there", path.display()))?;
        return Ok(path);
    }
    let executable = std::env::current_exe().context("cannot tell where this program is")?;
    let candidates = executable
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|dir| ["", "release", "debug"].map(|profile| dir.join(profile).join(name)));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: `cargo build --release -p {name}`, or name it in {variable}"))
}

/// A node: a directory with its configuration, state, control socket and log, and the process while it runs.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    namespace: String,
    directory: PathBuf,
    process: Process,
    started: Instant,
}

impl Node {
    /// Writes the configuration to `directory`, starts `program` in `namespace` and waits until it is ready.
    pub fn start(program: &Path, namespace: &Namespace, directory: &Path, config: &Config) -> Result<Self> {
        let node = Self::launch(program, namespace, directory, &config.toml(directory))?;
        node.await_ready(PATIENCE)?;
        Ok(node)
    }

    /// Starts the node with the text of a configuration and does not wait.
    pub fn launch(program: &Path, namespace: &Namespace, directory: &Path, toml: &str) -> Result<Self> {
        write_config(directory, toml)?;
        let started = Instant::now();
        let process = run(program, namespace, directory)?;
        let (program, directory) = (program.to_owned(), directory.to_owned());
        Ok(Self { program, namespace: namespace.name().to_owned(), directory, process, started })
    }

    /// Starts the process again, after it was killed or has ended. Does not wait.
    pub fn relaunch(&mut self, namespace: &Namespace) -> Result<()> {
        self.started = Instant::now();
        self.process = run(&self.program, namespace, &self.directory)?;
        Ok(())
    }

    /// Waits until the node says that it is ready; how long that took since it was started.
    pub fn await_ready(&self, limit: Duration) -> Result<Duration> {
        until("the node is ready", limit, || {
            let ended = !Path::new("/proc").join(self.pid().to_string()).join("exe").exists();
            ensure!(!ended, "the node ended instead of becoming ready:\n{}", self.process.log_tail());
            Ok(self.status().ok().filter(|status| status.ready))
        })?;
        Ok(self.started.elapsed())
    }

    /// What `status --json` says.
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.status_json()?)
    }

    /// What `status --json` prints.
    pub fn status_json(&self) -> Result<String> {
        self.ask(&["status", "--json"])
    }

    /// Runs a command that talks to the node, such as `status`, and returns what it printed.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        output(command.args(words).arg("--control").arg(self.control()))
    }

    /// Waits until `condition` is true of the status.
    pub fn await_status(&self, what: &str, mut condition: impl FnMut(&Status) -> bool) -> Result<Status> {
        until(what, PATIENCE, || Ok(Some(self.status()?).filter(&mut condition)))
    }

    /// Puts a configuration in place and asks the node to read it.
    pub fn reload(&self, toml: &str) -> Result<()> {
        write_config(&self.directory, toml)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// Puts a configuration in place that must come into force, and waits until it has.
    pub fn reconfigure(&self, config: &Config) -> Result<Status> {
        let before = self.status()?.config_generation;
        self.reload(&config.toml(&self.directory))?;
        self.await_status("the new configuration is in force", |status| status.config_generation > before)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Asks it to stop with SIGTERM and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(PATIENCE)
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        self.process.wait(PATIENCE)
    }

    /// Everything it has logged since it was first started.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The directory with its configuration, state and log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let status = self.status_json().unwrap_or_else(|error| format!("{error:#}"));
        evidence::file(&format!("status of the node in {}", self.namespace), &status);
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed, stdout and stderr.
    pub text: String,
}

/// Runs a command of the program that must end by itself, with whatever exit code: `check`, `doctor`, or `run` with what
/// cannot work.
pub fn command(namespace: &Namespace, directory: &Path, words: &[&str]) -> Result<Outcome> {
    let program = program()?;
    run_to_end(namespace, directory, &[&[&*program.to_string_lossy()], words].concat())
}

/// Runs a command line that must end by itself, and soon.
pub fn run_to_end(namespace: &Namespace, directory: &Path, line: &[&str]) -> Result<Outcome> {
    run_within(PATIENCE, namespace, directory, line)
}

/// Runs a command line that must end by itself before the time is up.
pub fn run_within(limit: Duration, namespace: &Namespace, directory: &Path, line: &[&str]) -> Result<Outcome> {
    let log = directory.join("command.log");
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let (program, arguments) = line.split_first().context("an empty command line")?;
    let mut process = Process::start(&line.join(" "), namespace, Path::new(program), arguments, &log)?;
    let code = process.wait(limit)?.code();
    Ok(Outcome { code, text: process.log() })
}

/// Writes the configuration that nobody but its owner can read, as it holds secrets.
pub fn write_config(directory: &Path, toml: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(directory.join("state")).with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join("node.toml");
    fs::write(&file, toml).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn run(program: &Path, namespace: &Namespace, directory: &Path) -> Result<Process> {
    let config = directory.join("node.toml");
    let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    Process::start("the node", namespace, program, arguments, &directory.join("node.log"))
}
