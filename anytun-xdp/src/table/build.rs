//! From a configuration to the tables that workers read, keeping what packets taught the tables before.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use hashbrown::HashMap;

use super::{Client, Lpm, Service, Services, Tables, Track};
use crate::config::{self, Config};
use crate::satp::lease::Sequence;
use crate::satp::window::Windows;
use crate::satp::{Fingerprint, Keys};

/// What the tables need to know of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Number of workers.
    pub workers: usize,
    /// Octets of the largest IP packet an interface sends, by slot.
    pub mtus: Vec<usize>,
}

impl Tables {
    /// Builds the tables of `config`. A client that `before` knows by name keeps its endpoint and counters; unless its
    /// key, MUX, role or window changed, it keeps its replay windows too. `sequences` are those of each client's key, in
    /// the order of the configuration, and for each one per worker.
    pub fn build(
        config: &Config,
        host: &Host,
        sequences: Vec<Arc<[CachePadded<Sequence>]>>,
        before: Option<&Tables>,
    ) -> Tables {
        let known: HashMap<&str, &Client> =
            before.iter().flat_map(|tables| &tables.clients).map(|client| (&*client.name, client)).collect();

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
            let old = known.get(client.name.as_str()).copied();
            let windows = match old.filter(|old| same_windows(old, client, fingerprint)) {
                Some(old) => old.windows.clone(),
                None => Arc::new(Windows::new(client.window)),
            };
            tables.push(
                Client {
                    keys: Arc::new(Keys::new(&client.secret, &client.crypto)),
                    role: client.role.opposite(),
                    service: client.service as u32,
                    network: client.network as u32,
                    mux: client.mux,
                    windows,
                    track: old.map_or_else(|| Arc::new(Track::new(host.workers)), |old| old.track.clone()),
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

/// Whether the sequence numbers of `old` and `new` are of one space, so that numbers seen before still count as seen.
fn same_windows(old: &Client, new: &config::Client, fingerprint: Fingerprint) -> bool {
    old.fingerprint == fingerprint
        && old.suite == new.crypto
        && old.mux == new.mux
        && old.role == new.role.opposite()
        && old.windows.size() == new.window
}
