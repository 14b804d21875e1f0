//! Puts a changed configuration into force while packets flow.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::report::unix_time;
use super::start::{Running, fingerprints};
use crate::config::{self, Config, Interface, Node};
use crate::control::status::Reload;
use crate::table::{Service, Tables};

/// The parts of a configuration that take a restart to change.
#[derive(PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) node: Node,
    interfaces: Vec<Interface>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self { node: config.node.clone(), interfaces: config.interfaces.clone() }
    }

    /// Why `config` cannot replace a configuration with these parts.
    fn refuse(&self, config: &Config) -> Option<String> {
        let table = match Fixed::of(config) {
            new if new == *self => return None,
            new if new.node != self.node => "[node]",
            _ => "[[interface]]",
        };
        Some(format!(
            "{}: {table} changed, which takes a restart; the old configuration goes on",
            config.file.display()
        ))
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
        self.set_last_reload(Reload { ok: outcome.is_ok(), at_unix: unix_time(), message });
        outcome
    }

    fn try_reload(&self) -> Result<String, String> {
        let _reloading = self.reloading();
        let config = config::read(&self.file).map_err(|error| error.to_string())?;
        if let Some(reason) = self.fixed.refuse(&config) {
            return Err(reason);
        }
        for warning in &config.warnings {
            warn!("{}:{}: {}", config.file.display(), warning.line, warning.message);
        }
        // Not under the keeper's lock: leases in use are extended meanwhile.
        let sequences = self
            .with_keeper(|keeper| keeper.sequences(&fingerprints(&config)))
            .ok_or("the node is stopping")?
            .map_err(|error| error.to_string())?;
        let before = self.tables.load_full();
        let tables = Tables::build(&config, &self.host, sequences, Some(&before));
        // The program steers to a service only once the workers know it, and forgets one before they do: so it
        // gets the union first.
        let keys: Vec<_> = tables.services.all().iter().map(Service::key).collect();
        let mut both = keys.clone();
        both.extend(before.services.all().iter().map(Service::key));
        self.program().set_services(&both).map_err(|error| error.to_string())?;
        let message = difference(&before, &tables);
        self.tables.store(Arc::new(tables));
        self.program().set_services(&keys).map_err(|error| error.to_string())?;
        Ok(message)
    }
}

/// How many clients came, went and stayed.
fn difference(before: &Tables, after: &Tables) -> String {
    let old: hashbrown::HashSet<&str> = before.clients.iter().map(|client| &*client.name).collect();
    let kept = after.clients.iter().filter(|client| old.contains(&*client.name)).count();
    format!(
        "generation {}: {} clients, {} added, {} removed",
        after.generation,
        after.clients.len(),
        after.clients.len() - kept,
        before.clients.len() - kept
    )
}
