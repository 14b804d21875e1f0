//! Who is a member of which group by what clients report, and when they are asked: the router's part of IGMPv3 (RFC 3376 §6)
//! and MLDv2 (RFC 3810 §7). Every client is a link of its own, at which there may be many hosts. Sources are not looked at:
//! who wants a group from some of them gets it from all.
//!
//! Times are in milliseconds since the node started.

mod question;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anytun_common::wire::unmapped;
use hashbrown::HashMap;

use self::question::LAST_MEMBER;
pub use self::question::{Ask, Change, Kind, Question, ROBUSTNESS, Snooped};
use super::groups::joined_number;
use super::joined::Key;
use super::{Joined, NOBODY, Tables};

/// Questions that wait for being asked, at most.
const WAITING: usize = 1024;

/// What is known of a network as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Groups that have been joined.
    pub groups: u64,
    /// Members of them.
    pub members: u64,
    /// Reports of a new member that some limit stopped.
    pub refused: u64,
}

/// All memberships that were reported, of one snapshot of the tables.
#[derive(Debug, Default)]
pub struct Memberships {
    /// That of the tables by which clients and networks are numbered.
    generation: u64,
    /// The generation before, and by its numbers of clients those of now, [`NOBODY`] for one that is gone.
    before: (u64, Vec<u32>),
    /// By index, nothing of those that do not learn.
    networks: Vec<Option<Network>>,
    /// By number; empty when no network learns.
    clients: Vec<Client>,
    groups: HashMap<Key, Group>,
    /// When something is to be done about each member.
    timers: BTreeSet<(u64, Key, u32)>,
    /// To be asked, before any round goes on.
    asks: VecDeque<Ask>,
    /// Groups that were made so far.
    made: u32,
    /// Whether a group has other members than at the last [`snapshot`](Self::snapshot).
    is_changed: bool,
}

#[derive(Debug)]
struct Network {
    name: Arc<str>,
    snooped: Snooped,
    /// Numbers of its clients.
    clients: Vec<u32>,
    totals: Totals,
    /// When all clients are asked next.
    next: u64,
    /// How many of the next rounds follow each other quickly (RFC 3376 §8.6, §8.7, RFC 3810 §9.6, §9.7).
    quick: u32,
    /// The place of the client that is asked next, while a round is under way.
    round: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    network: u32,
    /// Groups that it has joined.
    groups: u32,
    /// When it had been heard last at the last [`look`](Memberships::look).
    heard: Option<u64>,
}

#[derive(Debug)]
struct Group {
    number: u32,
    members: BTreeMap<u32, Member>,
    /// All members, those of the configuration too, as they were at the last snapshot; nothing when they have changed.
    list: Option<Arc<[u32]>>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    /// Until when it is one, unless it reports again.
    until: u64,
    /// The time at which it stands among the timers.
    timer: u64,
    /// When it was last asked about the group.
    asked: Option<u64>,
    /// How often it is yet to be asked, since a host left; nothing while none has.
    leaving: Option<u32>,
}

/// An address as the tables write it.
fn address(octets: [u8; 16]) -> IpAddr {
    unmapped(octets).map_or_else(|| Ipv6Addr::from(octets).into(), |v4| Ipv4Addr::from(v4).into())
}

/// The members of a group that the configuration gives it.
fn fixed(tables: &Tables, (network, group): Key) -> &[u32] {
    let number = tables.fixed_group(network, address(group));
    number.and_then(|number| tables.groups.members(number)).unwrap_or_default()
}

