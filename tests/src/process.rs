//! Programs that run beside the lab: their log, their signals, their end.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::evidence;
use crate::namespace::Namespace;
use crate::wait::until;

/// Lines of a log that a report carries.
const TAIL: usize = 40;

/// A running program whose stdout and stderr go to a file. Dropping it kills it and files its log as evidence.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`; its words are `program` and `arguments`. Output is appended to `log`. The
    /// program is killed if the thread that started it ends, and Ctrl-C at the terminal does not reach it.
    pub fn start<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(
        name: &str,
        namespace: &Namespace,
        program: &Path,
        arguments: I,
        log: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
        Self::spawn(name, command, log)
    }

    /// Starts a command that is complete.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} has ended", self.name);
        until(&what, limit, || self.ended())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Kills it at once, without a chance to tidy up, and what it has started in its process group.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // Without members the group is not there, and then there is nothing to kill.
        let _ = killpg(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL);
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let end = match self.ended() {
            Ok(Some(status)) => format!("it had ended by itself: {status}"),
            _ => "it was running".to_owned(),
        };
        // It may be gone already, which is as good.
        let _ = self.kill();
        evidence::file(&format!("{} ({end}), end of its log", self.name), &self.log_tail());
    }
}
