//! How a node starts, and what of it the control side keeps at hand.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use tracing::{error, info, warn};

use super::{StartError, plan, reload::Fixed};
use crate::config::{self, Config, XdpMode};
use crate::control::health::Progress;
use crate::control::server::Server;
use crate::control::signals::Signals;
use crate::control::status::Reload;
use crate::kernel::{HostError, Link, PortReport, PortSpec, Program, Waker, Xsk, XskStats, privilege};
use crate::satp::Fingerprint;
use crate::satp::lease::{self, Keeper};
use crate::table::{Host, Tables};
use crate::worker::{Worker, WorkerCounters};

/// How long a worker may stand still before the node calls itself unhealthy; its longest sleep is a second.
const STALL: Duration = Duration::from_secs(10);

/// A node that carries traffic.
pub(super) struct Started {
    pub(super) node: Arc<Running>,
    pub(super) signals: Signals,
    pub(super) server: Server,
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) wakers: Vec<Waker>,
}

/// What the control side knows of a running node.
pub(super) struct Running {
    pub(super) file: PathBuf,
    pub(super) start: Instant,
    pub(super) host: Host,
    pub(super) tables: Arc<ArcSwap<Tables>>,
    pub(super) workers: Vec<WorkerView>,
    /// By slot.
    pub(super) links: Vec<Link>,
    /// The mode asked for, by slot.
    pub(super) asked: Vec<XdpMode>,
    pub(super) umem_bytes: u64,
    /// Tells workers and the lease thread to end.
    pub(super) stop: AtomicBool,
    /// What a reload cannot change.
    pub(super) fixed: Fixed,
    program: Mutex<Program>,
    keeper: Mutex<Option<Keeper>>,
    /// Held while a configuration is put into force.
    reloading: Mutex<()>,
    progress: Mutex<Progress>,
    last_reload: Mutex<Option<Reload>>,
    ready: AtomicBool,
    draining: AtomicBool,
    leases_written: AtomicU64,
    exhausted_keys: AtomicU64,
}

/// A worker as the control side sees it.
pub(super) struct WorkerView {
    pub(super) counters: Arc<CachePadded<WorkerCounters>>,
    pub(super) sender_id: u16,
    /// By slot.
    pub(super) ports: Vec<PortReport>,
    pub(super) stats: XskStats,
}

/// Starts a node: what the host may refuse is tried before the first packet is steered.
pub(super) fn start(file: &Path) -> Result<Started, StartError> {
    let begin = Instant::now();
    let config = config::read(file)?;
    for warning in &config.warnings {
        warn!("{}:{}: {}", config.file.display(), warning.line, warning.message);
    }
    privilege::check()?;
    privilege::forbid_core_dumps()?;
    privilege::raise_locked_memory();
    let links = config.interfaces.iter().map(|interface| Link::find(&interface.name)).collect::<Result<Vec<_>, _>>()?;
    let queues = plan::queues(&config.interfaces.iter().zip(&links).collect::<Vec<_>>())?;
    let sender_ids = plan::sender_ids(&config, queues.len())?;

    let mut keeper =
        Keeper::open(&config.node.state_dir, config.node.sender_ids.first, config.node.sender_ids.last, queues.len())
            .context("opening the store of sequence leases")?;
    let host = Host { workers: queues.len(), mtus: links.iter().map(|link| link.mtu as usize).collect() };
    let sequences = keeper.sequences(&fingerprints(&config)).context("leasing sequence numbers")?;
    let tables = Tables::build(&config, &host, sequences, None);

    let mut program = Program::load()?;
    program.set_services(&tables.services.all().iter().map(crate::table::Service::key).collect::<Vec<_>>())?;
    for (slot, link) in links.iter().enumerate() {
        program.set_slot(link.ifindex, slot as u32)?;
    }
    let sockets = queues.iter().map(|&queue| open(&config, &links, queue)).collect::<Result<Vec<_>, _>>()?;
    for xsk in &sockets {
        for (slot, queue, socket) in xsk.sockets() {
            program.set_socket(slot, queue, socket)?;
        }
    }

    let tables = Arc::new(ArcSwap::from_pointee(tables));
    let views = sockets.iter().zip(sender_ids).map(|(xsk, id)| view(xsk, id, links.len())).collect::<Result<_, _>>()?;
    let node = Arc::new(Running {
        file: file.to_owned(),
        start: begin,
        host,
        tables: tables.clone(),
        workers: views,
        asked: config.interfaces.iter().map(|interface| interface.xdp).collect(),
        links,
        umem_bytes: sockets.iter().map(Xsk::umem_octets).sum(),
        stop: AtomicBool::new(false),
        fixed: Fixed::of(&config),
        program: Mutex::new(program),
        keeper: Mutex::new(Some(keeper)),
        reloading: Mutex::new(()),
        progress: Mutex::new(Progress::new(STALL)),
        last_reload: Mutex::new(None),
        ready: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        leases_written: AtomicU64::new(0),
        exhausted_keys: AtomicU64::new(0),
    });
    for (link, &mode) in node.links.iter().zip(&node.asked) {
        node.program().attach(link, mode)?;
    }
    // Before any thread starts: each has capabilities of its own.
    privilege::drop_capabilities()?;
    let signals = Signals::start().context("installing signal handlers")?;
    let server = Server::start(&config.node.control, config.node.metrics, node.clone())
        .context("starting the control interface")?;
    let wakers = sockets.iter().map(Xsk::waker).collect();
    let workers = spawn_workers(&node, tables, sockets)?;
    node.ready.store(true, Ordering::Release);
    Ok(Started { node, signals, server, workers, wakers })
}

