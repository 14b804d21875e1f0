//! From a configuration to the tables that workers read, keeping what packets taught the tables before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anytun_common::map::ServiceKey;
use anytun_common::wire::ethernet::Mac;
use hashbrown::HashMap;

use super::{
    Bridge, Client, ClientCounters, Devices, Expected, Groups, Inside, KERNEL, Lpm, Members, NOWHERE, Nats, OUTSIDE,
    Own, Policy, Rate, Service, Services, Snooped, Tables, Track,
};
use crate::config::{self, Config, HostAddress, Open, Prefix};
use crate::satp::lease::Sequences;
use crate::satp::window::Windows;
use crate::satp::{Fingerprint, Keys, Role, Shared};

/// What the tables need to know of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Number of workers.
    pub workers: usize,
    /// Octets of the largest IP packet an interface sends, by slot.
    pub mtus: Vec<usize>,
    /// Whether packets may come in with checksums that cover the pseudo-header only, by slot.
    pub partial: Vec<bool>,
}

impl Tables {
    /// Builds the tables of `config`. A client that `before` knows by name and service keeps its endpoint and counters. One
    /// that `before` knows by key, MUX and role keeps its replay windows, whatever it is called now: a number seen before
    /// stays seen. `sequences` are those of each client's key, in the order of the configuration, and for each one per
    /// worker.
    pub fn build(config: &Config, host: &Host, sequences: Vec<Sequences>, before: Option<&Tables>) -> Tables {
        let known = Known::new(before);
        let mut tables = Tables {
            generation: before.map_or(1, |tables| tables.generation + 1),
            services: Services::default(),
            clients: Vec::new().into(),
            expected: Expected::of(config),
            networks: (0..config.networks.len()).map(|network| own(config, network)).collect(),
            devices: Devices::new(config),
            groups: Groups::default(),
            joined: Arc::default(),
            snooped: (0..config.networks.len()).map(|network| Snooped::of(config, network)).collect(),
            network_names: config.networks.iter().map(|network| network.name.as_str().into()).collect(),
            inside: Inside::new(config),
            nats: Nats::new(config, before.map_or(&Nats::default(), |tables| &tables.nats)),
            bridges: Vec::new(),
            policies: config.networks.iter().map(Policy::of).collect(),
            errors: Rate::new(config.node.icmp_rate),
            mtus: host.mtus.clone(),
            partial: host.partial.clone(),
        };
        for service in &config.services {
            tables.services.push(Service::new(service));
        }
        let mut clients = Vec::with_capacity(config.clients.len());
        for (client, sequences) in config.clients.iter().zip(sequences) {
            let fingerprint = client.secret.fingerprint();
            let service = tables.services.all().get(client.service).map(Service::key);
            let (keys, windows) = known.cryptography(client, fingerprint, host.workers);
            let (track, counters) = known.track(client, service).unwrap_or_else(|| {
                let counters = (0..host.workers).map(|_| ClientCounters::default());
                (Shared::new(Track::default()), counters.collect::<Vec<_>>().into())
            });
            let number = clients.len() as u32;
            tables.lead(number, client);
            let members = config.networks.get(client.network).and_then(|network| {
                tables.nats.admit(network, client.network as u32, number, known.members(&client.name))
            });
            clients.push(Client {
                keys,
                role: client.role.opposite(),
                service: client.service as u32,
                network: client.network as u32,
                mux: client.mux,
                windows,
                own: Own::new(&client.prefixes),
                track,
                counters,
                sequences,
                name: client.name.as_str().into(),
                suite: client.crypto,
                fingerprint,
                members,
            });
        }
        tables.clients = clients.into();
        tables.bridges = tables.bridges(config, before);
        tables.groups = Groups::new(config, &mut tables.networks);
        tables
    }

    /// What Ethernet networks have learned. Numbers of clients are those of a snapshot, so what was learned before stays only
    /// where no client came or went; after that it takes a few more frames to everybody.
    fn bridges(&self, config: &Config, before: Option<&Tables>) -> Vec<Option<Arc<Bridge>>> {
        let place = |client: &Client| (client.name.clone(), client.network);
        let before = before.filter(|before| before.clients.iter().map(place).eq(self.clients.iter().map(place)));
        let bridge = |(index, network): (usize, &config::Network)| {
            let bridging = network.bridging?;
            let members = || (0..).zip(&config.clients).filter(|(_, client)| client.network == index);
            let own = network.local.as_ref().and_then(|local| local.mac);
            let given = members().flat_map(|(number, client)| client.macs.iter().map(move |mac| (*mac, number)));
            let given: HashMap<Mac, u32> = given.chain(own.map(|mac| (mac, KERNEL))).collect();
            let ports = members().map(|(number, _)| number).chain(own.map(|_| KERNEL));
            let known = before.and_then(|before| before.bridges.get(index)?.clone());
            let known = known.filter(|known| *known.bridging() == bridging && *known.given() == given);
            Some(known.unwrap_or_else(|| Arc::new(Bridge::new(bridging, ports, given))))
        };
        config.networks.iter().enumerate().map(bridge).collect()
    }

