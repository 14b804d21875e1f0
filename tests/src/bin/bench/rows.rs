//! What other benchmarks found, which measure parts of the node without a kernel.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// Reads the rows that `cargo bench -p anytun-xdp --bench NAME -- --json` printed; none without a file.
pub(crate) fn read<R: DeserializeOwned>(file: Option<&Path>) -> Result<Vec<R>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what the benchmark prints", file.display()))
}
