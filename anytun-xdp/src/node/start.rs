//! How a node starts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use tracing::{error, warn};

use super::StartError;
use super::datagrams::ServiceSockets;
use super::devices::Devices;
use super::groups::Groups;
use super::leases::Leases;
use super::path::PathErrors;
use super::reload::{Fixed, Reloads, steered};
use super::running::{Running, WorkerView};
use super::threads::Threads;
use crate::config::{self, Config, Scheduling};
use crate::control::health::Progress;
use crate::control::server::Listeners;
use crate::control::signals::{Handlers, Signals};
use crate::kernel::{HostError, IcmpErrors, Link, Mirror, PortSpec, Program, RealTime, Xsk, memory, privilege, queues};
use crate::table::{Host, Tables};

/// How long a worker may stand still before the node calls itself unhealthy; its longest sleep is a second.
const STALL: Duration = Duration::from_secs(10);

/// A node that carries traffic, and what ends it.
pub(super) struct Started {
    pub(super) node: Arc<Running>,
    pub(super) signals: Signals,
    pub(super) threads: Threads,
}

/// Starts a node: what the host may refuse is tried before sequence numbers are leased and a packet is steered.
pub(super) fn start(file: &Path) -> Result<Started, StartError> {
    let begin = Instant::now();
    let handlers = Handlers::install().context("installing signal handlers")?;
    let config = config::read(file)?;
    warn_of(&config);
    let prepared = Prepared::new(&config)?;
    let leases = Leases::open(&config, prepared.workers.len())?;
    let sequences = match leases.sequences(&config) {
        Ok(sequences) => sequences,
        Err(error) => {
            close_again(&leases);
            return Err(error.into());
        }
    };
    let Prepared {
        links,
        mirror,
        errors,
        program,
        program_id,
        sockets,
        service_sockets,
        workers,
        scheduling,
        listeners,
        devices,
    } = prepared;
    let host = Host {
        workers: workers.len(),
        mtus: links.iter().map(|link| link.mtu as usize).collect(),
        partial: links.iter().map(Link::may_hand_over_partial_checksums).collect(),
    };
    let tables = Tables::build(&config, &host, sequences, None);
    let node = Arc::new(Running {
        file: file.to_owned(),
        start: begin,
        host,
        groups: Groups::new(&tables),
        tables: Arc::new(ArcSwap::from_pointee(tables)),
        mirrored: mirror.shown(),
        workers,
        scheduling,
        asked: config.interfaces.iter().map(|interface| interface.xdp).collect(),
        links,
        umem_bytes: sockets.iter().map(Xsk::umem_octets).sum(),
        program_id,
        fixed: Fixed::of(&config),
        reloads: Reloads::default(),
        leases,
        sockets: service_sockets,
        devices: Devices::views(&config),
        administration: Mutex::default(),
        path_errors: PathErrors::default(),
        stop: AtomicBool::new(false),
        ready: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        program: Mutex::new(program),
        progress: Mutex::new(Progress::new(STALL)),
    });
    drop(config);
    memory::give_back();
    match launch(&node, handlers, listeners, mirror, errors, sockets, devices) {
        Ok((signals, threads)) => Ok(Started { node, signals, threads }),
        Err(error) => {
            node.detach();
            node.stop.store(true, Ordering::Release);
            close_again(&node.leases);
            Err(error)
        }
    }
}

/// Says in the log what deserves a word about a configuration.
pub(super) fn warn_of(config: &Config) {
    config::lines(&config.file, &config.warnings).for_each(|line| warn!("{line}"));
}

/// So that a start that failed uses up no sequence numbers. The failure itself is told by the caller.
fn close_again(leases: &Leases) {
    if let Err(error) = leases.close() {
        error!("{error}");
    }
}

/// All that the host may refuse.
struct Prepared {
    links: Vec<Link>,
    mirror: Mirror,
    errors: IcmpErrors,
    program: Program,
    program_id: u32,
    sockets: Vec<Xsk>,
    service_sockets: ServiceSockets,
    workers: Vec<WorkerView>,
    /// How workers can be scheduled.
    scheduling: Scheduling,
    listeners: Listeners,
    devices: Devices,
}

impl Prepared {
    fn new(config: &Config) -> Result<Self, StartError> {
        privilege::check()?;
        privilege::forbid_core_dumps()?;
        privilege::raise_locked_memory();
        privilege::raise_open_files();
        let scheduling = scheduling(config.node.scheduling);
        let find = |interface: &config::Interface| Link::find(&interface.name);
        let links = config.interfaces.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let queues = queues::common(&config.interfaces.iter().zip(&links).collect::<Vec<_>>())?;
        let sender_ids = config.sender_ids(queues.len())?;
        links.iter().try_for_each(Link::refuse_foreign_program)?;
        let mirror = Mirror::open(&links)?;
        let errors = IcmpErrors::open()?;
        let listeners = Listeners::bind(&config.node.control, config.node.metrics)?;
        let mut program = Program::load()?;
        for (slot, link) in links.iter().enumerate() {
            program.set_slot(link.ifindex, slot as u32)?;
        }
        let mut sockets = queues.iter().map(|&queue| open(config, &links, queue)).collect::<Result<Vec<_>, _>>()?;
        sockets.iter_mut().try_for_each(|xsk| program.set_sockets(xsk))?;
        let view = |(xsk, id)| view(xsk, id, links.len());
        let workers = sockets.iter().zip(sender_ids).map(view).collect::<Result<_, _>>()?;
        let devices = Devices::make(config, &links)?;
        Ok(Self {
            program_id: program.id()?,
            links,
            mirror,
            errors,
            program,
            sockets,
            service_sockets: ServiceSockets::new()?,
            workers,
            scheduling,
            listeners,
            devices,
        })
    }
}

/// How workers can be scheduled here. A host that refuses real time has a slower node, not none.
fn scheduling(asked: Scheduling) -> Scheduling {
    match asked {
        Scheduling::Fifo => match RealTime::begin() {
            Ok(_) => Scheduling::Fifo,
            Err(refused) => {
                warn!("{refused}; they run as any other thread, and carry less under overload");
                Scheduling::Other
            }
        },
        Scheduling::Other => Scheduling::Other,
    }
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

/// Steers packets, gives up all capabilities, and starts the threads.
fn launch(
    node: &Arc<Running>,
    handlers: Handlers,
    listeners: Listeners,
    mirror: Mirror,
    errors: IcmpErrors,
    sockets: Vec<Xsk>,
    devices: Devices,
) -> Result<(Signals, Threads), StartError> {
    node.program().steer(&steered(&node.tables.load()))?;
    for (link, &mode) in node.links.iter().zip(&node.asked) {
        node.program().attach(link, mode)?;
    }
    // When workers get what is theirs already, and while ports below 1024 may be bound.
    node.sockets.set(&node.tables.load().services);
    // Before capabilities go, as it keeps one, and before real time begins, as it takes none.
    let mirror = Threads::mirror(node, mirror)?;
    let local = devices.split().map(|devices| Threads::devices(node, devices)).transpose()?;
    let real_time = (node.scheduling == Scheduling::Fifo).then(RealTime::begin).transpose()?;
    // Before any other thread starts: each has capabilities of its own.
    privilege::drop_capabilities()?;
    let threads =
        Threads::start(node, (mirror, local), errors, sockets, real_time, || Ok(listeners.serve(node.clone())?))?;
    let signals = handlers.listen().context("starting the thread that takes signals")?;
    node.ready.store(true, Ordering::Release);
    Ok((signals, threads))
}
