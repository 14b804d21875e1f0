//! Puts changed tables into force while packets flow.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, TryLockError};

use anytun_common::wire::ethernet::Mac;
use tracing::{error, info};

use super::devices::wanted;
use super::report::unix_time;
use super::running::{Running, lock};
use super::start::warn_of;
use crate::config::{self, Config, HostAddress, Interface, Local, Network, Node};
use crate::control::status::Reload;
use crate::kernel::{Inside, Steered, Wanted, memory};
use crate::table::{Behind, Service, Tables};

/// Network, name, addresses and MAC address of a device.
type Device = (String, String, Vec<HostAddress>, Option<Mac>);

/// The parts of a configuration that take a restart to change.
#[derive(PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) node: Node,
    interfaces: Vec<Interface>,
    /// The devices of networks.
    locals: Vec<Device>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self { node: config.node.clone(), interfaces: config.interfaces.clone(), locals: locals(config) }
    }

    /// Why `config` cannot replace a configuration with these parts.
    fn refuse(&self, config: &Config) -> Option<String> {
        let Node { name, state_dir, sender_ids, control, metrics, drain_time, idle, scheduling, icmp_rate } =
            &self.node;
        let new = &config.node;
        let parts = [
            ("[node] name", *name != new.name),
            ("[node] state_dir", *state_dir != new.state_dir),
            ("[node] sender_ids", *sender_ids != new.sender_ids),
            ("[node] control", *control != new.control),
            ("[node] metrics", *metrics != new.metrics),
            ("[node] drain_time", *drain_time != new.drain_time),
            ("[node] idle", *idle != new.idle),
            ("[node] scheduling", *scheduling != new.scheduling),
            ("[node] icmp_rate", *icmp_rate != new.icmp_rate),
            ("[[interface]]", self.interfaces != config.interfaces),
            ("`kind`, `address` or `device` of a [[network]]", self.locals != locals(config)),
        ];
        let changed: Vec<&str> = parts.iter().filter(|(_, changed)| *changed).map(|(part, _)| *part).collect();
        (!changed.is_empty()).then(|| {
            format!(
                "{}: {} changed, which takes a restart; the old configuration goes on",
                config.file.display(),
                changed.join(", ")
            )
        })
    }
}

fn locals(config: &Config) -> Vec<Device> {
    let networks = config.networks.iter().zip(config.networks.iter().map(|network| network.local.as_ref()));
    let with = networks.filter_map(|(network, local)| Some((network, local?)));
    let device = |(network, local): (&Network, &Local)| {
        (network.name.clone(), local.device.clone(), local.addresses.clone(), local.mac)
    };
    let mut all: Vec<Device> = with.map(device).collect();
    all.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
    all
}

/// Reloads of a running node.
#[derive(Default)]
pub(super) struct Reloads {
    /// Held while a configuration is put into force, or keys of earlier ones are forgotten.
    turn: Mutex<()>,
    /// Tables that are no longer in force, until no worker reads them any more: then they are freed here, as to free many
    /// clients takes longer than a worker may stand still.
    retired: Mutex<Vec<Arc<Tables>>>,
    last: Mutex<Option<Reload>>,
}

impl Reloads {
    /// How the last one went.
    pub(super) fn last(&self) -> Option<Reload> {
        lock(&self.last).clone()
    }
}

impl Running {
    /// Reads the configuration again; returns what changed, or why it was refused.
    pub(super) fn reload_now(&self) -> Result<String, String> {
        let outcome = self.try_reload();
        match &outcome {
            Ok(message) => info!("reloaded: {message}"),
            Err(message) => error!("reload refused: {message}"),
        }
        let message = outcome.clone().unwrap_or_else(|refused| refused);
        *lock(&self.reloads.last) = Some(Reload { ok: outcome.is_ok(), at_unix: unix_time(), message });
        outcome
    }

