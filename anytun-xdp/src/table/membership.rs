//! Who is a member of which group by what clients report, and when they are asked: the router's part of IGMPv3 (RFC 3376 §6)
//! and MLDv2 (RFC 3810 §7). Every client is a link of its own, at which there may be many hosts. Sources are not looked at:
//! who wants a group from some of them gets it from all.
//!
//! Times are in milliseconds since the node started.

mod question;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anytun_common::wire::unmapped;
use hashbrown::{HashMap, HashSet};

use self::question::LAST_MEMBER;
pub use self::question::{Ask, Change, Kind, Question, ROBUSTNESS, Snooped, Whereabouts};
use self::waiting::{Startup, Waiting};
use super::groups::joined_number;
use super::joined::Key;
use super::{Joined, NOBODY, Tables};

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
    waiting: Waiting,
    /// Numbers for groups that were looked at so far.
    made: u32,
    /// Numbers of the groups that there are.
    numbers: HashSet<u32>,
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
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    network: u32,
    /// Groups that it has joined.
    groups: u32,
    /// When and where it had been heard last at the last [`look`](Memberships::look).
    last: Option<Whereabouts>,
    startup: Startup,
    /// When the last rounds reached it, the latest first. There may be one more in the time of a member than is its due.
    reached: [Option<u64>; ROBUSTNESS as usize + 1],
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
    /// When it last reported.
    reported: u64,
    /// Until when it is one, unless it reports again.
    until: u64,
    /// The time at which it stands among the timers.
    timer: u64,
    /// When it was last asked about the group.
    asked: Option<u64>,
    /// How often it is yet to be asked, since a host left; nothing while none has.
    leaving: Option<u32>,
}

impl Member {
    /// The same member where members that report no more are such for another time (RFC 3376 §8.4, RFC 3810 §9.4). When
    /// that is shorter, it begins anew, so that whoever answers is asked in time.
    fn adapted(mut self, before: u64, after: u64, now: u64) -> Self {
        if self.leaving.is_none() {
            self.until = match after.checked_sub(before) {
                Some(more) => self.until + more,
                None => self.until.min(now + after),
            };
            self.timer = self.timer.min(self.until);
        }
        self
    }
}

impl Client {
    /// When rounds had reached it as often as is the due of a member that reported last at `reported`; nothing as long as
    /// they have not.
    fn asked_since(&self, reported: u64) -> Option<u64> {
        let rounds = self.reached.iter().flatten().filter(|reached| **reached >= reported).count();
        self.reached.get(rounds.checked_sub(ROBUSTNESS as usize)?).copied().flatten()
    }
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
                // At first each client is asked when it is heard.
                next: known.map_or(end, |known| known.next.min(end)),
            })
        };
        self.networks = after.network_names.iter().enumerate().map(network).collect();
        for (number, client) in (0..).zip(&after.clients) {
            self.clients.push(Client { network: client.network, ..Client::default() });
            if let Some(network) = self.networks.get_mut(client.network as usize).and_then(Option::as_mut) {
                network.clients.push(number);
            }
        }
        let Some(before) = before else { return };
        self.before = (before.generation, renumbered(before, after));
        for (number, known) in (0..).zip(&old.clients) {
            // Where nothing was learned, each client is asked when it is heard, as at first.
            let has_learned = old.networks.get(known.network as usize).is_some_and(Option::is_some);
            if has_learned
                && let Some(client) = self.renumbered(number).and_then(|number| self.clients.get_mut(number as usize))
            {
                *client = Client { network: client.network, groups: 0, ..*known };
            }
        }
        self.adopt_waiting(old.waiting, now);
        for ((network, group), Group { number, members, .. }) in old.groups {
            let known = old.networks.get(network as usize).and_then(Option::as_ref);
            let lifetime = known.map_or(0, |known| known.snooped.lifetime());
            for (client, member) in members {
                if let Some(client) = self.renumbered(client) {
                    self.insert(client, group, number, member.adapted(lifetime, self.lifetime_of(client), now));
                }
            }
        }
    }

    /// How long a client is a member that reports no more; 0 in a network that does not learn.
    fn lifetime_of(&self, client: u32) -> u64 {
        let network = self.clients.get(client as usize).and_then(|client| self.networks.get(client.network as usize));
        network.and_then(Option::as_ref).map_or(0, |network| network.snooped.lifetime())
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
            self.numbers.insert(number);
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
        let (number, is_empty) = (group.number, group.members.is_empty());
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
            self.numbers.remove(&number);
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
                    (member.reported, member.until, member.leaving) = (now, until, None);
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
        let number = self.free_number();
        self.insert(client, group, number, Member { reported: now, until, timer: until, asked: None, leaving: None });
    }

    /// A number that no group has. Those of groups that are gone come last: workers may still have packets to these.
    fn free_number(&mut self) -> u32 {
        loop {
            let number = joined_number(self.made);
            self.made = self.made.wrapping_add(1);
            if !self.numbers.contains(&number) {
                return number;
            }
        }
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
        for (index, network) in (0..).zip(&mut self.networks) {
            // A round that takes longer goes on to its end, and the next begins then.
            if let Some(network) = network.as_mut().filter(|network| network.next <= now)
                && !self.waiting.has_round(index)
            {
                self.waiting.begin_round(index, &network.clients);
                network.next = now + network.snooped.interval();
            }
        }
    }

    /// The timer of a member has come, and is not set any more.
    fn see_to(&mut self, key: Key, client: u32, now: u64) {
        let Some(member) = self.groups.get_mut(&key).and_then(|group| group.members.get_mut(&client)) else { return };
        if member.until <= now {
            let network = self.networks.get(key.0 as usize).and_then(Option::as_ref);
            let asked = self.clients.get(client as usize).and_then(|client| client.asked_since(member.reported));
            // Rounds may take longer than their interval: who was not asked as often as is its due, or can still answer,
            // stays.
            let end = |network: &Network| asked.unwrap_or(now) + network.snooped.response(Question::AllV4);
            let Some(end) = network.filter(|_| member.leaving.is_none()).map(end).filter(|end| *end > now) else {
                return self.remove(key, client);
            };
            member.until = end;
        }
        let mut next = member.until;
        if let Some(left) = member.leaving.filter(|left| *left > 0) {
            if self.waiting.push(Ask { client, network: key.0, question: Question::Group(key.1) }) {
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

    /// When something is due next.
    pub fn due(&self) -> Option<u64> {
        let rounds = self.networks.iter().flatten().map(|network| network.next);
        rounds.chain(self.timers.first().map(|(timer, ..)| *timer)).chain(self.due_return()).min()
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
