//! From a configuration to the tables that workers read, keeping what packets taught the tables before.

use std::sync::Arc;

use anytun_common::map::ServiceKey;
use crossbeam::utils::CachePadded;
use hashbrown::HashMap;

use super::{Client, Lpm, Service, Services, Tables, Track};
use crate::config::{self, Config};
use crate::satp::lease::Sequence;
use crate::satp::window::Windows;
use crate::satp::{Fingerprint, Keys, Role};

/// What the tables need to know of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Number of workers.
    pub workers: usize,
    /// Octets of the largest IP packet an interface sends, by slot.
    pub mtus: Vec<usize>,
}

impl Tables {
    /// Builds the tables of `config`. A client that `before` knows by name and service keeps its endpoint and counters. One
    /// that `before` knows by key, MUX and role keeps its replay windows, whatever it is called now: a number seen before
    /// stays seen. `sequences` are those of each client's key, in the order of the configuration, and for each one per
    /// worker.
    pub fn build(
        config: &Config,
        host: &Host,
        sequences: Vec<Arc<[CachePadded<Sequence>]>>,
        before: Option<&Tables>,
    ) -> Tables {
        let known = Known::new(before);
        let mut tables = Tables {
            generation: before.map_or(1, |tables| tables.generation + 1),
            services: Services::default(),
            clients: Vec::with_capacity(config.clients.len()),
            networks: config.networks.iter().map(|_| Lpm::default()).collect(),
            network_names: config.networks.iter().map(|network| network.name.as_str().into()).collect(),
            mtus: host.mtus.clone(),
        };
        for service in &config.services {
            tables.services.push(Service::new(service));
        }
        for (client, sequences) in config.clients.iter().zip(sequences) {
            let fingerprint = client.secret.fingerprint();
            let service = tables.services.all().get(client.service).map(Service::key);
            let (keys, windows) = known.cryptography(client, fingerprint);
            tables.push(
                Client {
                    keys,
                    role: client.role.opposite(),
                    service: client.service as u32,
                    network: client.network as u32,
                    mux: client.mux,
                    windows,
                    track: known.track(&client.name, service).unwrap_or_else(|| Arc::new(Track::new(host.workers))),
                    sequences,
                    name: client.name.as_str().into(),
                    suite: client.crypto,
                    fingerprint,
                },
                &client.prefixes,
            );
        }
        tables
    }

    /// These tables with empty replay windows for the client `name`: whatever it sends next is its first packet. Nothing
    /// when no client is called so.
    pub fn forgetting(&self, name: &str) -> Option<Tables> {
        let number = self.clients.iter().position(|client| &*client.name == name)?;
        let mut tables = self.clone();
        let client = tables.clients.get_mut(number)?;
        client.windows = Arc::new(Windows::new(client.windows.size()));
        Some(tables)
    }

    fn push(&mut self, client: Client, prefixes: &[config::Prefix]) {
        let number = self.clients.len() as u32;
        if let Some(service) = self.services.get_mut(client.service as usize) {
            service.set_client(client.mux, number);
        }
        if let Some(network) = self.networks.get_mut(client.network as usize) {
            for prefix in prefixes {
                network.insert(*prefix, number);
            }
        }
        self.clients.push(client);
    }
}

/// The clients of the tables before.
struct Known<'a> {
    services: &'a [Service],
    by_name: HashMap<&'a str, &'a Client>,
    /// By what makes packets replayable: one client's are good for another that has the same.
    by_key: HashMap<(Fingerprint, u16, Role), &'a Client>,
}

impl<'a> Known<'a> {
    fn new(before: Option<&'a Tables>) -> Self {
        let clients = || before.iter().flat_map(|tables| &tables.clients);
        Self {
            services: before.map_or(&[], |tables| tables.services.all()),
            by_name: clients().map(|client| (&*client.name, client)).collect(),
            by_key: clients().map(|client| ((client.fingerprint, client.mux, client.role), client)).collect(),
        }
    }

    /// Endpoint and counters. Those of another service would be of packets to another address.
    fn track(&self, name: &str, service: Option<ServiceKey>) -> Option<Arc<Track>> {
        let old = self.by_name.get(name)?;
        let key = self.services.get(old.service as usize).map(Service::key);
        (key == service).then(|| old.track.clone())
    }

    /// Expanded keys and replay windows.
    fn cryptography(&self, client: &config::Client, fingerprint: Fingerprint) -> (Keys, Arc<Windows>) {
        let alike = |old: &&&Client| {
            old.fingerprint == fingerprint && old.mux == client.mux && old.role == client.role.opposite()
        };
        let by_key = || self.by_key.get(&(fingerprint, client.mux, client.role.opposite()));
        let old = self.by_name.get(client.name.as_str()).filter(alike).or_else(by_key);
        let keys = match old.filter(|old| old.suite == client.crypto) {
            Some(old) => old.keys.clone(),
            None => Keys::new(&client.secret, &client.crypto),
        };
        let windows = match old {
            None => Arc::new(Windows::new(client.window)),
            Some(old) if old.windows.size() == client.window => old.windows.clone(),
            Some(old) => Arc::new(old.windows.resized(client.window)),
        };
        (keys, windows)
    }
}
