//! What the control side of a running node keeps at hand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

use super::datagrams::ServiceSockets;
use super::devices::{Administration, DeviceView};
use super::groups::Groups;
use super::leases::Leases;
use super::path::PathErrors;
use super::reload::{Fixed, Reloads};
use crate::config::{Scheduling, XdpMode};
use crate::control::health::Progress;
use crate::kernel::{Link, Mirrored, PortReport, Program, XskStats};
use crate::table::{Host, Tables};
use crate::worker::{Snapshots, WorkerCounters};

/// A node that carries traffic.
pub(super) struct Running {
    pub(super) file: PathBuf,
    pub(super) start: Instant,
    pub(super) host: Host,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) mirrored: Mirrored,
    /// Who is a member of which group by having joined it.
    pub(super) groups: Groups,
    pub(super) workers: Vec<WorkerView>,
    /// By slot.
    pub(super) links: Vec<Link>,
    /// The mode asked for, by slot.
    pub(super) asked: Vec<XdpMode>,
    pub(super) umem_bytes: u64,
    /// The kernel's number of the program.
    pub(super) program_id: u32,
    /// How workers are scheduled.
    pub(super) scheduling: Scheduling,
    /// What a reload cannot change.
    pub(super) fixed: Fixed,
    pub(super) reloads: Reloads,
    pub(super) leases: Leases,
    /// Those by which the kernel hands over what it receives for services.
    pub(super) sockets: ServiceSockets,
    pub(super) devices: Vec<DeviceView>,
    /// Changes the devices; nothing without one, and when the node stops.
    pub(super) administration: Mutex<Option<Administration>>,
    pub(super) path_errors: PathErrors,
    /// Tells all threads but those of the control side to end.
    pub(super) stop: AtomicBool,
    pub(super) ready: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) program: Mutex<Program>,
    pub(super) progress: Mutex<Progress>,
}

/// A worker as the control side sees it.
pub(super) struct WorkerView {
    pub(super) counters: Arc<CachePadded<WorkerCounters>>,
    pub(super) sender_id: u16,
    /// By slot.
    pub(super) ports: Vec<PortReport>,
    pub(super) stats: XskStats,
}

/// The value behind a lock. One that a panicking thread left is used as it is: what stands behind these locks is whole
/// between two calls.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// What workers look up.
    pub(super) fn snapshots(&self) -> Snapshots {
        let Mirrored { ways, asks, .. } = self.mirrored.clone();
        Snapshots { tables: self.tables.clone(), ways, asks, snoop: self.groups.snoop.clone() }
    }

    pub(super) fn name(&self) -> &str {
        &self.fixed.node.name
    }

    pub(super) fn program(&self) -> MutexGuard<'_, Program> {
        lock(&self.program)
    }

    /// Whether every worker makes progress.
    ///
    /// # Errors
    ///
    /// Which does not.
    pub(super) fn check_progress(&self) -> Result<(), String> {
        let turns = self.workers.iter().map(|worker| worker.counters.turns());
        lock(&self.progress).observe(turns, Instant::now())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Passes on what the XDP program logged.
    pub(super) fn flush_program_log(&self) {
        self.program().flush_log();
    }

    /// Takes away what has ended in the NATs, and MAC addresses that were not heard for long, and finds the ways to clients
    /// that are only expected. To be called about once a second.
    pub(super) fn sweep(&self) {
        let now = self.start.elapsed();
        let tables = self.tables.load();
        tables.expect(&self.mirrored.ways.load(), &self.mirrored.asks);
        for behind in tables.nats.all() {
            behind.nat().sweep(usize::MAX, now.as_millis() as u64);
        }
        for bridge in tables.bridges.iter().flatten() {
            bridge.age(u32::try_from(now.as_secs()).unwrap_or(u32::MAX));
        }
    }

    /// Stops steering: from here on the kernel gets every packet.
    pub(super) fn detach(&self) {
        self.program().detach_all();
    }
}