/// The fingerprint of each client's key.
pub(super) fn fingerprints(config: &Config) -> Vec<Fingerprint> {
    config.clients.iter().map(|client| client.secret.fingerprint()).collect()
}

/// The sockets of the worker that owns `queue` of every interface.
fn open(config: &Config, links: &[Link], queue: u32) -> Result<Xsk, HostError> {
    let spec = |(interface, link): (&config::Interface, &Link)| {
        Some(PortSpec { link: link.clone(), queue, mode: interface.xdp })
    };
    Xsk::open(&config.interfaces.iter().zip(links).map(spec).collect::<Vec<_>>())
}

fn view(xsk: &Xsk, sender_id: u16, slots: usize) -> Result<WorkerView, HostError> {
    Ok(WorkerView {
        counters: Arc::default(),
        sender_id,
        ports: (0..slots).filter_map(|slot| xsk.port_report(slot).cloned()).collect(),
        stats: xsk.stats()?,
    })
}

fn spawn_workers(
    node: &Arc<Running>,
    tables: Arc<ArcSwap<Tables>>,
    sockets: Vec<Xsk>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let spawn = |(index, (xsk, view)): (usize, (Xsk, &WorkerView))| {
        let worker = Worker::new(index, xsk, tables.clone(), view.counters.clone());
        let node = node.clone();
        let body = move || worker.run(node.start, &node.stop);
        Builder::new().name(format!("worker-{index}")).spawn(body).context("starting a worker")
    };
    Ok(sockets.into_iter().zip(&node.workers).enumerate().map(spawn).collect::<Result<Vec<_>, _>>()?)
}

/// The value behind a lock. One that a panicking thread left is used as it is: what stands behind these locks is whole
/// between two calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    pub(super) fn name(&self) -> &str {
        &self.fixed.node.name
    }

    pub(super) fn program(&self) -> MutexGuard<'_, Program> {
        lock(&self.program)
    }

    /// Keeps two reloads apart.
    pub(super) fn reloading(&self) -> MutexGuard<'_, ()> {
        lock(&self.reloading)
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    pub(super) fn last_reload(&self) -> Option<Reload> {
        lock(&self.last_reload).clone()
    }

    pub(super) fn set_last_reload(&self, reload: Reload) {
        *lock(&self.last_reload) = Some(reload);
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

    /// Stops steering: from here on the kernel gets every packet.
    pub(super) fn detach(&self) {
        self.program().detach_all();
    }

    /// Does `work` with the store of leases, unless the node is past closing it.
    pub(super) fn with_keeper<T>(&self, work: impl FnOnce(&mut Keeper) -> T) -> Option<T> {
        lock(&self.keeper).as_mut().map(work)
    }

    /// Writes the leases that workers asked for.
    pub(super) fn extend_leases(&self) -> Result<(), lease::Error> {
        let Some(extension) = self.with_keeper(Keeper::extend).transpose()? else { return Ok(()) };
        self.leases_written.fetch_add(extension.extended as u64, Ordering::Relaxed);
        for exhausted in &extension.exhausted {
            self.exhausted_keys.fetch_add(1, Ordering::Relaxed);
            self.report_exhausted(&exhausted.key);
        }
        Ok(())
    }

    fn report_exhausted(&self, key: &Fingerprint) {
        let tables = self.tables.load();
        for client in tables.clients.iter().filter(|client| client.fingerprint == *key) {
            error!(
                client = &*client.name,
                "every sequence number of every sender ID of this node is used up for the client's key: traffic to it \
                 stops until it has a new key, or the node more `sender_ids`"
            );
        }
    }

    /// Leases written and keys exhausted since the start.
    pub(super) fn lease_counts(&self) -> (u64, u64) {
        (self.leases_written.load(Ordering::Relaxed), self.exhausted_keys.load(Ordering::Relaxed))
    }

    /// Notes which sequence numbers were really used. To be called once the workers have ended.
    pub(super) fn close_leases(&self) -> Result<(), StartError> {
        let Some(keeper) = lock(&self.keeper).take() else { return Ok(()) };
        keeper.close().context("closing the store of sequence leases")?;
        info!("sequence leases are written");
        Ok(())
    }
}
