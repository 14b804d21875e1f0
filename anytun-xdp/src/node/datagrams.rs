//! What the kernel receives for services, outer fragments above all: the sockets, and the thread that hands datagrams over to
//! workers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::Header;
use anytun_common::wire::{ethernet, unmapped};
use arc_swap::ArcSwap;
use tracing::warn;

use super::running::WorkerView;
use crate::control::status::Counts;
use crate::kernel::{HostError, ServiceSocket, Waker};
use crate::table::Services;
use crate::worker::datagram::{enclose, head};
use crate::worker::slow::{Bell, Feed, Inlet, Parcel, Way, flow, inlet};

/// Datagrams that may wait for a worker. One sender alone gets half of them.
const PARCELS: usize = 128;

/// Datagrams that are taken from one socket before the next one has its turn.
const BURST: usize = 64;

/// The longest sleep: how late the thread notices what nobody wakes it for.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The sockets of services, and what became of their datagrams.
pub(super) struct ServiceSockets {
    open: ArcSwap<Vec<Arc<ServiceSocket>>>,
    waker: Waker,
    taken: AtomicU64,
    overrun: AtomicU64,
    over_share: AtomicU64,
    too_large: AtomicU64,
}

impl ServiceSockets {
    /// None is open yet.
    pub(super) fn new() -> Result<Self, HostError> {
        Ok(Self {
            open: ArcSwap::default(),
            waker: Waker::new()?,
            taken: AtomicU64::new(0),
            overrun: AtomicU64::new(0),
            over_share: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
        })
    }

    /// Opens sockets for services that have none, and closes those of services that are no more. The node works without one,
    /// so of each that cannot be had the log tells what that means.
    pub(super) fn set(&self, services: &Services) {
        let before = self.open.load_full();
        let before: HashMap<SocketAddr, &Arc<ServiceSocket>> =
            before.iter().map(|socket| (socket.at(), socket)).collect();
        let open = services.all().iter().filter_map(|service| {
            let address = unmapped(service.address)
                .map_or_else(|| IpAddr::from(Ipv6Addr::from(service.address)), |v4| Ipv4Addr::from(v4).into());
            let at = SocketAddr::new(address, service.port);
            match before.get(&at) {
                Some(socket) => Some(Arc::clone(socket)),
                None => ServiceSocket::bind(at).map(Arc::new).map_err(|error| not_bound(&service.name, &error)).ok(),
            }
        });
        self.open.store(Arc::new(open.collect()));
        self.waker.wake();
    }

    /// What ends the wait of the thread.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Datagrams by what became of them.
    pub(super) fn counts(&self) -> Counts {
        let counts = [
            ("taken", &self.taken),
            ("overrun", &self.overrun),
            ("over-share", &self.over_share),
            ("too-large", &self.too_large),
        ];
        counts.map(|(what, count)| (Cow::from(what), count.load(Ordering::Relaxed))).into()
    }
}

fn not_bound(service: &str, error: &HostError) {
    warn!("service {service}: {error}; packets for it that arrive in fragments are lost until the node has that port");
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The thread's part.
pub(super) struct Datagrams {
    workers: Vec<Feed>,
    /// Octets of the largest frame that workers can hold.
    octets: usize,
    /// Keeps a sender from choosing whose share it uses up.
    key: RandomState,
}

impl Datagrams {
    /// For workers with these sockets.
    pub(super) fn new(workers: &[WorkerView]) -> Self {
        let rooms = workers.iter().flat_map(|worker| &worker.ports).map(|port| port.frame_room as usize);
        Self { workers: Vec::new(), octets: rooms.min().unwrap_or(0), key: RandomState::new() }
    }

    /// Adds a worker, which `waker` wakes; returns its end.
    pub(super) fn add(&mut self, waker: Waker) -> Inlet {
        // Few nodes see a fragment, so parcels get their memory when there is one.
        let (own, feed) = inlet(PARCELS, 0, Bell::new(move || waker.wake()));
        self.workers.push(feed);
        own
    }

    /// Hands datagrams over until `stop` is set and the waker is woken.
    pub(super) fn run(mut self, sockets: &ServiceSockets, stop: &AtomicBool) {
        let mut parcel = Parcel::new(0);
        while !stop.load(Ordering::Acquire) {
            let open = sockets.open.load_full();
            for place in ServiceSocket::await_any(&sockets.waker, &open, LONGEST_SLEEP) {
                let Some(socket) = open.get(place) else { continue };
                for _ in 0..BURST {
                    if !self.hand_over(socket, sockets, &mut parcel) {
                        break;
                    }
                }
                self.workers.iter_mut().for_each(Feed::flush);
            }
        }
    }

    /// Hands the next datagram of a socket over; says whether there was one. Packets of one sender go to the same worker, so
    /// that they stay in order.
    fn hand_over(&mut self, socket: &ServiceSocket, sockets: &ServiceSockets, parcel: &mut Parcel) -> bool {
        let at = socket.at();
        let head = head(at.is_ipv4());
        parcel.grow(self.octets);
        let Ok(Some(arrived)) = socket.receive(parcel.memory().get_mut(head..).unwrap_or_default()) else {
            return false;
        };
        let length = head + arrived.octets;
        let framed = parcel.memory().get_mut(..length);
        if framed.and_then(|frame| enclose(frame, arrived.from, at, arrived.tos)).is_none() {
            count(&sockets.too_large);
            return true;
        }
        parcel.set(Way::Service, length);
        let network = parcel.packet().get(ethernet::HEADER..).unwrap_or_default();
        let place = flow(network, &self.key) as usize % self.workers.len().max(1);
        let sender = sender(arrived.from, parcel.packet(), head, &self.key);
        let sent = self.workers.get_mut(place).map(|worker| worker.send(parcel, sender));
        count(match sent {
            Some(Ok(())) => &sockets.taken,
            Some(Err(Verdict::SlowPathShare)) => &sockets.over_share,
            _ => &sockets.overrun,
        });
        true
    }
}

/// A number of whoever sent a datagram whose payload begins at `head`: of its outer address and port and its MUX.
fn sender(from: SocketAddr, frame: &[u8], head: usize, key: &RandomState) -> u32 {
    let mux = Header::read(frame, head).map_or(0, |header| header.mux);
    key.hash_one((from.ip(), from.port(), mux)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_told_apart_by_address_port_and_mux_and_by_nothing_else() {
        let keys: Vec<RandomState> = (0..64).map(|_| RandomState::new()).collect();
        let number = |from: &str, mux: u8, sequence: u8| {
            let from: SocketAddr = from.parse().expect("an address");
            let head = head(from.is_ipv4());
            let mut frame = vec![0; head];
            frame.extend_from_slice(&[0, 0, 0, sequence, 0, 7, 0, mux]);
            keys.iter().map(|key| sender(from, &frame, head, key) as u8).collect::<Vec<_>>()
        };
        for (one, port, address) in [
            ("198.51.100.7:4444", "198.51.100.7:4445", "198.51.100.8:4444"),
            ("[2001:db8::7]:4444", "[2001:db8::7]:4445", "[2001:db8::8]:4444"),
        ] {
            assert_eq!(number(one, 1, 1), number(one, 1, 2));
            for other in [number(one, 2, 1), number(port, 1, 1), number(address, 1, 1)] {
                let alike = number(one, 1, 1).iter().zip(&other).filter(|(a, b)| a == b).count();
                assert!(alike < 8, "one of 256 by chance: {alike} of 64");
            }
        }
        // What is too short to have a MUX is somebody's, too.
        sender("198.51.100.7:4444".parse().expect("an address"), &[0; 42], 42, &keys[0]);
    }
}
