//! Which clients packets from outside can be for.

use super::Lpm;
use crate::config::{Config, Open, Prefix};

/// The prefixes of the clients of open networks, in all of which an address means one client.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    prefixes: Vec<Prefix>,
    clients: Lpm,
}

impl Inside {
    pub(super) fn new(config: &Config) -> Self {
        let mut inside = Self::default();
        for (number, client) in config.clients.iter().enumerate() {
            let network = config.networks.get(client.network);
            for prefix in client.prefixes.iter().filter(|_| network.is_some_and(|network| network.open == Open::Routed))
            {
                inside.prefixes.push(*prefix);
                inside.clients.insert(*prefix, number as u32);
            }
        }
        inside
    }

    /// The prefixes.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// Number of the client that each of them leads to.
    #[inline]
    pub fn clients(&self) -> &Lpm {
        &self.clients
    }
}
