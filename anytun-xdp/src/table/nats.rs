//! The NATs of open networks.

use std::sync::Arc;

use anytun_common::wire::mapped;

use super::nat::{Account, Inside, Member, Nat, Settings};
use super::{Client, NOBODY};
use crate::config::{self, Open};

/// The NATs of one snapshot, found by their addresses outside.
#[derive(Clone, Default)]
pub struct Nats {
    /// By address.
    all: Vec<Behind>,
}

/// A NAT, and who is behind it.
#[derive(Clone)]
pub struct Behind {
    nat: Arc<Nat>,
    /// What the configuration says of it.
    settings: Settings,
    /// Index of the network, in [`Tables::networks`](super::Tables::networks).
    pub network: u32,
    /// Of each account the number of the client that has it.
    clients: Vec<u32>,
}

/// What a client has of the NATs of its network.
#[derive(Debug, Default)]
pub struct Members {
    /// Of the one for IPv4 and the one for IPv6.
    by_family: [Option<Arc<Member>>; 2],
}

impl Nats {
    /// Those of a configuration. One that was there before goes on, with all that it knows, and is [adjusted](Self::adjust).
    pub(super) fn new(config: &config::Config, before: &Self) -> Self {
        let mut all = Vec::new();
        for (number, network) in config.networks.iter().enumerate() {
            for settings in network.open.nats().map(Settings::from) {
                let same = before.all.iter().find(|behind| behind.nat.settings().differ_little(&settings));
                let nat = same.map_or_else(|| Arc::new(Nat::new(settings)), |behind| behind.nat.clone());
                all.push(Behind { nat, settings, network: number as u32, clients: Vec::new() });
            }
        }
        all.sort_by_key(|behind| behind.nat.address());
        Self { all }
    }

    /// Makes a client of `network` a member of its NATs; as the one it was before, if it was. Nothing in a network without
    /// any.
    pub(super) fn admit(
        &mut self,
        network: &config::Network,
        index: u32,
        number: u32,
        before: Option<&Members>,
    ) -> Option<Arc<Members>> {
        if !matches!(network.open, Open::Nat(_)) {
            return None;
        }
        let mut members = Members::default();
        for behind in self.all.iter_mut().filter(|behind| behind.network == index) {
            let family = usize::from(behind.nat.settings().address.is_ipv6());
            let known = before.and_then(|before| before.by_family[family].clone());
            let member = known.filter(|member| Arc::ptr_eq(member.nat(), &behind.nat));
            // One that finds no account is refused all its packets, as long as there is none.
            let Some(member) = member.or_else(|| behind.nat.admit().ok().map(Arc::new)) else { continue };
            let account = member.account().number();
            if behind.clients.len() <= account {
                behind.clients.resize(account + 1, NOBODY);
            }
            behind.clients[account] = number;
            members.by_family[family] = Some(member);
        }
        Some(Arc::new(members))
    }

    /// Gives every NAT the limits and timers that the configuration says. To be called when it is in force.
    pub fn adjust(&self) {
        self.all.iter().for_each(|behind| behind.nat.adjust(&behind.settings));
    }

    /// All of them.
    pub fn all(&self) -> &[Behind] {
        &self.all
    }

    /// Those at an address, an IPv4 one mapped: they have different ports.
    #[inline]
    pub fn at(&self, address: &[u8; 16]) -> &[Behind] {
        let first = self.all.partition_point(|behind| behind.nat.address() < *address);
        let here = self.all.get(first..).unwrap_or_default();
        let count = here.iter().take_while(|behind| behind.nat.address() == *address).count();
        here.get(..count).unwrap_or_default()
    }
}

impl Behind {
    /// The NAT.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// Number of the client that a packet from outside is for, among the `clients` of this snapshot.
    #[inline]
    pub fn client(&self, inside: &Inside, clients: &[Client]) -> Option<u32> {
        let number = *self.clients.get(inside.account.number())?;
        let members = clients.get(number as usize)?.members.as_ref()?;
        members.accounts().any(|account| account == inside.account).then_some(number)
    }
}

impl Members {
    /// The membership in the NAT that translates packets with this source, an IPv4 one mapped.
    #[inline]
    pub fn of(&self, source: &[u8; 16]) -> Option<&Member> {
        let is_v4 = *source == mapped([source[12], source[13], source[14], source[15]]);
        self.by_family[usize::from(!is_v4)].as_deref()
    }

    fn accounts(&self) -> impl Iterator<Item = Account> {
        self.by_family.iter().flatten().map(|member| member.account())
    }

    /// The memberships.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.by_family.iter().filter_map(Option::as_deref)
    }
}