    /// What the Ethernet network with this index has learned; nothing of an IP network.
    #[inline]
    pub fn bridge(&self, network: u32) -> Option<&Bridge> {
        self.bridges.get(network as usize)?.as_deref()
    }

    /// The device by which the kernel is a port of the Ethernet network with this index.
    #[inline]
    pub fn kernel_port(&self, network: u32) -> Option<u32> {
        self.bridge(network).and_then(|_| self.devices.of_network(network))
    }

    /// These tables with empty replay windows for the client `name`: whatever it sends next is its first packet. Nothing
    /// when no client is called so.
    pub fn forgetting(&self, name: &str) -> Option<Tables> {
        let number = self.clients.iter().position(|client| &*client.name == name)?;
        let mut tables = self.clone();
        let client = tables.clients.get_mut(number)?;
        client.windows = client.windows.emptied();
        Some(tables)
    }

    /// Makes MUX and prefixes of a client lead to its number.
    fn lead(&mut self, number: u32, client: &config::Client) {
        if let Some(service) = self.services.get_mut(client.service) {
            service.set_client(client.mux, number);
        }
        if let Some(network) = self.networks.get_mut(client.network) {
            for prefix in &client.prefixes {
                network.insert(*prefix, number);
            }
        }
    }
}

/// The part of a network's routes that leads to no client: out of it, to the node's own addresses, and to what the kernel
/// is to route. Prefixes of clients come over it.
fn own(config: &Config, network: usize) -> Lpm {
    let mut lpm = Lpm::default();
    let Some(known) = config.networks.get(network) else { return lpm };
    let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let is_open = match known.open {
        Open::No => [false; 2],
        Open::Routed => [true; 2],
        Open::Nat(nats) => nats.map(|nat| nat.is_some()),
    };
    for (address, _) in both.into_iter().zip(is_open).filter(|(_, is_open)| *is_open) {
        lpm.insert(Prefix { address, length: 0 }, OUTSIDE);
    }
    let Some(local) = &known.local else { return lpm };
    if local.kernel_routes {
        for address in both {
            lpm.insert(Prefix { address, length: 0 }, KERNEL);
        }
    }
    if local.kernel_routes || known.open != Open::No || known.bridging.is_some() {
        // To the kernel these are behind the device, so it would send them back. In an Ethernet network they are its own link.
        let clients = config.clients.iter().filter(|client| client.network == network);
        let prefixes: Vec<_> = clients.flat_map(|client| &client.prefixes).collect();
        for prefix in local.addresses.iter().map(HostAddress::network) {
            if !prefixes.iter().any(|wider| wider.covers(&prefix)) {
                lpm.insert(prefix, NOWHERE);
            }
        }
    }
    for own in &local.addresses {
        lpm.insert(own.host(), KERNEL);
    }
    lpm
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

    /// Endpoint and counters. Those of another service would be of packets to another address, and where a client was only
    /// expected it is no longer when the configuration does not say so.
    fn track(
        &self,
        client: &config::Client,
        service: Option<ServiceKey>,
    ) -> Option<(Shared<Track>, Shared<[ClientCounters]>)> {
        let old = self.by_name.get(client.name.as_str())?;
        let key = self.services.get(old.service as usize).map(Service::key);
        let track = &old.track;
        let is_expected = track.endpoint.load().is_some() && !track.endpoint.is_learned();
        let is_given_up = is_expected && client.endpoint.is_none();
        let track = if is_given_up { Shared::new(Track::default()) } else { track.clone() };
        (key == service).then(|| (track, old.counters.clone()))
    }

    /// What it had of NATs: whatever its keys are, its mappings are those of the same client.
    fn members(&self, name: &str) -> Option<&Members> {
        self.by_name.get(name)?.members.as_deref()
    }

    /// Expanded keys and replay windows.
    fn cryptography(&self, client: &config::Client, fingerprint: Fingerprint, workers: usize) -> (Keys, Windows) {
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
            None => Windows::new(client.window).alone(workers == 1),
            Some(old) if old.windows.size() == client.window => old.windows.clone(),
            Some(old) => old.windows.resized(client.window),
        };
        (keys, windows)
    }
}
