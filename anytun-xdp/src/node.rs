//! The table of contents of the program: what starts, in which order, and how it stops.

mod plan;
mod reload;
mod report;
mod start;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::RecvTimeoutError;
use tracing::{error, info, warn};

use self::start::{Running, Started};
use crate::config;
use crate::control::notify;
use crate::control::signals::{Signal, Signals};
use crate::control::source::Source;
use crate::kernel::HostError;
use crate::satp::lease;

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The host cannot do what it asks for.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// How often leases are looked after: well within the time in which a worker can use up half of the smallest.
const LEASE_INTERVAL: Duration = Duration::from_millis(10);

/// How often the main thread looks whether the workers live.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// Why it did not start, or which part of it failed while it ran.
pub fn run(file: &Path) -> Result<(), StartError> {
    let Started { node, signals, server, workers, wakers } = start::start(file)?;
    let threads = Threads { leases: spawn_leases(&node)?, workers };

    info!("{} is ready: {}", node.name(), report::summary(&node.status()));
    notify::ready("carrying traffic");
    let outcome = watch(&node, &signals, &threads);

    info!("draining");
    notify::stopping("draining");
    node.drain();
    // Nothing new is steered from here on; the workers send what they have.
    node.detach();
    node.stop.store(true, Ordering::Release);
    for waker in &wakers {
        waker.wake();
    }
    let outcome = outcome.and(threads.join());
    server.stop();
    node.close_leases()?;
    info!("stopped");
    outcome
}

/// The threads that end before the program does.
struct Threads {
    leases: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
}

impl Threads {
    /// The first worker that ended although nobody told it to.
    fn dead_worker(&self) -> Option<usize> {
        self.workers.iter().position(JoinHandle::is_finished)
    }

    fn join(self) -> Result<(), StartError> {
        let mut outcome = Ok(());
        for (index, worker) in self.workers.into_iter().enumerate() {
            if worker.join().is_err() {
                outcome = Err(StartError::Other(anyhow::anyhow!("worker {index} panicked")));
            }
        }
        self.leases.thread().unpark();
        if self.leases.join().is_err() {
            outcome = Err(StartError::Other(anyhow::anyhow!("the thread that writes sequence leases panicked")));
        }
        outcome
    }
}

/// Serves signals and looks after the workers, until the node is to stop.
fn watch(node: &Running, signals: &Signals, threads: &Threads) -> Result<(), StartError> {
    let watchdog = notify::watchdog_interval();
    let mut told = Instant::now();
    loop {
        match signals.receiver().recv_timeout(watchdog.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL)) {
            Ok(Signal::Drain) => return Ok(()),
            Ok(Signal::Reload) => {
                notify::reloading();
                let message = node.reload().unwrap_or_else(|refused| refused);
                notify::ready(&message);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StartError::Other(anyhow::anyhow!("the thread that takes signals ended")));
            }
        }
        if node.is_draining() {
            return Ok(());
        }
        if let Some(worker) = threads.dead_worker() {
            return Err(StartError::Other(anyhow::anyhow!("worker {worker} ended unexpectedly")));
        }
        node.flush_program_log();
        if let Some(interval) = watchdog
            && told.elapsed() >= interval
        {
            match node.health() {
                Ok(()) => notify::watchdog(),
                Err(stalled) => error!("{stalled}"),
            }
            told = Instant::now();
        }
    }
}

/// Keeps sequence leases ahead of the workers.
fn spawn_leases(node: &std::sync::Arc<Running>) -> Result<JoinHandle<()>, StartError> {
    let node = node.clone();
    let body = move || {
        let mut failing = false;
        while !node.stop.load(Ordering::Acquire) {
            match node.extend_leases() {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    warn_lease(&error);
                }
                Err(_) => {}
            }
            std::thread::park_timeout(LEASE_INTERVAL);
        }
    };
    Builder::new().name("leases".into()).spawn(body).map_err(|error| StartError::Other(error.into()))
}

fn warn_lease(error: &lease::Error) {
    warn!("sequence leases cannot be written, and traffic will stop when those in use are used up: {error}");
}
