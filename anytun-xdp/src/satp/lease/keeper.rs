//! The control side of sequence leases.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::sequence::{Request, Sequence, Sequences};
use super::store::Store;
use super::{Error, Lease};
use crate::satp::Fingerprint;

/// Numbers of a first lease: what a crash costs a key that is hardly used.
const FIRST_LEASE: u32 = 1 << 18;
/// Numbers of a lease of a busy key: some tenths of a second at ten million packets a second.
const LARGEST_LEASE: u32 = 1 << 22;
/// A lease that was half used within this time is followed by one twice as long.
const BUSY: Duration = Duration::from_secs(1);
/// Requests that may wait; one that finds no place is repeated with the next packet.
const REQUESTS: usize = 4096;

/// Owns the lease store, and makes and extends the sequences that workers take numbers from. Every worker has sender
/// IDs of its own: worker `w` of `n` those at the places `w`, `w + n`, `w + 2n` and so on of the node's range.
pub struct Keeper {
    store: Store,
    senders: Senders,
    entries: HashMap<Fingerprint, Entry>,
    requests: Arc<ArrayQueue<Request>>,
    written: u64,
}

/// The sequences of one key.
struct Entry {
    sequences: Sequences,
    /// One for each sequence.
    pace: Box<[Pace]>,
}

/// How fast a sequence is used.
#[derive(Clone, Copy)]
struct Pace {
    /// Numbers of the last lease asked for.
    count: u32,
    leased: Instant,
}

/// What [`Keeper::extend`] did.
#[derive(Default, Debug)]
pub struct Extension {
    /// Leases that were written.
    pub extended: usize,
    /// Sequences that have refused a packet for the first time because nothing is left for them.
    pub exhausted: Vec<Exhausted>,
}

/// A key whose packets one worker can no longer send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted {
    /// The fingerprint of the key.
    pub key: Fingerprint,
    /// The index of the worker.
    pub worker: usize,
}

/// The sender IDs of the node, dealt out to its workers.
#[derive(Clone, Copy)]
pub(super) struct Senders {
    first: u16,
    last: u16,
    workers: u16,
}

impl Senders {
    pub(super) fn new(first: u16, last: u16, workers: usize) -> Result<Self, Error> {
        match u16::try_from(workers) {
            Ok(count @ 1..) if first <= last && count - 1 <= last - first => Ok(Self { first, last, workers: count }),
            _ => Err(Error::Senders { first, last, workers }),
        }
    }

    fn of_worker(self, worker: u16) -> impl Iterator<Item = u16> {
        (self.first..=self.last).skip(worker.into()).step_by(self.workers.into())
    }
}

impl Keeper {
    /// Opens the store in `state_dir`, created with it when there is none. `first` to `last` are the node's sender IDs.
    ///
    /// # Errors
    /// The range has fewer sender IDs than workers; another process has the store open; the store cannot be read.
    pub fn open(state_dir: &Path, first: u16, last: u16, workers: usize) -> Result<Self, Error> {
        let senders = Senders::new(first, last, workers)?;
        Ok(Self::with_store(Store::open(state_dir)?, senders))
    }

    pub(super) fn with_store(store: Store, senders: Senders) -> Self {
        Self { store, senders, entries: HashMap::new(), requests: Arc::new(ArrayQueue::new(REQUESTS)), written: 0 }
    }

    /// The store, if there was none before: then nothing is known of what was used, and every key starts at number 0.
    pub fn new_store(&self) -> Option<&Path> {
        self.store.new_file()
    }

