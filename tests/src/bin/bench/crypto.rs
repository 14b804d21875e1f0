//! What sealing and opening cost by themselves, as the benchmark of the cryptography tells.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::CryptoRow;

/// Reads what `cargo bench -p anytun-xdp --bench crypto -- --json` printed.
pub(crate) fn read(file: &Path) -> Result<Vec<CryptoRow>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what the benchmark prints", file.display()))
}
