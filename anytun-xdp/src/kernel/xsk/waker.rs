//! Ends the wait of a thread from another one.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::kernel::HostError;

/// Wakes one thread: a worker, or that of the slow path. Waking it while it works ends its next wait at once, so nothing is
/// missed.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// One that nobody waits for yet.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the process has no file descriptor left.
    pub fn new() -> Result<Self, HostError> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let event =
            EventFd::from_value_and_flags(0, flags).map_err(|error| HostError::other("making an eventfd", error))?;
        Ok(Self(Arc::new(event)))
    }

    /// Ends the wait.
    pub fn wake(&self) {
        // The only error is a counter at its limit, and then the worker is being woken already.
        let _ = self.0.write(1);
    }

    /// Forgets the wakes so far.
    pub(in crate::kernel) fn clear(&self) {
        // Without a wake the read has nothing to take, which is as good.
        let _ = self.0.read();
    }

    pub(in crate::kernel) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
