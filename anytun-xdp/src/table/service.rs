//! Services by address and port, and their clients by MUX.

use std::net::IpAddr;
use std::sync::Arc;

use anytun_common::map::{FEW, ServiceKey};
use anytun_common::wire::mapped;
use hashbrown::HashMap;

use super::NOBODY;
use crate::config;
use crate::satp::{Pages, prefetch};

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// The service's name.
    pub name: Arc<str>,
    /// The anycast address, an IPv4 one mapped.
    pub address: [u8; 16],
    /// The UDP port.
    pub port: u16,
    /// Whether outgoing IPv4 packets carry a UDP checksum.
    pub udp_checksum: config::UdpChecksum,
    /// Client number by MUX, [`NOBODY`] where there is none.
    clients: Pages<u32>,
    /// How many MUXes are given.
    count: usize,
}

impl Service {
    /// A service without clients.
    pub fn new(service: &config::Service) -> Self {
        Self {
            name: service.name.as_str().into(),
            address: octets(service.address),
            port: service.port,
            udp_checksum: service.udp_checksum,
            clients: vec![NOBODY; usize::from(u16::MAX) + 1].into(),
            count: 0,
        }
    }

    /// The client that has `mux`.
    #[inline]
    pub fn client(&self, mux: u16) -> Option<u32> {
        self.clients.get(usize::from(mux)).copied().filter(|&client| client != NOBODY)
    }

    /// Brings near what [`client`](Self::client) reads.
    #[inline]
    pub fn prefetch_client(&self, mux: u16) {
        if let Some(client) = self.clients.get(usize::from(mux)) {
            prefetch::value(client);
        }
    }

    /// Gives `mux` to a client.
    pub(super) fn set_client(&mut self, mux: u16, client: u32) {
        let old = std::mem::replace(&mut self.clients[usize::from(mux)], client);
        self.count += usize::from(old == NOBODY);
    }

    /// What packets for this service are addressed to.
    pub fn key(&self) -> ServiceKey {
        ServiceKey::new(self.address, self.port)
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no client has a MUX here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An address in the form of tables and packets: an IPv4 one mapped.
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The services of a node.
#[derive(Clone, Debug, Default)]
pub struct Services {
    by_key: HashMap<ServiceKey, u32>,
    keys: Vec<ServiceKey>,
    list: Vec<Service>,
}

impl Services {
    /// Adds a service; its index is the number of services before.
    pub(super) fn push(&mut self, service: Service) {
        self.by_key.insert(service.key(), self.list.len() as u32);
        self.keys.push(service.key());
        self.list.push(service);
    }

    /// The service that a packet is addressed to.
    #[inline]
    pub fn find(&self, key: &ServiceKey) -> Option<&Service> {
        self.list.get(self.position(key)? as usize)
    }

    /// The place of that service in [`all`](Self::all).
    #[inline(always)]
    pub fn position(&self, key: &ServiceKey) -> Option<u32> {
        // Most nodes have few, and to compare is quicker than to hash.
        if self.keys.len() <= FEW {
            let address = u128::from_ne_bytes(key.address);
            let is_it =
                |service: &ServiceKey| u128::from_ne_bytes(service.address) == address && service.port == key.port;
            return self.keys.iter().position(is_it).map(|at| at as u32);
        }
        self.by_key.get(key).copied()
    }

    /// All services, in the order of the configuration.
    pub fn all(&self) -> &[Service] {
        &self.list
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Service> {
        self.list.get_mut(index)
    }
}
