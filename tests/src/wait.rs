//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything that is not measured may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `probe` until it has an answer. An error of `probe` ends the waiting at once; after `limit` the error names
/// `what` was waited for.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain until {what}", start.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
