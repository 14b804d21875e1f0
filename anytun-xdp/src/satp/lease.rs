//! Sequence leases: no sequence number is ever used twice with one key and sender ID, over crash and restart.
//!
//! Numbers are handed out from leases, runs of numbers that the store marks as used before the first of them is. What a
//! crash leaves unused of a lease is lost; 2^32 numbers outlast many crashes. A worker takes from a [`Sequence`] without
//! a lock or system call; the [`Keeper`] writes the next lease while the current one is half used.

mod keeper;
mod sequence;
mod store;

use std::io;
use std::path::PathBuf;

pub use keeper::{Exhausted, Extension, Keeper};
pub use sequence::{Empty, Sequence, Sequences};

/// Sequence numbers of one key and sender ID.
const NUMBERS: u64 = 1 << 32;

/// A run of sequence numbers that the store marks as used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    sender: u16,
    /// The first number.
    start: u64,
    /// The number after the last: at most [`NUMBERS`], more than `start`.
    end: u64,
}

/// Why no leases can be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are more workers than sender IDs.
    #[error(
        "sender_ids = \"{first}-{last}\" has fewer sender IDs than the {workers} workers, which need one each: \
         widen node.sender_ids, or use fewer queues"
    )]
    Senders {
        /// First of the range.
        first: u16,
        /// Last of the range.
        last: u16,
        /// Workers that want one.
        workers: usize,
    },
    /// The state directory cannot be made.
    #[error("cannot create the directory {}: {reason}: create it, or set node.state_dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        reason: io::Error,
    },
    /// The store cannot be opened or created.
    #[error("cannot open the lease store {}: {reason}: make it accessible to this user, or set node.state_dir",
        path.display())]
    Open {
        /// The store.
        path: PathBuf,
        /// What the kernel says.
        reason: io::Error,
    },
    /// Another process has the store open.
    #[error("the lease store {} is in use by another process: stop that one, or give this node a state_dir of its own",
        path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The file exists and is no store that can be read.
    #[error(
        "the lease store {} cannot be read: {reason}: it says which sequence numbers were used, so an empty one would \
         encrypt twice with the same keystream. Move it away only together with giving the node sender_ids that it \
         never used, or all clients new keys", path.display())]
    Unreadable {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        reason: Box<redb::Error>,
    },
    /// Leases could not be written. Nothing was handed out; the next attempt opens the store anew.
    #[error("cannot write to the lease store {}: {reason}: see that its file system has room and is writable",
        path.display())]
    Write {
        /// The store.
        path: PathBuf,
        /// What went wrong.
        reason: Box<redb::Error>,
    },
}

#[cfg(test)]
mod tests;
