//! What holds for all clients of a network.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::Network;

/// What holds for all clients of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Whether TCP is made to announce segments that fit the way.
    pub mss_clamp: bool,
    /// What ICMP errors come from.
    pub sources: Sources,
}

impl Policy {
    /// That of a network of the configuration.
    pub fn of(network: &Network) -> Self {
        Self { mss_clamp: network.mss_clamp && network.bridging.is_none(), sources: Sources::default() }
    }
}

/// The node's own addresses as the clients of a network see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Without one, errors in IPv4 come from 192.0.0.8.
    pub v4: Option<Ipv4Addr>,
    /// Without one, errors in IPv6 come from the address of the client's service, if that is one.
    pub v6: Option<Ipv6Addr>,
}
