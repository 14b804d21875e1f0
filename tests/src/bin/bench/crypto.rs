//! What sealing and opening cost by themselves, as the benchmark of the pipeline tells.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use anytun_tests::namespace::output;

use crate::report::CryptoRow;
use crate::topology::RELAY_CPU;

/// Runs the program that measures it, on the processor of the relays, and reads the objects it prints, one on each line.
pub(crate) fn measure(program: &Path) -> Result<Vec<CryptoRow>> {
    let text = output(Command::new("taskset").args(["--cpu-list", &RELAY_CPU.to_string()]).arg(program))?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("{} printed {line}", program.display())))
        .collect()
}
