//! What holds for all clients of a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
        let own = || network.local.iter().flat_map(|local| &local.addresses).map(|own| own.address);
        let sources = Sources {
            v4: own().find_map(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None }),
            v6: own().find_map(|address| if let IpAddr::V6(v6) = address { Some(v6) } else { None }),
        };
        Self { mss_clamp: network.mss_clamp && network.bridging.is_none(), sources }
    }
}

/// The node's own addresses as the clients of a network see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Without one, errors in IPv4 come from 192.0.0.8.
    pub v4: Option<Ipv4Addr>,
    /// Without one, errors in IPv6 come from the address of a service, or from one of link scope.
    pub v6: Option<Ipv6Addr>,
}
