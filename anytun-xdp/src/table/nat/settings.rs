//! What a NAT is told.

use std::net::IpAddr;

use crate::config::PortRange;

/// Sessions in all, at most.
pub const MOST_SESSIONS: usize = super::index::MOST;

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
        Self {
            address,
            ports,
            limits: Limits::of(ports),
            timers: Timers::default(),
            filtering: Filtering::default(),
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

impl Limits {
    /// Defaults: for each client 1,024 ports and 4,096 sessions, and in all six sessions for each port number, which are two
    /// for each port of each protocol.
    pub fn of(ports: PortRange) -> Self {
        Self { ports_per_client: 1024, sessions_per_client: 4096, sessions: 6 * ports.count() }
    }
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

/// From whom outside packets reach a port (RFC 4787 §5). Of TCP always as the strictest, since connections are followed one
/// by one (RFC 5382 REQ-3 leaves it open).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// From anybody.
    EndpointIndependent,
    /// From addresses that the client has sent to from that port.
    AddressDependent,
    /// From addresses and ports that the client has sent to from that port.
    #[default]
    AddressAndPortDependent,
}