impl Memberships {
    /// Goes over to tables that follow those of before, of which there are none at first. Who stays in a network stays a
    /// member, and is asked in time; limits hold for who comes.
    pub fn adopt(&mut self, before: Option<&Tables>, after: &Tables, now: u64) {
        let old = std::mem::take(self);
        self.generation = after.generation;
        self.made = old.made;
        self.is_changed = true;
        if after.snooped.iter().all(Option::is_none) {
            return;
        }
        let network = |(index, name): (usize, &Arc<str>)| {
            let snooped = *after.snooped(index as u32)?;
            let known = old.networks.iter().flatten().find(|network| network.name == *name);
            let end = now + snooped.interval();
            Some(Network {
                name: name.clone(),
                snooped,
                clients: Vec::new(),
                totals: Totals { refused: known.map_or(0, |known| known.totals.refused), ..Totals::default() },
                next: known.map_or(now, |known| known.next.min(end)),
                quick: known.map_or(ROBUSTNESS, |known| known.quick),
                round: known.and_then(|known| known.round).map(|_| 0),
            })
        };
        self.networks = after.network_names.iter().enumerate().map(network).collect();
        for (number, client) in (0..).zip(&after.clients) {
            self.clients.push(Client { network: client.network, groups: 0, heard: None });
            if let Some(network) = self.networks.get_mut(client.network as usize).and_then(Option::as_mut) {
                network.clients.push(number);
            }
        }
        let Some(before) = before else { return };
        self.before = (before.generation, renumbered(before, after));
        for (number, known) in (0..).zip(&old.clients) {
            if let Some(client) = self.renumbered(number).and_then(|number| self.clients.get_mut(number as usize)) {
                client.heard = known.heard;
            }
        }
        for ask in old.asks {
            if let Some(client) = self.renumbered(ask.client)
                && let Some(&Client { network, .. }) = self.clients.get(client as usize)
            {
                self.asks.push_back(Ask { client, network, ..ask });
            }
        }
        for ((_, group), Group { number, members, .. }) in old.groups {
            for (client, member) in members {
                if let Some(client) = self.renumbered(client) {
                    self.insert(client, group, number, member);
                }
            }
        }
    }

    /// The number of a client of the generation before; nothing when it is gone.
    fn renumbered(&self, number: u32) -> Option<u32> {
        self.before.1.get(number as usize).copied().filter(|&number| number != NOBODY)
    }

    /// Adds a member. `number` is that of the group if there was none.
    fn insert(&mut self, client: u32, group: [u8; 16], number: u32, member: Member) {
        let Some(known) = self.clients.get_mut(client as usize) else { return };
        let Some(network) = self.networks.get_mut(known.network as usize).and_then(Option::as_mut) else { return };
        let key = (known.network, group);
        known.groups += 1;
        network.totals.members += 1;
        let entry = self.groups.entry(key).or_insert_with(|| {
            network.totals.groups += 1;
            Group { number, members: BTreeMap::new(), list: None }
        });
        entry.members.insert(client, member);
        entry.list = None;
        self.timers.insert((member.timer, key, client));
        self.is_changed = true;
    }

