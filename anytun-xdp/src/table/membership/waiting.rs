//! The questions that wait, and whose turn it is to be asked.

use std::collections::{BTreeSet, VecDeque};

use super::question::LAST_MEMBER;
use super::{Ask, Memberships, Network, Question, ROBUSTNESS, Whereabouts};

/// Questions about groups that wait, at most.
const MOST: usize = 1024;

/// Questions of three kinds. These take turns, so whoever makes many of one kind holds up no other.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// About one group.
    groups: VecDeque<Ask>,
    /// When clients that came back are asked for all their groups; each stands here once at most.
    returned: BTreeSet<(u64, u32)>,
    /// Networks with a round of general queries under way, and whom it has yet to reach. They take turns, too.
    rounds: VecDeque<(u32, VecDeque<u32>)>,
    /// The second question of the client that was asked last.
    rest: Option<Ask>,
    /// The kind whose turn it is.
    turn: Kind,
}

#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    #[default]
    Groups,
    Returned,
    Rounds,
}

const KINDS: u32 = 3;

impl Kind {
    const fn next(self) -> Self {
        match self {
            Self::Groups => Self::Returned,
            Self::Returned => Self::Rounds,
            Self::Rounds => Self::Groups,
        }
    }
}

/// How far a client that came back has been asked for its groups: as an interface that comes up, [`ROBUSTNESS`] times, a
/// quarter of the interval apart (RFC 3376 §8.6, §8.7, RFC 3810 §9.6, §9.7).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Startup {
    /// How often it is yet to be asked.
    left: u32,
    /// When that is next, as long as some are left.
    next: u64,
    /// When it was last asked so.
    asked: Option<u64>,
}

impl Waiting {
    /// Leaves a question about a group, if there is room; says whether there was.
    pub(super) fn push(&mut self, ask: Ask) -> bool {
        let has_room = self.groups.len() < MOST;
        if has_room {
            self.groups.push_back(ask);
        }
        has_room
    }

    /// Whether a round is under way in a network.
    pub(super) fn has_round(&self, network: u32) -> bool {
        self.rounds.iter().any(|(index, _)| *index == network)
    }

    /// Begins a round that reaches these clients of a network, where none is under way.
    pub(super) fn begin_round(&mut self, network: u32, clients: &[u32]) {
        if !clients.is_empty() {
            self.rounds.push_back((network, clients.iter().copied().collect()));
        }
    }

    /// Whether something can be asked at once, apart from clients that came back.
    fn is_asking(&self) -> bool {
        self.rest.is_some() || !self.groups.is_empty() || !self.rounds.is_empty()
    }

    /// The client that some round reaches next.
    fn next_of_round(&mut self) -> Option<u32> {
        let (network, mut clients) = self.rounds.pop_front()?;
        let client = clients.pop_front();
        if !clients.is_empty() {
            self.rounds.push_back((network, clients));
        }
        client
    }
}

impl Memberships {
    /// Takes over what waited by the numbers of before. What a client is to be asked after a while, it is asked in a quarter
    /// of the new interval at the latest.
    pub(super) fn adopt_waiting(&mut self, old: Waiting, now: u64) {
        let ask = |ask: Ask| {
            let client = self.renumbered(ask.client)?;
            let network = self.clients.get(client as usize)?.network;
            Some(Ask { client, network, ..ask })
        };
        let groups = old.groups.into_iter().filter_map(ask).collect();
        let rest = old.rest.and_then(ask);
        let mut rounds = VecDeque::new();
        for (_, clients) in old.rounds {
            let clients: VecDeque<u32> = clients.into_iter().filter_map(|number| self.renumbered(number)).collect();
            let first = clients.front().and_then(|client| self.clients.get(*client as usize));
            if let Some(network) = first.map(|client| client.network) {
                rounds.push_back((network, clients));
            }
        }
        self.waiting = Waiting { groups, returned: BTreeSet::new(), rounds, rest, turn: old.turn };
        for (number, client) in (0..).zip(&mut self.clients) {
            let Some(Some(network)) = self.networks.get(client.network as usize) else { continue };
            if client.startup.left > 0 {
                client.startup.next = client.startup.next.min(now + network.snooped.startup());
                self.waiting.returned.insert((client.startup.next, number));
            }
        }
    }

