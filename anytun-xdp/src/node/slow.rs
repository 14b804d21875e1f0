//! The thread of the slow path: it moves packets between workers and the kernel.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tracing::error;

use super::devices::{DeviceCounters, DeviceView};
use crate::kernel::{HostError, Layer, Ready, Tun, Waker, Watch};
use crate::worker::slow::{Bell, Parcel, ThreadHalf, Way, WorkerHalf, flow, frame_flow, halves};

/// Packets that may wait between a worker and the thread, in each direction. One sender alone gets half of them.
const PARCELS: usize = 512;

/// Packets that are moved from one end before the next one has its turn.
const BURST: usize = 64;

/// The longest sleep: how late the thread notices what nobody wakes it for.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The slow path of a node.
pub(super) struct SlowPath {
    tuns: Vec<Tun>,
    counters: Vec<Arc<DeviceCounters>>,
    workers: Vec<ThreadHalf>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Octets of the largest packet.
    octets: usize,
    /// Keeps a sender from choosing whose share it uses up.
    key: RandomState,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl SlowPath {
    /// One with these devices, for packets of up to `octets`.
    pub(super) fn new(tuns: Vec<Tun>, views: &[DeviceView], octets: usize) -> Result<Self, HostError> {
        let waker = Waker::new()?;
        let own = waker.clone();
        let bell = Arc::new(Bell::new(move || own.wake()));
        let counters = views.iter().map(|view| view.counters.clone()).collect();
        let key = RandomState::new();
        Ok(Self { tuns, counters, workers: Vec::new(), bell, waker, octets, key })
    }

    /// What ends its wait.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Adds a worker, which `waker` wakes; returns its end.
    pub(super) fn add(&mut self, waker: Waker) -> WorkerHalf {
        let (own, half) = halves(PARCELS, self.octets, self.bell.clone(), Bell::new(move || waker.wake()));
        self.workers.push(half);
        own
    }

    /// Moves packets until `stop` is set and the waker is woken.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let Self { tuns, counters, workers, bell, waker, octets, key } = &mut self;
        let mut parcel = Parcel::new(*octets);
        let mut alive: Vec<usize> = (0..tuns.len()).collect();
        let mut watch = Watch::new(waker, &*tuns);
        while !stop.load(Ordering::Acquire) {
            let delivered = deliver(workers, tuns, counters);
            let taken = alive.iter().filter(|&&device| take(device, tuns, counters, workers, &mut parcel, key)).count();
            workers.iter_mut().for_each(ThreadHalf::flush);
            if delivered || taken > 0 {
                continue;
            }
            bell.doze();
            if workers.iter().all(ThreadHalf::is_empty) {
                watch.wait(LONGEST_SLEEP);
            }
            bell.rise();
            let places = 0..alive.len();
            let gone: Vec<usize> = places.filter(|&place| watch.ready(place) == Ready::Gone).collect();
            if !gone.is_empty() {
                for &place in gone.iter().rev() {
                    let name = tuns.get(alive.remove(place)).map_or("", Tun::name);
                    error!(
                        "the device {name} was deleted, and its network is no longer connected with this host; restart the node"
                    );
                }
                watch = Watch::new(waker, alive.iter().filter_map(|&device| tuns.get(device)));
            }
        }
    }
}

/// Gives the kernel what workers handed over; says whether that was anything.
fn deliver(workers: &mut [ThreadHalf], tuns: &[Tun], counters: &[Arc<DeviceCounters>]) -> bool {
    let mut any = false;
    for worker in workers {
        for _ in 0..BURST {
            let Some(parcel) = worker.take() else { break };
            any = true;
            if let Way::Device(device) = parcel.way()
                && let (Some(tun), Some(counters)) = (tuns.get(device as usize), counters.get(device as usize))
            {
                let sent = tun.send(parcel.packet());
                count(if sent.is_ok() { &counters.delivered } else { &counters.refused });
            }
            worker.give_back(parcel);
        }
    }
    any
}

/// Hands over to workers what the kernel sends through a device; says whether that was anything. Packets between two
/// addresses go to the same worker, so that they stay in order.
fn take(
    device: usize,
    tuns: &[Tun],
    counters: &[Arc<DeviceCounters>],
    workers: &mut [ThreadHalf],
    parcel: &mut Parcel,
    key: &RandomState,
) -> bool {
    let (Some(tun), Some(counters)) = (tuns.get(device), counters.get(device)) else { return false };
    let mut any = false;
    for _ in 0..BURST {
        let Ok(Some(length)) = tun.receive(parcel.memory()) else { break };
        any = true;
        parcel.set(Way::Device(device as u32), length);
        let flow = match tun.layer() {
            Layer::Ip => flow(parcel.packet(), key),
            Layer::Ethernet => frame_flow(parcel.packet(), key),
        };
        let (flow, count_of_workers) = (flow as usize, workers.len().max(1));
        let (place, sender) = (flow % count_of_workers, flow / count_of_workers);
        let sent = workers.get_mut(place).map(|worker| worker.send(parcel, sender as u32));
        count(if sent.is_some_and(|sent| sent.is_ok()) { &counters.injected } else { &counters.overrun });
    }
    any
}