    fn remove(&mut self, key: Key, client: u32) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        let Some(member) = group.members.remove(&client) else { return };
        group.list = None;
        let is_empty = group.members.is_empty();
        self.timers.remove(&(member.timer, key, client));
        self.is_changed = true;
        if let Some(known) = self.clients.get_mut(client as usize) {
            known.groups -= 1;
        }
        if let Some(network) = self.networks.get_mut(key.0 as usize).and_then(Option::as_mut) {
            network.totals.members -= 1;
            network.totals.groups -= u64::from(is_empty);
        }
        if is_empty {
            self.groups.remove(&key);
        }
    }

    /// Takes in what a client reported, which was numbered by the tables of `generation`: these, or those before. `tables` are
    /// those in force.
    pub fn take(&mut self, tables: &Tables, generation: u64, change: Change, now: u64) {
        let client = match generation {
            current if current == self.generation => Some(change.client),
            before if before == self.before.0 => self.renumbered(change.client),
            _ => None,
        };
        let Some(client) = client else { return };
        match change.kind {
            Kind::Join => self.join(tables, client, change.group, now),
            Kind::Leave => self.leave(client, change.group, now),
        }
    }

    fn join(&mut self, tables: &Tables, client: u32, group: [u8; 16], now: u64) {
        let Some(&Client { network: index, groups, .. }) = self.clients.get(client as usize) else { return };
        let Some(network) = self.networks.get_mut(index as usize).and_then(Option::as_mut) else { return };
        let until = now + network.snooped.lifetime();
        let fixed = fixed(tables, (index, group));
        let (is_new, others) = match self.groups.get_mut(&(index, group)) {
            None => (true, fixed.len()),
            Some(known) => {
                if let Some(member) = known.members.get_mut(&client) {
                    // The timer comes too early then, and is set anew.
                    (member.until, member.leaving) = (until, None);
                    return;
                }
                (false, all(fixed, known.members.keys()).count())
            }
        };
        let snooping = network.snooped.snooping;
        let is_full = groups >= snooping.groups_per_client
            || is_new && network.totals.groups >= u64::from(snooping.groups_per_network)
            || others >= network.snooped.copies as usize && fixed.binary_search(&client).is_err();
        if is_full {
            network.totals.refused += 1;
            return;
        }
        let number = joined_number(self.made);
        self.made = self.made.wrapping_add(u32::from(is_new));
        self.insert(client, group, number, Member { until, timer: until, asked: None, leaving: None });
    }

    /// The client is asked whether there are others behind it (RFC 3376 §6.4.2, RFC 3810 §7.4.2).
    fn leave(&mut self, client: u32, group: [u8; 16], now: u64) {
        let Some(&Client { network, .. }) = self.clients.get(client as usize) else { return };
        let key = (network, group);
        let Some(member) = self.groups.get_mut(&key).and_then(|group| group.members.get_mut(&client)) else { return };
        if member.leaving.is_some() {
            return;
        }
        // Whoever comes and goes without end is asked no more often than that.
        let first = member.asked.map_or(now, |asked| now.max(asked + LAST_MEMBER));
        member.leaving = Some(ROBUSTNESS);
        member.until = member.until.min(first + u64::from(ROBUSTNESS) * LAST_MEMBER);
        self.timers.remove(&(member.timer, key, client));
        member.timer = first.min(member.until);
        self.timers.insert((member.timer, key, client));
    }

    /// Does what is due. To be called when [`due`](Self::due) says.
    pub fn tick(&mut self, now: u64) {
        while let Some(&(timer, key, client)) = self.timers.first()
            && timer <= now
        {
            self.timers.pop_first();
            self.see_to(key, client, now);
        }
        for network in self.networks.iter_mut().flatten().filter(|network| network.next <= now) {
            // A round that takes longer goes on: those at its end are to be asked, too.
            network.round.get_or_insert(0);
            let interval = network.snooped.interval();
            network.quick = network.quick.saturating_sub(1);
            network.next = now + if network.quick > 0 { interval / 4 } else { interval };
        }
    }

    /// The timer of a member has come, and is not set any more.
    fn see_to(&mut self, key: Key, client: u32, now: u64) {
        let Some(member) = self.groups.get_mut(&key).and_then(|group| group.members.get_mut(&client)) else { return };
        if member.until <= now {
            return self.remove(key, client);
        }
        let mut next = member.until;
        if let Some(left) = member.leaving.filter(|left| *left > 0) {
            if self.asks.len() < WAITING {
                self.asks.push_back(Ask { client, network: key.0, question: Question::Group(key.1) });
                member.asked = Some(now);
                member.leaving = Some(left - 1);
            } else {
                // Who was not asked stays.
                member.until += LAST_MEMBER;
            }
            next = member.until.min(now + LAST_MEMBER);
        }
        member.timer = next;
        self.timers.insert((next, key, client));
    }

    /// Sees who was heard again after so long a silence that all it had joined is forgotten: it may have been with another
    /// node, and is asked at once. `last_heard` tells when a client was. To be called about once a second.
    pub fn look(&mut self, last_heard: impl Fn(u32) -> Option<u64>) {
        for (network, known) in (0..).zip(&self.networks) {
            let Some(known) = known else { continue };
            for &number in &known.clients {
                let Some(client) = self.clients.get_mut(number as usize) else { continue };
                let Some(heard) = last_heard(number) else { continue };
                let silence = client.heard.map(|before| heard.saturating_sub(before));
                if silence.is_none_or(|silence| silence > known.snooped.lifetime()) {
                    if self.asks.len() >= WAITING {
                        // The next look finds the same.
                        continue;
                    }
                    self.asks.extend(all_groups(known, network, number));
                }
                client.heard = Some(heard);
            }
        }
    }

    /// The next question. Clients that were never heard are asked none, nor are those that [`look`](Self::look) would find
    /// silent for so long that they are asked as soon as they are heard again.
    pub fn ask(&mut self, now: u64) -> Option<Ask> {
        if let Some(ask) = self.asks.pop_front() {
            return Some(ask);
        }
        for (index, network) in (0..).zip(&mut self.networks) {
            let Some(network) = network else { continue };
            while let Some(place) = network.round {
                let Some(&client) = network.clients.get(place) else {
                    network.round = None;
                    break;
                };
                network.round = Some(place + 1);
                let heard = self.clients.get(client as usize).and_then(|client| client.heard);
                if heard.is_some_and(|heard| now.saturating_sub(heard) <= network.snooped.lifetime()) {
                    self.asks.extend(all_groups(network, index, client));
                    if let Some(ask) = self.asks.pop_front() {
                        return Some(ask);
                    }
                }
            }
        }
        None
    }

    /// Whether there are questions to be asked.
    pub fn is_asking(&self) -> bool {
        !self.asks.is_empty() || self.networks.iter().flatten().any(|network| network.round.is_some())
    }

    /// When something is due next.
    pub fn due(&self) -> Option<u64> {
        let rounds = self.networks.iter().flatten().map(|network| network.next);
        rounds.chain(self.timers.first().map(|(timer, ..)| *timer)).min()
    }

    /// What workers are to read, if it has changed. `tables` are those in force.
    pub fn snapshot(&mut self, tables: &Tables) -> Option<Joined> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let group = |(&key, group): (&Key, &mut Group)| {
            let Group { number, members, list } = group;
            let list = list.get_or_insert_with(|| {
                let mut all: Vec<u32> = all(fixed(tables, key), members.keys()).collect();
                all.sort_unstable();
                all.into()
            });
            let number = tables.fixed_group(key.0, address(key.1)).unwrap_or(*number);
            (key, number, list.clone())
        };
        Some(Joined::new(self.groups.iter_mut().map(group)))
    }

    /// Of each network that learns, its index and what is known of it.
    pub fn totals(&self) -> impl Iterator<Item = (u32, Totals)> {
        (0..).zip(&self.networks).filter_map(|(index, network)| Some((index, network.as_ref()?.totals)))
    }

    /// How many groups a client has joined; nothing in a network that does not learn.
    pub fn groups_of(&self, client: u32) -> Option<u32> {
        let client = self.clients.get(client as usize)?;
        self.networks.get(client.network as usize)?.as_ref().map(|_| client.groups)
    }

    /// Whether no network learns.
    pub fn is_idle(&self) -> bool {
        self.clients.is_empty()
    }
}

