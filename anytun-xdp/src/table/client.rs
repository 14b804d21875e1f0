//! One client as workers see it.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::counters::ClientCounters;
use super::endpoint::EndpointCell;
use crate::satp::lease::Sequence;
use crate::satp::prefetch;
use crate::satp::window::Windows;
use crate::satp::{Fingerprint, Keys, Role, Suite};

/// A client of one snapshot. What the configuration says stands here; what packets change is shared between snapshots.
#[derive(Clone)]
pub struct Client {
    /// Expanded keys.
    pub keys: Keys,
    /// The client's own role: the one whose keys protect its packets.
    pub role: Role,
    /// Index of the service, in [`Services::all`](super::Services::all).
    pub service: u32,
    /// Index of the network, in [`Tables::networks`](super::Tables::networks).
    pub network: u32,
    /// The client's number under its service.
    pub mux: u16,
    /// Replay windows.
    pub windows: Arc<Windows>,
    /// Endpoint and counters.
    pub track: Arc<Track>,
    /// Sequence numbers of packets to the client, one source for each worker.
    pub sequences: Arc<[CachePadded<Sequence>]>,
    /// The client's name.
    pub name: Arc<str>,
    /// Cryptographic choices.
    pub suite: Suite,
    /// Identifies master key and salt.
    pub fingerprint: Fingerprint,
}

impl Client {
    /// Brings near what opening a packet of the client takes. Its record itself should be near.
    #[inline]
    pub fn prefetch_to_open(&self) {
        self.keys.prefetch();
        prefetch::value(&*self.windows);
        prefetch::value(&*self.track);
    }

    /// Brings near what sealing a packet for the client takes. Its record itself should be near.
    #[inline]
    pub fn prefetch_to_seal(&self, worker: usize) {
        self.keys.prefetch();
        prefetch::value(&*self.track);
        if let Some(sequence) = self.sequences.get(worker) {
            prefetch::value(sequence);
        }
    }
}

/// What packets change, whatever becomes of the client's keys and prefixes.
#[derive(Debug)]
pub struct Track {
    /// Where the client is.
    pub endpoint: EndpointCell,
    /// When it was last heard, in milliseconds since the node started, plus 1; 0 when never.
    seen: AtomicU64,
    /// One block for each worker.
    pub counters: Box<[ClientCounters]>,
}

impl Track {
    /// A client not heard from yet.
    pub fn new(workers: usize) -> Self {
        Self {
            endpoint: EndpointCell::default(),
            seen: AtomicU64::new(0),
            counters: (0..workers).map(|_| ClientCounters::default()).collect(),
        }
    }

    /// Notes that an authentic packet came `now` milliseconds after the node started.
    #[inline]
    pub fn heard(&self, now: u64) {
        let seen = now.saturating_add(1);
        if self.seen.load(Ordering::Relaxed) != seen {
            self.seen.store(seen, Ordering::Relaxed);
        }
    }

    /// Brings near what `worker` counts of every packet, when `self` itself is near.
    #[inline]
    pub fn prefetch_counters(&self, worker: usize) {
        if let Some(counters) = self.counters.get(worker) {
            prefetch::slice(slice::from_ref(counters), 1);
        }
    }

    /// When an authentic packet last came, in milliseconds after the node started.
    pub fn last_heard(&self) -> Option<u64> {
        self.seen.load(Ordering::Relaxed).checked_sub(1)
    }
}
