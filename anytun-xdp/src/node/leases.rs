//! The sequence leases of a running node.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tracing::{error, info, warn};

use super::StartError;
use super::running::{Running, lock};
use crate::config::Config;
use crate::control::status;
use crate::satp::Fingerprint;
use crate::satp::lease::{self, Exhausted, Keeper, Sequences};

/// How often leases are looked after: well within the time in which a worker can use up half of the smallest.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long after a failure the next attempt is made.
const BACK_OFF: Duration = Duration::from_secs(1);

/// The store of leases, and what is to be told of it.
pub(super) struct Leases {
    /// Absent once it is closed.
    keeper: Mutex<Option<Keeper>>,
    /// Why leases cannot be written now.
    failing: Mutex<Option<String>>,
    exhausted: Mutex<HashSet<Fingerprint>>,
    written: AtomicU64,
    failures: AtomicU64,
}

/// The fingerprint of each client's key.
pub(super) fn fingerprints(config: &Config) -> Vec<Fingerprint> {
    config.clients.iter().map(|client| client.secret.fingerprint()).collect()
}

impl Leases {
    /// Opens the store in the state directory.
    pub(super) fn open(config: &Config, workers: usize) -> Result<Self, StartError> {
        let ids = config.node.sender_ids;
        let keeper = Keeper::open(&config.node.state_dir, ids.first, ids.last, workers)?;
        if let Some(path) = keeper.new_store() {
            warn!(
                "the lease store {} is new: sequence numbers start at 0. That is right for a new node; if one ran before \
                 with these keys and sender IDs, its packets and those to come can be decrypted from each other: stop, \
                 and put its state directory back, or give it other `sender_ids` or all clients new keys",
                path.display()
            );
        }
        Ok(Self {
            keeper: Mutex::new(Some(keeper)),
            failing: Mutex::default(),
            exhausted: Mutex::default(),
            written: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Does `work` with the store and counts what it wrote; `None` once it is closed.
    fn with<T>(&self, work: impl FnOnce(&mut Keeper) -> Result<T, lease::Error>) -> Option<Result<T, lease::Error>> {
        let mut keeper = lock(&self.keeper);
        let keeper = keeper.as_mut()?;
        let outcome = work(keeper);
        self.written.store(keeper.written(), Ordering::Relaxed);
        self.failures.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        Some(outcome)
    }

    /// The sequences of each client, one for each worker.
    pub(super) fn sequences(&self, config: &Config) -> anyhow::Result<Vec<Sequences>> {
        let sequences = self.with(|keeper| keeper.sequences(&fingerprints(config)));
        sequences.ok_or_else(|| anyhow!("the node is stopping"))?.context("leasing sequence numbers")
    }

    /// Writes the leases that workers asked for; returns for which keys there are no more.
    fn extend(&self) -> Result<Vec<Exhausted>, lease::Error> {
        let Some(outcome) = self.with(Keeper::extend) else { return Ok(Vec::new()) };
        self.note(outcome.as_ref().err());
        let exhausted = outcome?.exhausted;
        lock(&self.exhausted).extend(exhausted.iter().map(|exhausted| exhausted.key));
        Ok(exhausted)
    }

    /// Says once that leases cannot be written, and once that they can again.
    fn note(&self, failure: Option<&lease::Error>) {
        let mut failing = lock(&self.failing);
        let message = failure.map(|error| {
            format!("sequence leases cannot be written, and traffic stops when those in use are used up: {error}")
        });
        match (&*failing, &message) {
            (None, Some(message)) => error!("{message}"),
            (Some(_), None) => warn!("sequence leases can be written again"),
            _ => {}
        }
        *failing = message;
    }

    /// Forgets all keys but these.
    pub(super) fn keep_only(&self, used: &HashSet<Fingerprint>) {
        lock(&self.exhausted).retain(|key| used.contains(key));
        if let Some(keeper) = lock(&self.keeper).as_mut() {
            keeper.forget(|key| !used.contains(key));
        }
    }

    /// Why leases cannot be written now, if so.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.failing).clone()
    }

    pub(super) fn status(&self) -> status::Sequences {
        status::Sequences {
            exhausted_keys: lock(&self.exhausted).len() as u64,
            leases_written: self.written.load(Ordering::Relaxed),
            lease_failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Notes which sequence numbers were really used, so that the next start goes on from there. A thread that hangs
    /// with the store is not waited for.
    pub(super) fn close(&self) -> Result<(), StartError> {
        let keeper = match self.keeper.try_lock() {
            Ok(mut keeper) => keeper.take(),
            Err(TryLockError::Poisoned(keeper)) => keeper.into_inner().take(),
            Err(TryLockError::WouldBlock) => {
                return Err(anyhow!("the store of sequence leases is being written").into());
            }
        };
        let Some(keeper) = keeper else { return Ok(()) };
        keeper.close().context("closing the store of sequence leases")?;
        info!("sequence leases are written");
        Ok(())
    }
}

impl Running {
    /// Keeps leases ahead of the workers until the node stops.
    pub(super) fn keep_leases(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let pause = match self.leases.extend() {
                Ok(exhausted) => {
                    exhausted.iter().for_each(|exhausted| self.report_exhausted(exhausted));
                    INTERVAL
                }
                Err(_) => BACK_OFF,
            };
            std::thread::park_timeout(pause);
        }
    }

    fn report_exhausted(&self, &Exhausted { key, worker }: &Exhausted) {
        let tables = self.tables.load();
        let mut clients = tables.clients.iter().filter(|client| client.fingerprint == key);
        let Some(client) = clients.next() else { return };
        error!(
            client = &*client.name,
            worker,
            more_clients_with_the_key = clients.count(),
            "every sequence number of this worker's share of the `sender_ids` is used up for the client's key: what the \
             worker would send to it is dropped until the client has a new key, or the node more `sender_ids`"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(directory: &Path, passphrase: &str) -> Config {
        let text = format!(
            "[node]\nname = \"n\"\nsender_ids = \"1\"\nstate_dir = {directory:?}\n[[interface]]\nname = \"eth0\"\n\
             [[service]]\nname = \"s\"\naddress = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"o\"\n\
             [[client]]\nname = \"c\"\nmux = 1\nprefixes = [\"10.9.0.1/32\"]\npassphrase = {passphrase:?}\n"
        );
        crate::config::parse(&text, &directory.join("node.toml")).unwrap()
    }

    #[test]
    fn leases_of_start_and_reload_are_counted_and_exhaustion_ends_with_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (config(directory.path(), "the first of two"), config(directory.path(), "the second of two"));
        let leases = Leases::open(&old, 1).unwrap();
        leases.sequences(&old).unwrap();
        leases.sequences(&new).unwrap();
        assert_eq!(leases.status().leases_written, 2);
        lock(&leases.exhausted).extend(fingerprints(&old));
        assert_eq!(leases.status().exhausted_keys, 1);
        leases.keep_only(&fingerprints(&new).into_iter().collect());
        assert_eq!(leases.status().exhausted_keys, 0);
        leases.close().unwrap();
        assert!(leases.sequences(&old).is_err_and(|error| error.to_string().contains("stopping")));
    }

    #[test]
    fn a_store_that_cannot_be_written_is_told_of_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::open(&config(directory.path(), "the first of two"), 1).unwrap();
        leases.note(Some(&lease::Error::InUse { path: "leases.redb".into() }));
        assert!(leases.failure().unwrap().contains("leases.redb"));
        assert!(leases.extend().unwrap().is_empty());
        assert_eq!(leases.failure(), None);
    }
}