/// The members of the configuration and those that have joined, each once.
fn all<'a>(fixed: &'a [u32], joined: impl Iterator<Item = &'a u32>) -> impl Iterator<Item = u32> {
    let others = joined.filter(move |member| fixed.binary_search(member).is_err());
    fixed.iter().chain(others).copied()
}

/// What makes a client report all its groups.
fn all_groups(known: &Network, network: u32, client: u32) -> impl Iterator<Item = Ask> {
    let questions = [Question::AllV4, Question::AllV6].into_iter().zip(known.snooped.families);
    questions.filter(|(_, has)| *has).map(move |(question, _)| Ask { client, network, question })
}

/// By the number of a client before, that of the same client in the same network after; [`NOBODY`] for one that is gone.
fn renumbered(before: &Tables, after: &Tables) -> Vec<u32> {
    let network = |tables: &Tables, network: u32| tables.network_names.get(network as usize).cloned();
    let numbers: HashMap<&str, u32> = after.clients.iter().map(|client| &*client.name).zip(0..).collect();
    let number = |old: &super::Client| {
        let number = numbers.get(&*old.name).copied()?;
        let new = after.clients.get(number as usize)?;
        (network(before, old.network) == network(after, new.network)).then_some(number)
    };
    before.clients.iter().map(|old| number(old).unwrap_or(NOBODY)).collect()
}

#[cfg(test)]
mod tests;
