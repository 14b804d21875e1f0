//! The threads that carry a node: noticed when they end too early, and not waited for without end when they are to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use crossbeam::channel::RecvTimeoutError;

use super::StartError;
use super::datagrams::Datagrams;
use super::devices::{Administration, Administrator};
use super::running::{Running, lock};
use super::slow::SlowPath;
use crate::control::server::Server;
use crate::control::signals::{Signal, Signals};
use crate::kernel::{IcmpErrors, Mirror, RealTime, Tun, Waker, Xsk};
use crate::worker::Worker;

/// How long threads may take to end; a worker gives the kernel a second to send what was handed over.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether they have.
const NAP: Duration = Duration::from_millis(10);

/// A thread with its name, and what ends its wait.
pub(super) type Started = (Thread, Waker);

/// A thread with what it is called.
pub(super) type Thread = (String, JoinHandle<()>);

/// All threads of a node but those that take signals.
pub(super) struct Threads {
    /// Workers and those beside them, with what they are called.
    threads: Vec<(String, JoinHandle<()>)>,
    wakers: Vec<Waker>,
    server: Server,
}

impl Threads {
    /// Starts what mirrors the kernel's routes.
    pub(super) fn mirror(node: &Arc<Running>, mirror: Mirror) -> Result<Started, StartError> {
        let (own, waker) = (node.clone(), mirror.waker());
        Ok((spawn("mirror".into(), move || mirror.run(&own.stop))?, waker))
    }

    /// Starts what sets up the devices of networks; returns it, and what is to move packets through them.
    pub(super) fn devices(
        node: &Running,
        (tuns, administration, administrator): (Vec<Tun>, Administration, Administrator),
    ) -> Result<(Thread, SlowPath), StartError> {
        let octets = node.host.mtus.iter().copied().max().unwrap_or(0);
        let slow = SlowPath::new(tuns, &node.devices, octets)?;
        *lock(&node.administration) = Some(administration);
        Ok((spawn("devices".into(), move || administrator.run())?, slow))
    }

    /// Starts the workers on their sockets, in real time if they are to be, and ahead of them what writes their sequence
    /// numbers: beside workers that never rest it would come too late. Then all others, of which `serve` starts the control
    /// side.
    pub(super) fn start(
        node: &Arc<Running>,
        ((mirror, waker), local): (Started, Option<(Thread, SlowPath)>),
        errors: IcmpErrors,
        sockets: Vec<Xsk>,
        real_time: Option<RealTime>,
        serve: impl FnOnce() -> Result<Server, StartError>,
    ) -> Result<Self, StartError> {
        let mut wakers: Vec<Waker> = sockets.iter().map(Xsk::waker).chain([waker, errors.waker()]).collect();
        let asker = sockets.first().map(Xsk::waker);
        let (administrator, mut slow) = local.unzip();
        let own = node.clone();
        let mut threads = vec![mirror, spawn("leases".into(), move || own.keep_leases())?];
        let mut datagrams = Datagrams::new(&node.workers);
        real_time.as_ref().map_or(Ok(()), RealTime::give_way)?;
        for (index, (xsk, view)) in sockets.into_iter().zip(&node.workers).enumerate() {
            let half = slow.as_mut().map(|slow| slow.add(xsk.waker()));
            let inlet = datagrams.add(xsk.waker());
            let mut worker = Worker::new(index, xsk, node.snapshots(), view.counters.clone());
            half.into_iter().for_each(|half| worker.connect(half));
            worker.receive_from(inlet);
            let own = node.clone();
            let body = move || worker.run(own.start, own.fixed.node.idle, own.scheduling, &own.stop);
            threads.push(spawn(format!("worker-{index}"), body)?);
        }
        drop(real_time);
        threads.extend(administrator);
        if let Some(slow) = slow {
            wakers.push(slow.waker());
            let own = node.clone();
            threads.push(spawn("slow-path".into(), move || slow.run(&own.stop))?);
        }
        wakers.push(node.sockets.waker());
        let own = node.clone();
        threads.push(spawn("datagrams".into(), move || datagrams.run(&own.sockets, &own.stop))?);
        let own = node.clone();
        threads.push(spawn("groups".into(), move || own.keep_groups(asker.as_ref()))?);
        let own = node.clone();
        threads.push(spawn("paths".into(), move || own.learn_paths(&errors))?);
        let server = serve()?;
        Ok(Self { threads, wakers, server })
    }

    /// Whether all of them live.
    ///
    /// # Errors
    ///
    /// Which of them ended although nobody told it to.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let dead = self.threads.iter().find(|(_, thread)| thread.is_finished()).map(|(name, _)| name.as_str());
        match dead.or_else(|| (!self.server.is_running()).then_some("control")) {
            None => Ok(()),
            Some(name) => Err(anyhow!("the thread {name} ended unexpectedly; the log may say why").into()),
        }
    }

    /// Ends them all. One that does not end is given up after a while, or when a signal asks again.
    ///
    /// # Errors
    ///
    /// Which of them hang or have panicked.
    pub(super) fn end(self, node: &Running, signals: &Signals) -> Result<(), StartError> {
        node.stop.store(true, Ordering::Release);
        // The thread behind it ends with it.
        drop(lock(&node.administration).take());
        self.wakers.iter().for_each(Waker::wake);
        self.threads.iter().for_each(|(_, thread)| thread.thread().unpark());
        let deadline = Instant::now() + PATIENCE;
        while self.threads.iter().any(|(_, thread)| !thread.is_finished()) && Instant::now() < deadline {
            match signals.next(NAP) {
                Ok(Signal::Drain) => break,
                Ok(Signal::Reload) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(NAP),
            }
        }
        self.server.stop();
        let fault = |(name, thread): (String, JoinHandle<()>)| match thread.is_finished() {
            false => Some(format!("{name} does not end")),
            true => thread.join().is_err().then(|| format!("{name} panicked")),
        };
        let faults: Vec<String> = self.threads.into_iter().filter_map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(anyhow!("of the threads {}", faults.join(", ")).into()) }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<(String, JoinHandle<()>), StartError> {
    let thread =
        Builder::new().name(name.clone()).spawn(body).with_context(|| format!("starting the thread {name}"))?;
    Ok((name, thread))
}