    /// Sees who came back: from another place, or after so long a silence that all it had joined is forgotten. It may have
    /// been with another node, and is asked at once. `whereabouts` tells of a client that was heard and has an endpoint.
    /// To be called about once a second.
    pub fn look(&mut self, now: u64, whereabouts: impl Fn(u32) -> Option<Whereabouts>) {
        for network in self.networks.iter().flatten() {
            for &number in &network.clients {
                let Some(client) = self.clients.get_mut(number as usize) else { continue };
                let Some(seen) = whereabouts(number) else { continue };
                let came_back = client.last.is_none_or(|last| {
                    let silence = seen.heard.saturating_sub(last.heard);
                    seen.endpoint != last.endpoint || silence > network.snooped.lifetime()
                });
                client.last = Some(seen);
                let startup = &mut client.startup;
                // It is about to be asked already.
                if !came_back || startup.left == ROBUSTNESS {
                    continue;
                }
                self.waiting.returned.remove(&(startup.next, number));
                // Whoever comes back without end is asked no more often than that.
                startup.next = startup.asked.map_or(now, |asked| now.max(asked + LAST_MEMBER));
                startup.left = ROBUSTNESS;
                self.waiting.returned.insert((startup.next, number));
            }
        }
    }

    /// The next question. Clients that were never heard are asked none, nor are those that have joined nothing and were
    /// silent for so long that [`look`](Self::look) has them asked as soon as they are heard again.
    pub fn ask(&mut self, now: u64) -> Option<Ask> {
        if let Some(rest) = self.waiting.rest.take() {
            return Some(rest);
        }
        for _ in 0..KINDS {
            let kind = self.waiting.turn;
            self.waiting.turn = kind.next();
            let ask = match kind {
                Kind::Groups => self.waiting.groups.pop_front(),
                Kind::Returned => self.ask_first(now, |all| all.next_returned(now)),
                Kind::Rounds => self.ask_first(now, |all| all.next_reached(now)),
            };
            if ask.is_some() {
                return ask;
            }
        }
        None
    }

    /// Asks the first of the clients that `next` says whom there is something to ask.
    fn ask_first(&mut self, now: u64, mut next: impl FnMut(&mut Self) -> Option<u32>) -> Option<Ask> {
        while let Some(client) = next(self) {
            let ask = self.ask_all(client, now);
            if ask.is_some() {
                return ask;
            }
        }
        None
    }

    /// Whether there are questions to be asked at once; those of clients that came back are [`due`](Self::due).
    pub fn is_asking(&self) -> bool {
        self.waiting.is_asking()
    }

    /// When the next client that came back is to be asked.
    pub(super) fn due_return(&self) -> Option<u64> {
        self.waiting.returned.first().map(|(next, _)| *next)
    }

    /// The next client that came back and is to be asked by now.
    fn next_returned(&mut self, now: u64) -> Option<u32> {
        let (_, number) = self.waiting.returned.first().filter(|(next, _)| *next <= now).copied()?;
        self.waiting.returned.pop_first();
        let client = self.clients.get_mut(number as usize)?;
        let network = self.networks.get(client.network as usize)?.as_ref()?;
        let startup = &mut client.startup;
        startup.left = startup.left.saturating_sub(1);
        startup.asked = Some(now);
        if startup.left > 0 {
            startup.next = now + network.snooped.startup();
            self.waiting.returned.insert((startup.next, number));
        }
        Some(number)
    }

    /// The next client that a round reaches.
    fn next_reached(&mut self, now: u64) -> Option<u32> {
        let number = self.waiting.next_of_round()?;
        if let Some(client) = self.clients.get_mut(number as usize) {
            client.reached.rotate_right(1);
            client.reached[0] = Some(now);
        }
        Some(number)
    }

    /// What makes a client report all its groups: the first question, while a second waits.
    fn ask_all(&mut self, number: u32, now: u64) -> Option<Ask> {
        let client = self.clients.get(number as usize)?;
        let network = self.networks.get(client.network as usize)?.as_ref()?;
        let is_silent = |last: Whereabouts| now.saturating_sub(last.heard) > network.snooped.lifetime();
        // A member may have no more to say than its reports.
        if client.groups == 0 && client.last.is_none_or(is_silent) {
            return None;
        }
        let mut asks = all_groups(network, client.network, number);
        let first = asks.next();
        self.waiting.rest = asks.next();
        first
    }
}

/// What makes a client report all its groups.
fn all_groups(known: &Network, network: u32, client: u32) -> impl Iterator<Item = Ask> {
    let questions = [Question::AllV4, Question::AllV6].into_iter().zip(known.snooped.families);
    questions.filter(|(_, has)| *has).map(move |(question, _)| Ask { client, network, question })
}
