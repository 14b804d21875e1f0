//! The table of contents of the program: what starts, in which order, and how it stops.

mod datagrams;
mod devices;
mod groups;
mod leases;
mod path;
mod reload;
mod report;
mod running;
mod slow;
mod start;
mod threads;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use crossbeam::channel::RecvTimeoutError;
use tracing::{error, info};

use self::running::Running;
use self::start::Started;
use self::threads::Threads;
use crate::config;
use crate::control::signals::{Signal, Signals};
use crate::control::source::Source;
use crate::control::{notify, server};
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
    /// A file or an address that it needs cannot be had.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<lease::Error> for StartError {
    fn from(error: lease::Error) -> Self {
        match error {
            lease::Error::Directory { .. } | lease::Error::Open { .. } | lease::Error::InUse { .. } => {
                Self::Unavailable(error.into())
            }
            lease::Error::Senders { .. } | lease::Error::Unreadable { .. } | lease::Error::Write { .. } => {
                Self::Other(error.into())
            }
        }
    }
}

impl From<server::Error> for StartError {
    fn from(error: server::Error) -> Self {
        match error {
            server::Error::Control(_) | server::Error::Metrics { .. } => Self::Unavailable(error.into()),
            server::Error::Thread(_) => Self::Other(error.into()),
        }
    }
}

/// How often the main thread looks after the others.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long a stop may take, beside the time in which routing moves away.
const STOP_TIME: Duration = Duration::from_secs(15);

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// Why it did not start, or which part of it failed while it ran.
pub fn run(file: &Path) -> Result<(), StartError> {
    let Started { node, signals, threads } = start::start(file)?;
    info!("{} is ready: {}", node.name(), report::summary(&node));
    notify::ready("carrying traffic");
    let outcome = watch(&node, &signals, &threads);

    if let Err(error) = &outcome {
        error!("{error}");
        notify::stopping("stopping after a failure", STOP_TIME);
    }
    node.set_draining();
    // Nothing new is steered from here on; the workers send what they have.
    node.detach();
    let ended = threads.end(&node, &signals);
    let closed = node.leases.close();
    info!("stopped");
    outcome.and(ended).and(closed)
}

/// Serves signals and looks after the threads, until traffic is to stop.
fn watch(node: &Running, signals: &Signals, threads: &Threads) -> Result<(), StartError> {
    let watchdog = notify::watchdog_interval();
    let mut told = Instant::now();
    let mut end: Option<Instant> = None;
    loop {
        let patience = watchdog.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL);
        let left = end.map_or(patience, |end| end.saturating_duration_since(Instant::now()));
        match signals.next(patience.min(left)) {
            Ok(Signal::Drain) if end.is_some() => return Ok(()),
            Ok(Signal::Drain) => node.set_draining(),
            Ok(Signal::Reload) => {
                notify::reloading();
                let message = node.reload().unwrap_or_else(|refused| refused);
                notify::ready(&message);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the thread that takes signals ended").into()),
        }
        if node.is_draining() && Instant::now() >= *end.get_or_insert_with(|| drain(node)) {
            return Ok(());
        }
        threads.check()?;
        node.free_retired();
        node.sweep();
        node.flush_program_log();
        if let Some(interval) = watchdog
            && told.elapsed() >= interval
        {
            match node.check_progress() {
                Ok(()) => notify::watchdog(),
                Err(stalled) => error!("{stalled}"),
            }
            told = Instant::now();
        }
    }
}

/// Says that the node drains; returns when it is to stop.
fn drain(node: &Running) -> Instant {
    let time = node.fixed.node.drain_time;
    match time.as_secs() {
        0 => info!("draining"),
        seconds => info!("draining: not ready any more, and traffic is carried for {seconds} s yet"),
    }
    notify::stopping("draining", time + STOP_TIME);
    Instant::now() + time
}
