//! Asked to end by SIGINT, SIGTERM or SIGHUP: instead of dying at once everything is removed first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether a signal has come.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes the signals over.
    pub fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot handle signals")?;
        }
        Ok(Self(flag))
    }

    /// Waits for `limit`, or less if a signal has come; whether one has.
    pub fn requested(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while !self.0.load(Ordering::Relaxed) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.load(Ordering::Relaxed)
    }
}
