//! Who gets a copy of what is sent to a group: a multicast address, or one of broadcasts.

use std::net::IpAddr;

use super::{Lpm, NOBODY};
use crate::config::{Config, Prefix};

/// From here on, numbers that a network's [`Lpm`] leads to are those of groups: less than it are clients.
const FIRST: u32 = 1 << 31;
/// From here on, they are those of groups that clients have made by joining them.
const JOINED: u32 = 3 << 30;
/// Behind all groups.
const END: u32 = 0xffff_0000;

/// Whether a number is that of a group, whoever its members are.
#[inline]
pub const fn is_group(number: u32) -> bool {
    FIRST <= number && number < END
}

/// The number of a group that clients made by joining it, as the `count`th. It is used again after a billion others only.
pub(super) const fn joined_number(count: u32) -> u32 {
    JOINED + count % (END - JOINED)
}

/// The groups of all networks. Their addresses are host routes in the [`Lpm`] of their network, so that to find one costs
/// what it costs to find a client.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Where in `members` those of each group begin; those of the last end where all end.
    starts: Vec<u32>,
    /// Numbers of clients, ascending within each group.
    members: Vec<u32>,
    /// By network: the number of the group that all clients of an Ethernet network are members of.
    everybody: Vec<u32>,
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
            let everybody = network.bridging.map(|_| {
                let clients = (0..).zip(&config.clients).filter(|(_, client)| client.network == index);
                groups.push(clients.map(|(number, _)| number))
            });
            groups.everybody.push(everybody.unwrap_or(NOBODY));
        }
        groups
    }

    fn add(&mut self, network: Option<&mut Lpm>, address: IpAddr, members: impl Iterator<Item = u32>) {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let number = self.push(members);
        if let Some(network) = network {
            network.insert(Prefix { address, length }, number);
        }
    }

    /// Adds a group; returns its number.
    fn push(&mut self, members: impl Iterator<Item = u32>) -> u32 {
        let number = FIRST + self.starts.len() as u32;
        let start = self.members.len();
        self.starts.push(start as u32);
        self.members.extend(members);
        if let Some(members) = self.members.get_mut(start..) {
            members.sort_unstable();
        }
        number
    }

    /// The number that leads to all clients of an Ethernet network; in any other to nobody.
    #[inline]
    pub fn everybody(&self, network: u32) -> u32 {
        self.everybody.get(network as usize).copied().unwrap_or(NOBODY)
    }

    /// The members that the configuration gives the group with a number, ascending.
    #[inline]
    pub fn members(&self, number: u32) -> Option<&[u32]> {
        let index = number.checked_sub(FIRST)? as usize;
        let start = *self.starts.get(index)? as usize;
        let end = self.starts.get(index + 1).map_or(self.members.len(), |end| *end as usize);
        self.members.get(start..end)
    }
}