    fn try_reload(&self) -> Result<String, String> {
        let _turn = lock(&self.reloads.turn);
        let config = config::read(&self.file).map_err(|error| error.to_string())?;
        if let Some(reason) = self.fixed.refuse(&config) {
            return Err(reason);
        }
        warn_of(&config);
        let sequences = self.leases.sequences(&config).map_err(|error| format!("{error:#}"))?;
        let before = self.tables.load_full();
        let tables = Tables::build(&config, &self.host, sequences, Some(&before));
        let mut message = difference(&before, &tables);
        let devices = self.administer(wanted(&config, &self.links));
        let devices = devices.map_err(|reason| format!("{reason}; the old configuration goes on"))?;
        // The program steers only what the workers know: not to what goes from before the change, and not to what comes
        // until after it.
        let (old, new) = (steered(&before), steered(&tables));
        if let Err(reason) = self.program().steer(&old.common(&new)) {
            if let Err(error) = self.program().steer(&old) {
                error!("not all of the old configuration is steered any more: {error}; restart the node");
            }
            if let Err(error) = self.administer(devices) {
                error!("not all of the old routes to clients are there any more: {error}; restart the node");
            }
            return Err(format!("{reason}; the old configuration goes on"));
        }
        tables.nats.adjust();
        let replaced = self.replace_tables(tables);
        self.sockets.set(&self.tables.load().services);
        drop(before);
        lock(&self.reloads.retired).push(replaced);
        let widened = self.program().steer(&new);
        if let Err(error) = widened {
            let warning = format!("the new configuration is in force, but not all that is new is steered: {error}");
            error!("{warning}; reload again, or restart the node");
            message = format!("{message}; {warning}");
        }
        Ok(message)
    }

    /// Makes the devices of networks what is wanted; returns what they were.
    fn administer(&self, wanted: Vec<Wanted>) -> Result<Vec<Wanted>, String> {
        lock(&self.administration).as_mut().map_or(Ok(Vec::new()), |administration| administration.set(wanted))
    }

    /// Forgets the sequence numbers of a client; returns what was done, or that there is no such client.
    pub(super) fn forget_now(&self, name: &str) -> Result<String, String> {
        let _turn = lock(&self.reloads.turn);
        let tables = self
            .tables
            .load_full()
            .forgetting(name)
            .ok_or_else(|| format!("no client is called {name:?}; `anytun-xdp status` shows their names"))?;
        let replaced = self.tables.swap(Arc::new(tables));
        lock(&self.reloads.retired).push(replaced);
        let message = format!("the sequence numbers of {name} are forgotten: its next packet counts as its first");
        info!("{message}");
        Ok(message)
    }

    /// Frees what earlier configurations have left and nobody uses any more. To be called now and then.
    pub(super) fn free_retired(&self) {
        // A reload under way has leased numbers for keys that no tables know yet.
        let _turn = match self.reloads.turn.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Ok(turn) => turn,
        };
        let mut retired = lock(&self.reloads.retired);
        let before = retired.len();
        retired.retain(|tables| Arc::strong_count(tables) > 1);
        if retired.len() < before {
            let current = self.tables.load_full();
            let used = retired.iter().chain([&current]).flat_map(|tables| &tables.clients);
            self.leases.keep_only(&used.map(|client| client.fingerprint).collect::<HashSet<_>>());
            memory::give_back();
        }
    }
}

/// What packets from outside are for.
fn inside(tables: &Tables) -> impl Iterator<Item = Inside> {
    let prefixes = tables.inside.prefixes().iter().map(|prefix| Inside::prefix(prefix.mapped()));
    let nats = || tables.nats.all().iter().map(Behind::nat);
    let ports = nats().flat_map(|nat| Inside::ports(nat.address(), nat.settings().ports));
    // Those to the address of a service the kernel puts together.
    let has_service = |address: &[u8; 16]| tables.services.all().iter().any(|service| service.address == *address);
    let alone = nats().map(|nat| nat.address()).filter(move |address| !has_service(address));
    prefixes.chain(ports).chain(alone.map(Inside::fragments))
}

/// What the program hands to workers that have these tables.
pub(super) fn steered(tables: &Tables) -> Steered {
    Steered { services: tables.services.all().iter().map(Service::key).collect(), inside: inside(tables).collect() }
}

/// How many clients came, went and stayed.
fn difference(before: &Tables, after: &Tables) -> String {
    let old: HashSet<&str> = before.clients.iter().map(|client| &*client.name).collect();
    let kept = after.clients.iter().filter(|client| old.contains(&*client.name)).count();
    format!(
        "generation {}: {} clients, {} added, {} removed",
        after.generation,
        after.clients.len(),
        after.clients.len() - kept,
        before.clients.len() - kept
    )
}
