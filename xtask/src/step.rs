//! One step of long work: announced, kept in a log, and explained when it fails.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How many of the last lines of a log a failure shows.
const TAIL: usize = 20;

/// A command that takes a while.
pub(crate) struct Step<'a> {
    /// What is announced: the command as a user would type it.
    pub(crate) command_line: String,
    /// How long it usually takes.
    pub(crate) usual_time: &'static str,
    /// The name of its log.
    pub(crate) log: &'a str,
}

impl Step<'_> {
    /// Runs the step, with what it prints in its log.
    ///
    /// # Errors
    /// When it cannot be started or fails, with the end of the log.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let directory = workspace::log_dir()?;
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let path = directory.join(self.log);
        let log = File::create(&path).with_context(|| path.display().to_string())?;

        println!("setup: {} (usually {}; log: {})", self.command_line, self.usual_time, path.display());
        let status = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| self.command_line.clone())?;
        if !status.success() {
            bail!("`{}` failed: {status}. The end of {}:\n{}", self.command_line, path.display(), tail(&path));
        }
        Ok(())
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    tail.iter().map(|line| format!("    {line}\n")).collect()
}
