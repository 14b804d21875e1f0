//! The workers' part of the queues in front of them: how much each has taken, where the XDP program reads it.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anytun_common::backlog::Backlog;
use anytun_common::map::{MAX_INTERFACES, MAX_SOCKETS, QUEUES_PER_INTERFACE};
use aya::maps::MapData;

use super::HostError;

type Cell = Backlog<AtomicU64>;
const CELLS: usize = MAX_SOCKETS as usize;
const OCTETS: usize = CELLS * size_of::<Cell>();

/// The map of backlogs in this process's memory.
struct Mapping(NonNull<Cell>);

// SAFETY: it is only a place in memory; what is there is reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    #[inline]
    fn cells(&self) -> &[Cell] {
        // SAFETY: the mapping is that long and lives as long as `self`. Every word of it may be written at any time, also
        // by the XDP program, as a whole and aligned: just what atomics allow.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), CELLS) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nothing that points into it outlives the last `Arc`.
        unsafe { libc::munmap(self.0.as_ptr().cast::<c_void>(), OCTETS) };
    }
}

/// The queues in front of all workers.
#[derive(Clone)]
pub(super) struct Backlogs(Arc<Mapping>);

impl Backlogs {
    /// Maps the program's map.
    pub(super) fn new(map: &MapData) -> Result<Self, HostError> {
        let fd = map.fd().as_fd().as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice, of a map that is as long (checked by the
        // kernel) and was made for that (BPF_F_MMAPABLE).
        let address = unsafe { libc::mmap(ptr::null_mut(), OCTETS, access, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(address.cast::<Cell>()) {
            Some(start) if address != libc::MAP_FAILED => Ok(Self(Arc::new(Mapping(start)))),
            _ => Err(HostError::other("mapping the backlogs of the XDP program", io::Error::last_os_error())),
        }
    }

    /// The queue in front of the socket of `queue` of the interface in `slot`; nothing when there can be none.
    pub(super) fn queue(&self, slot: u32, queue: u32) -> Option<Gauge> {
        let inside = slot < MAX_INTERFACES && queue < QUEUES_PER_INTERFACE;
        inside.then(|| Gauge { backlogs: self.clone(), place: (slot * QUEUES_PER_INTERFACE + queue) as usize })
    }
}

/// The queue in front of one socket. Its worker alone may use it.
#[derive(Clone)]
pub(super) struct Gauge {
    backlogs: Backlogs,
    place: usize,
}

impl Gauge {
    /// Notes that `packets` were taken out of the RX ring.
    #[inline]
    pub(super) fn took(&self, packets: u64) {
        if let Some(cell) = self.cell() {
            cell.taken.count.store(cell.taken.count.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
        }
    }

    /// How many packets were handed over until now.
    #[inline]
    pub(super) fn given(&self) -> u64 {
        self.cell().map_or(0, |cell| cell.given.count.load(Ordering::Relaxed))
    }

    /// Notes that the RX ring was found empty after `given` packets had been handed over: all of those were taken, or lost
    /// on the way, such as for want of a frame.
    #[inline]
    pub(super) fn emptied(&self, given: u64) {
        if let Some(cell) = self.cell() {
            cell.taken.count.store(given, Ordering::Relaxed);
        }
    }

    #[inline]
    fn cell(&self) -> Option<&Cell> {
        self.backlogs.0.cells().get(self.place)
    }
}
