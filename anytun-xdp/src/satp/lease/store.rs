//! The file that says which sequence numbers are used up.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};

use super::{Error, Lease, NUMBERS};
use crate::satp::Fingerprint;

/// The file in the state directory.
const FILE: &str = "leases.redb";
/// Key: fingerprint, then sender ID in network byte order. Value: the first number that is not leased, up to 2^32.
const TABLE: TableDefinition<Key, u64> = TableDefinition::new("leases");
/// Octets of memory that the store may use for its pages.
const CACHE: usize = 4 << 20;

type Key = &'static [u8; 18];

/// The first number not leased of every key and sender ID, in a redb file that one process owns.
pub(super) struct Store {
    path: PathBuf,
    /// Absent after a failure: then the file is opened anew.
    database: Option<Database>,
    is_new: bool,
}

/// The store within one transaction.
pub(super) struct Records<'a>(Table<'a, Key, u64>);

impl Records<'_> {
    /// Leases up to `count` numbers of the first of `senders` that has any.
    pub(super) fn lease(
        &mut self,
        key: &Fingerprint,
        senders: impl Iterator<Item = u16>,
        count: u32,
    ) -> Result<Option<Lease>, StorageError> {
        for sender in senders {
            let start = self.first_free(key, sender)?;
            if start < NUMBERS {
                let end = NUMBERS.min(start + u64::from(count));
                self.0.insert(&record(key, sender), end)?;
                return Ok(Some(Lease { sender, start, end }));
            }
        }
        Ok(None)
    }

    /// Takes back what is left of a lease, unless another was given after it.
    pub(super) fn give_back(&mut self, key: &Fingerprint, rest: Lease) -> Result<(), StorageError> {
        if self.first_free(key, rest.sender)? == rest.end {
            self.0.insert(&record(key, rest.sender), rest.start)?;
        }
        Ok(())
    }

    fn first_free(&self, key: &Fingerprint, sender: u16) -> Result<u64, StorageError> {
        Ok(self.0.get(&record(key, sender))?.map_or(0, |value| value.value()))
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, key: &Fingerprint, sender: u16, first_free: u64) -> Result<(), StorageError> {
        self.0.insert(&record(key, sender), first_free).map(drop)
    }
}

fn record(key: &Fingerprint, sender: u16) -> [u8; 18] {
    let mut octets = [0; 18];
    octets[..16].copy_from_slice(key.as_bytes());
    octets[16..].copy_from_slice(&sender.to_be_bytes());
    octets
}

impl Store {
    /// Opens the store in `state_dir`. Directory and store are created when there are none, for their owner only.
    pub(super) fn open(state_dir: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|reason| Error::Directory { path: state_dir.to_owned(), reason })?;
        let path = state_dir.join(FILE);
        let (database, is_new) = match open(&path) {
            Err(Error::Open { reason, .. }) if reason.kind() == ErrorKind::NotFound => {
                create(state_dir, &path)?;
                (open(&path)?, true)
            }
            opened => (opened?, false),
        };
        Ok(Self { path, database: Some(database), is_new })
    }

    /// The file, if there was none before.
    pub(super) fn new_file(&self) -> Option<&Path> {
        self.is_new.then_some(&self.path)
    }

    /// Runs `change` and makes what it did durable. After an error nothing of it is in effect.
    pub(super) fn update<T>(
        &mut self,
        change: impl FnOnce(&mut Records<'_>) -> Result<T, StorageError>,
    ) -> Result<T, Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let outcome = transact(&database, change);
        match outcome {
            Ok(_) => self.database = Some(database),
            // redb refuses to go on after a failed write; the file has to be opened again, which repairs it.
            Err(_) => drop(database),
        }
        outcome.map_err(|reason| Error::Write { path: self.path.clone(), reason: Box::new(reason) })
    }

    /// Closes the file, so that the next one to open it need not repair it.
    pub(super) fn close(self) -> Result<(), Error> {
        let path = self.path;
        let closed = self.database.map_or(Ok(()), Database::close);
        closed.map_err(|reason| Error::Write { path, reason: Box::new(reason.into()) })
    }

    #[cfg(test)]
    pub(super) fn open_through(state_dir: &Path, backend: impl redb::StorageBackend) -> Self {
        let database = builder().create_with_backend(backend).unwrap();
        Self { path: state_dir.join(FILE), database: Some(database), is_new: false }
    }
}

/// One transaction; durable when this returns `Ok`, undone otherwise.
fn transact<T>(
    database: &Database,
    change: impl FnOnce(&mut Records<'_>) -> Result<T, StorageError>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let done = change(&mut Records(transaction.open_table(TABLE)?))?;
    transaction.commit()?;
    Ok(done)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // A damaged file must be told here and not by a panic later.
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Opens an existing store and sees that it is one.
fn open(path: &Path) -> Result<Database, Error> {
    let unreadable = |reason| Error::Unreadable { path: path.to_owned(), reason: Box::new(reason) };
    let database = builder().open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: path.to_owned() },
        // redb reports a file that is not its own as invalid data.
        DatabaseError::Storage(StorageError::Io(reason))
            if !matches!(reason.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Error::Open { path: path.to_owned(), reason }
        }
        error => unreadable(error.into()),
    })?;
    let transaction = database.begin_read().map_err(|error| unreadable(error.into()))?;
    // A database of somebody else does not have the table; then nothing is known of what was used.
    transaction.open_table(TABLE).map_err(|error| unreadable(error.into()))?;
    Ok(database)
}

/// Creates an empty store. It gets its name when it is whole and only if nobody else was first, so a file of that name
/// is never a half-made one, and an empty or damaged file never passes for a new store.
fn create(state_dir: &Path, path: &Path) -> Result<(), Error> {
    let failed = |reason| Error::Open { path: path.to_owned(), reason };
    let unfinished = state_dir.join(format!("{FILE}.{}", std::process::id()));
    let remove = || match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove().map_err(failed)?;
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    write_empty(file).map_err(|reason| Error::Write { path: unfinished.clone(), reason: Box::new(reason) })?;
    let named: io::Result<()> = match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    remove().and(named).and_then(|()| File::open(state_dir)?.sync_all()).map_err(failed)
}

fn write_empty(file: File) -> Result<(), redb::Error> {
    let database = builder().create_with_backend(FileBackend::new(file)?)?;
    transact(&database, |_| Ok(()))?;
    Ok(database.close()?)
}
