//! One client as workers see it.

use std::net::IpAddr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::allowance::Allowance;
use super::counters::ClientCounters;
use super::endpoint::EndpointCell;
use super::nats::Members;
use super::path::PathMtu;
use crate::config::Prefix;
use crate::satp::lease::Sequences;
use crate::satp::window::Windows;
use crate::satp::{Fingerprint, Keys, Role, Shared, Suite, prefetch};

/// A client of one snapshot. What the configuration says stands here; what packets change is shared between snapshots.
///
/// The first cache line is what sealing takes, the second what opening takes besides.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Client {
    /// Expanded keys.
    pub keys: Keys,
    /// Where the client is.
    pub track: Shared<Track>,
    /// One block for each worker.
    pub counters: Shared<[ClientCounters]>,
    /// Sequence numbers of packets to the client, one source for each worker.
    pub sequences: Sequences,
    /// Index of the service, in [`Services::all`](super::Services::all).
    pub service: u32,
    /// The client's number under its service.
    pub mux: u16,
    /// The client's own role: the one whose keys protect its packets.
    pub role: Role,
    /// Replay windows.
    pub windows: Windows,
    /// What of the network is the client's.
    pub own: Own,
    /// Index of the network, in [`Tables::networks`](super::Tables::networks).
    pub network: u32,
    /// The client's name.
    pub name: Arc<str>,
    /// Cryptographic choices.
    pub suite: Suite,
    /// Identifies master key and salt.
    pub fingerprint: Fingerprint,
    /// What it has of the NATs of its network; nothing in a network without any.
    pub members: Option<Arc<Members>>,
}

/// Cache lines of a client that opening takes.
const TO_OPEN: usize = 2;
const _: () = {
    assert!(std::mem::offset_of!(Client, windows) == 64, "the first line is what sealing takes");
    assert!(std::mem::offset_of!(Client, name) <= 64 * TO_OPEN);
};

impl Client {
    /// Brings near what tells where the rest is that opening a packet takes.
    #[inline]
    pub fn prefetch_to_open(&self) {
        prefetch::slice(slice::from_ref(self), TO_OPEN);
    }

    /// Brings near what opening a packet of the client takes, when [`prefetch_to_open`](Self::prefetch_to_open) is done.
    #[inline]
    pub fn prefetch_opening(&self, worker: usize) {
        self.windows.prefetch();
        self.prefetch_both(worker);
    }

    /// Brings near what tells where the rest is that sealing a packet takes.
    #[inline]
    pub fn prefetch_to_seal(&self) {
        prefetch::slice(slice::from_ref(self), 1);
    }

    /// Brings near what sealing a packet for the client takes, when [`prefetch_to_seal`](Self::prefetch_to_seal) is done.
    #[inline]
    pub fn prefetch_sealing(&self, worker: usize) {
        if let Some(sequence) = self.sequences.get(worker) {
            sequence.prefetch();
        }
        self.prefetch_both(worker);
    }

    #[inline]
    fn prefetch_both(&self, worker: usize) {
        prefetch::slice(slice::from_ref(&*self.track), 1);
        if let Some(counters) = self.counters.get(worker) {
            prefetch::slice(slice::from_ref(counters), 1);
        }
        self.keys.prefetch();
    }
}

/// A host route of each family, zero without one: most clients send from no other address, and then nothing has to be looked
/// up. No longer prefix can be somebody else's, and zero is nobody's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Own {
    v6: [u8; 16],
    v4: [u8; 4],
}

impl Own {
    /// The first host routes among `prefixes`.
    pub fn new(prefixes: &[Prefix]) -> Self {
        let mut own = Self::default();
        for prefix in prefixes.iter().rev() {
            match prefix.address {
                IpAddr::V4(address) if prefix.length == 32 => own.v4 = address.octets(),
                IpAddr::V6(address) if prefix.length == 128 => own.v6 = address.octets(),
                _ => {}
            }
        }
        own
    }

    /// Whether an IPv4 address other than zero is the client's, as far as is known here.
    #[inline]
    pub fn has_v4(&self, address: [u8; 4]) -> bool {
        self.v4 == address
    }

    /// Whether an IPv6 address other than zero is the client's, as far as is known here.
    #[inline]
    pub fn has_v6(&self, address: [u8; 16]) -> bool {
        self.v6 == address
    }
}

/// What packets of a client change, whatever becomes of its keys and prefixes. What every packet reads stands in the first
/// cache line, as long as the client was heard from one place.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Track {
    /// When it was last heard, in milliseconds since the node started, plus 1; 0 when never.
    seen: AtomicU64,
    /// The path MTU to where the client is.
    pub path: PathMtu,
    /// Where the client is.
    pub endpoint: EndpointCell,
    /// In an IP network the ICMP errors to it, and to hosts outside about packets to it; in an Ethernet network its frames to
    /// everybody.
    pub allowance: Allowance,
}

// With the count of owners behind it two cache lines, at whose start a slot of that size lies.
const _: () = assert!(size_of::<Track>() <= 120);

impl Track {
    /// Notes that an authentic packet came `now` milliseconds after the node started.
    #[inline]
    pub fn heard(&self, now: u64) {
        let seen = now.saturating_add(1);
        if self.seen.load(Ordering::Relaxed) != seen {
            self.seen.store(seen, Ordering::Relaxed);
        }
    }

    /// When an authentic packet last came, in milliseconds after the node started.
    pub fn last_heard(&self) -> Option<u64> {
        self.seen.load(Ordering::Relaxed).checked_sub(1)
    }
}