    /// Leases written since the store was opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The sequences of each key, one for each worker. Equal keys share theirs, also over calls. The leases of all new
    /// keys are on disk when this returns, written in one transaction.
    pub fn sequences(&mut self, keys: &[Fingerprint]) -> Result<Vec<Sequences>, Error> {
        let mut new: Vec<Fingerprint> = keys.iter().filter(|key| !self.entries.contains_key(key)).copied().collect();
        // In the order of the store, which writes them fastest so.
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let senders = self.senders;
            let leases: Vec<Option<Lease>> = self.store.update(|records| {
                let every = new.iter().flat_map(|key| (0..senders.workers).map(move |worker| (key, worker)));
                every.map(|(key, worker)| records.lease(key, senders.of_worker(worker), FIRST_LEASE)).collect()
            })?;
            self.written += leases.iter().flatten().count() as u64;
            for (key, leases) in new.iter().zip(leases.chunks_exact(senders.workers.into())) {
                self.entries.insert(*key, Entry::new(*key, leases, &self.requests));
            }
        }
        Ok(keys.iter().map(|key| self.entries[key].sequences.clone()).collect())
    }

    /// Writes the leases that have been asked for since the last call, and lets them be used once they are on disk. To
    /// be called every 10 ms or so: a key must not use up half a lease between two calls.
    ///
    /// # Errors
    /// The store cannot be written. Sequences go on with what they have and ask again.
    pub fn extend(&mut self) -> Result<Extension, Error> {
        let mut extension = Extension::default();
        let mut wanted: Vec<(Request, u32)> = Vec::new();
        // Not more than were there at the start: workers may be quicker at asking.
        for _ in 0..self.requests.len() {
            let Some((key, worker)) = self.requests.pop() else { break };
            let Some(entry) = self.entries.get(&key) else { continue };
            let sequence = &entry.sequences[usize::from(worker)];
            if sequence.is_exhausted() {
                // Left unanswered, so that it does not ask, and is not told, again.
                extension.exhausted.push(Exhausted { key, worker: worker.into() });
            } else if sequence.wants_lease() {
                wanted.push(((key, worker), entry.pace[usize::from(worker)].next()));
            } else {
                sequence.answered();
            }
        }
        if wanted.is_empty() {
            return Ok(extension);
        }
        let written = self.write(&wanted);
        for (index, ((key, worker), count)) in wanted.iter().enumerate() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let sequence = &entry.sequences[usize::from(*worker)];
            match written.as_ref().map(|leases| leases[index]) {
                Ok(Some(lease)) => {
                    sequence.publish(lease);
                    entry.pace[usize::from(*worker)] = Pace { count: *count, leased: Instant::now() };
                    extension.extended += 1;
                }
                Ok(None) => sequence.finish(),
                // Kept, so that the next call tries again even if no packet asks for it.
                Err(_) if self.requests.push((*key, *worker)).is_ok() => continue,
                Err(_) => {}
            }
            sequence.answered();
        }
        self.written += extension.extended as u64;
        if written.is_err() {
            // Their report is lost with this call; they shall be told by a later one.
            for Exhausted { key, worker } in &extension.exhausted {
                self.entries[key].sequences[*worker].answered();
            }
        }
        written.map(|_| extension)
    }

    /// Leases for sequences in use: on with their sender ID, or with the worker's next one.
    fn write(&mut self, wanted: &[(Request, u32)]) -> Result<Vec<Option<Lease>>, Error> {
        let (senders, entries) = (self.senders, &self.entries);
        self.store.update(|records| {
            let lease = |((key, worker), count): &(Request, u32)| {
                let current = entries[key].sequences[usize::from(*worker)].sender();
                let onwards = senders.of_worker(*worker).skip_while(|sender| Some(*sender) < current);
                records.lease(key, onwards, *count)
            };
            wanted.iter().map(lease).collect()
        })
    }

    /// Drops the sequences of unused keys from memory. What they have used stays on record. A worker that still holds
    /// one can take what is left of its lease, and nothing after it.
    pub fn forget(&mut self, unused: impl Fn(&Fingerprint) -> bool) {
        self.entries.retain(|key, _| !unused(key));
    }

    /// Records what was really used, so that the next start goes on from there. Whoever still takes from a sequence
    /// gets nothing more.
    pub fn close(mut self) -> Result<(), Error> {
        let mut rest: Vec<(Fingerprint, Lease)> = Vec::new();
        for (key, entry) in &self.entries {
            rest.extend(entry.sequences.iter().filter_map(|sequence| Some((*key, sequence.close()?))));
        }
        rest.sort_unstable_by_key(|(key, lease)| (*key, lease.sender));
        if !rest.is_empty() {
            self.store.update(|records| rest.iter().try_for_each(|(key, lease)| records.give_back(key, *lease)))?;
        }
        self.store.close()
    }
}

impl Entry {
    fn new(key: Fingerprint, leases: &[Option<Lease>], requests: &Arc<ArrayQueue<Request>>) -> Self {
        let sequence = |(worker, lease): (u16, &Option<Lease>)| {
            CachePadded::new(Sequence::new(key, worker, *lease, requests.clone()))
        };
        Self {
            sequences: (0..).zip(leases).map(sequence).collect::<Vec<_>>().into(),
            pace: vec![Pace { count: FIRST_LEASE, leased: Instant::now() }; leases.len()].into(),
        }
    }
}

impl Pace {
    /// Numbers that the next lease should have.
    fn next(&self) -> u32 {
        if self.leased.elapsed() < BUSY { (self.count * 2).min(LARGEST_LEASE) } else { self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_grow_for_keys_that_use_them_fast() {
        let hour = Duration::from_secs(3600);
        let fast = |count| Pace { count, leased: Instant::now() + hour }.next();
        assert_eq!((fast(FIRST_LEASE), fast(LARGEST_LEASE)), (2 * FIRST_LEASE, LARGEST_LEASE));
        let slow = Pace { count: 2 * FIRST_LEASE, leased: Instant::now().checked_sub(hour).unwrap() };
        assert_eq!(slow.next(), 2 * FIRST_LEASE);
    }
}
