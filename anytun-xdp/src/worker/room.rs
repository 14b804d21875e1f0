//! How large the packets may be that go to a client.

use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use anytun_common::wire::{ipv4, ipv6, udp};

use crate::table::{Client, Endpoint, Tables};

/// The sizes of the way to one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// Octets of the largest IP packet that the interface sends.
    pub(super) interface: usize,
    /// Octets of the largest IP packet that every link on the way takes, as far as is known.
    pub(super) path: usize,
    /// What is around an inner packet.
    around: usize,
}

impl Room {
    /// The way to `client`, which is at `endpoint`; nothing when the endpoint's interface is gone.
    #[inline]
    pub(super) fn new(client: &Client, endpoint: &Endpoint, tables: &Tables, now: u64) -> Option<Self> {
        let interface = *tables.mtus.get(usize::from(endpoint.slot()))?;
        let told = client.track.path.get(endpoint.address(), now);
        let path = told.map_or(interface, |told| interface.min(told.into()));
        let network = if endpoint.is_v4() { ipv4::HEADER } else { ipv6::HEADER };
        let around = network + udp::HEADER + HEADER + PAYLOAD_TYPE + client.keys.tag();
        Some(Self { interface, path, around })
    }

    /// The way to where a client is now, if it was heard from.
    pub(super) fn to(client: &Client, tables: &Tables, now: u64) -> Option<Self> {
        Self::new(client, &client.track.endpoint.load()?, tables, now)
    }

    /// Octets of the largest inner packet.
    #[inline]
    pub(super) fn inner(&self) -> usize {
        self.path.saturating_sub(self.around)
    }

    /// Whether the interface sends an inner packet of `length` octets, whatever links behind it do.
    #[inline]
    pub(super) fn leaves(&self, length: usize) -> bool {
        length + self.around <= self.interface
    }
}
