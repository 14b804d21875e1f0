//! The path MTU of each client, as routers on the way tell it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::running::Running;
use crate::control::status::Counts;
use crate::kernel::{IcmpError, IcmpErrors};
use crate::mode::path::{Heard, TooBig};

/// ICMP errors about tunnel packets by what became of them.
#[derive(Debug, Default)]
pub(super) struct PathErrors([AtomicU64; Heard::COUNT]);

impl PathErrors {
    /// As `status` shows them.
    pub(super) fn counts(&self) -> Counts {
        let count = |heard: Heard| self.0[heard as usize].load(Ordering::Relaxed);
        Heard::ALL.iter().map(|&heard| (Cow::from(heard.name()), count(heard))).collect()
    }

    fn count(&self, heard: Heard) {
        self.0[heard as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Learns from ICMP errors until the node stops.
    pub(super) fn learn_paths(&self, errors: &IcmpErrors) {
        errors.run(&self.stop, |error| {
            let too_big = match error {
                IcmpError::V4(message) => TooBig::of_icmp(message),
                IcmpError::V6(message) => TooBig::of_icmpv6(message),
            };
            let now = self.start.elapsed().as_millis() as u64;
            let heard = too_big.map_or(Heard::Foreign, |error| error.learn(&self.tables.load(), now));
            self.path_errors.count(heard);
        });
    }
}
