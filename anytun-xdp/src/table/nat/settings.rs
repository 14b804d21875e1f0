//! What a NAT is told.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::{self, PortRange};

pub use crate::config::Filtering;

/// Sessions in all, at most.
pub const MOST_SESSIONS: usize = super::index::MOST;

/// Sessions in all, for each port number: two for each port of each protocol.
const SESSIONS_PER_PORT: usize = 6;

/// What a NAT does, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The address outside: clients' packets leave with it. Its family is the one that is translated.
    pub address: IpAddr,
    /// The ports of this node at that address: UDP ports, TCP ports, and ICMP identifiers.
    pub ports: PortRange,
    /// How much there is.
    pub limits: Limits,
    /// How long it lasts.
    pub timers: Timers,
    /// Who outside may answer.
    pub filtering: Filtering,
    /// Whether packets from outside keep a session alive. Clients' packets always do (RFC 4787 REQ-6).
    pub inbound_refreshes: bool,
}

impl Settings {
    /// The defaults for an address and its ports.
    pub fn new(address: IpAddr, ports: PortRange) -> Self {
        config::Nat::new(address, ports).into()
    }
}

impl Settings {
    /// Whether a NAT with these settings can be [adjusted](super::Nat::adjust) to others: it has the same ports and tables, and
    /// what stands in them means the same.
    pub fn differ_little(&self, other: &Self) -> bool {
        self.without_adjustable() == other.without_adjustable()
    }

    fn without_adjustable(mut self) -> Self {
        (self.limits.ports_per_client, self.limits.sessions_per_client, self.timers.udp) = (0, 0, 0);
        self
    }
}

/// The settings that may change while all that is lent stays as it is.
#[derive(Debug)]
pub(super) struct Adjustable {
    ports_per_client: AtomicU32,
    sessions_per_client: AtomicU32,
    udp: AtomicU32,
}

impl Adjustable {
    pub(super) fn new(Settings { limits, timers, .. }: &Settings) -> Self {
        Self {
            ports_per_client: limits.ports_per_client.into(),
            sessions_per_client: limits.sessions_per_client.into(),
            udp: timers.udp.into(),
        }
    }

    pub(super) fn set(&self, Settings { limits, timers, .. }: &Settings) {
        self.ports_per_client.store(limits.ports_per_client, Ordering::Relaxed);
        self.sessions_per_client.store(limits.sessions_per_client, Ordering::Relaxed);
        self.udp.store(timers.udp, Ordering::Relaxed);
    }

    /// Ports that a client may have.
    #[inline]
    pub(super) fn ports_per_client(&self) -> u32 {
        self.ports_per_client.load(Ordering::Relaxed)
    }

    /// Sessions that a client may have.
    #[inline]
    pub(super) fn sessions_per_client(&self) -> u32 {
        self.sessions_per_client.load(Ordering::Relaxed)
    }

    /// Seconds of a UDP session.
    #[inline]
    pub(super) fn udp(&self) -> u32 {
        self.udp.load(Ordering::Relaxed)
    }
}

impl From<config::Nat> for Settings {
    fn from(nat: config::Nat) -> Self {
        let config::Nat { address, ports, filtering, ports_per_client, sessions_per_client, udp_timeout } = nat;
        Self {
            address,
            ports,
            limits: Limits { ports_per_client, sessions_per_client, sessions: SESSIONS_PER_PORT * ports.count() },
            timers: Timers { udp: udp_timeout, ..Timers::default() },
            filtering,
            inbound_refreshes: false,
        }
    }
}

/// How many there may be at once (RFC 6888 REQ-4). Mappings in all are limited by the ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Ports of one client, of all protocols, those that rest after their last use included.
    pub ports_per_client: u32,
    /// Sessions of one client: pairs of a port and somebody outside.
    pub sessions_per_client: u32,
    /// Sessions in all, at most [`MOST_SESSIONS`].
    pub sessions: usize,
}

/// Seconds without a packet of the client after which things end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// UDP (RFC 4787 REQ-5).
    pub udp: u32,
    /// TCP connections that both ends have opened (RFC 5382 REQ-5).
    pub tcp_established: u32,
    /// TCP connections that are being opened, are closed, or were reset (RFC 5382 REQ-5, RFC 7857 §2).
    pub tcp_transitory: u32,
    /// ICMP queries (RFC 5508 REQ-2).
    pub icmp: u32,
    /// How long a port rests after its last session before anybody gets it (RFC 6888 REQ-8).
    pub rest: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self { udp: 300, tcp_established: 7440, tcp_transitory: 240, icmp: 60, rest: 120 }
    }
}
