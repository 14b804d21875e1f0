//! Who gets copies of what is sent to a group by having joined it: a snapshot that changes apart from the tables.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::{Snooped, Tables, is_group};

/// A group: the index of its network, and its address, an IPv4 one mapped.
pub(super) type Key = (u32, [u8; 16]);

/// The groups that clients have joined.
#[derive(Debug, Default)]
pub struct Joined {
    numbers: HashMap<Key, u32>,
    members: HashMap<u32, Arc<[u32]>>,
}

impl Joined {
    /// A snapshot of groups, each with its number and all its members, ascending: those of the configuration, too.
    pub fn new(groups: impl IntoIterator<Item = (Key, u32, Arc<[u32]>)>) -> Self {
        let mut joined = Self::default();
        for (key, number, members) in groups {
            joined.numbers.insert(key, number);
            joined.members.insert(number, members);
        }
        joined
    }

    /// The number of the group of a network that has this address.
    #[inline]
    pub fn find(&self, network: u32, address: &[u8; 16]) -> Option<u32> {
        self.numbers.get(&(network, *address)).copied()
    }

    /// The members of the group with a number, ascending.
    #[inline]
    pub fn members(&self, number: u32) -> Option<&[u32]> {
        self.members.get(&number).map(|members| &**members)
    }
}

impl Tables {
    /// What holds for a network whose clients join groups.
    #[inline]
    pub fn snooped(&self, network: u32) -> Option<&Snooped> {
        self.snooped.get(network as usize)?.as_ref()
    }

    /// The members of the group with a number, ascending; `joined` is what of these tables was loaded.
    #[inline]
    pub fn members<'a>(&'a self, joined: &'a Joined, number: u32) -> &'a [u32] {
        joined.members(number).or_else(|| self.groups.members(number)).unwrap_or_default()
    }

    /// The number of the group that the configuration has at this address of a network.
    pub(super) fn fixed_group(&self, network: u32, address: IpAddr) -> Option<u32> {
        let network = self.networks.get(network as usize)?;
        let number = match address {
            IpAddr::V4(address) => network.find_v4(address.octets()),
            IpAddr::V6(address) => network.find_v6(address.octets()),
        };
        number.filter(|number| is_group(*number))
    }
}
