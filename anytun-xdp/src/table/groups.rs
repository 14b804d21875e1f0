//! Who gets a copy of what is sent to a group: a multicast address, or one of broadcasts.

use std::net::IpAddr;

use super::Lpm;
use crate::config::{Config, Prefix};

/// From here on, numbers that a network's [`Lpm`] leads to are those of groups: less than it are clients.
const FIRST: u32 = 1 << 31;

/// The groups of all networks. Their addresses are host routes in the [`Lpm`] of their network, so that to find one costs
/// what it costs to find a client.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Where in `members` those of each group begin; those of the last end where all end.
    starts: Vec<u32>,
    /// Numbers of clients.
    members: Vec<u32>,
}

impl Groups {
    /// The groups of a configuration; makes their addresses lead to them in `networks`.
    pub(super) fn new(config: &Config, networks: &mut [Lpm]) -> Self {
        let mut groups = Self::default();
        for group in &config.groups {
            let members = group.members.iter().map(|&member| member as u32);
            groups.add(networks.get_mut(group.network), group.address, members);
        }
        for (index, network) in config.networks.iter().enumerate() {
            for address in &network.broadcast {
                let clients = (0..).zip(&config.clients).filter(|(_, client)| client.network == index);
                groups.add(networks.get_mut(index), (*address).into(), clients.map(|(number, _)| number));
            }
        }
        groups
    }

    fn add(&mut self, network: Option<&mut Lpm>, address: IpAddr, members: impl Iterator<Item = u32>) {
        let length = if address.is_ipv4() { 32 } else { 128 };
        if let Some(network) = network {
            network.insert(Prefix { address, length }, FIRST + self.starts.len() as u32);
        }
        self.starts.push(self.members.len() as u32);
        self.members.extend(members);
    }

    /// The members of the group that has a number: those of clients are nobody's.
    #[inline]
    pub fn members(&self, number: u32) -> Option<&[u32]> {
        let index = number.checked_sub(FIRST)? as usize;
        let start = *self.starts.get(index)? as usize;
        let end = self.starts.get(index + 1).map_or(self.members.len(), |end| *end as usize);
        self.members.get(start..end)
    }
}
