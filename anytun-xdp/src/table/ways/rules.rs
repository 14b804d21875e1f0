//! Rules and routes, looked up as the kernel does (ip-rule(8), ip-route(8)).

use anytun_common::wire::unmapped;
use hashbrown::HashMap;

use super::Wayless;
use crate::config::Prefix;
use crate::table::Lpm;

/// The family of addresses that a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A policy rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Rules are asked in the order of this number.
    pub priority: u32,
    /// What packets it is for.
    pub family: Family,
    /// Where they come from; anywhere when it does not say.
    pub from: Option<Prefix>,
    /// Where they go; anywhere when it does not say.
    pub to: Option<Prefix>,
    /// Whether it looks at more than that, so that only the kernel knows whether it matches.
    pub more: bool,
    /// What it does.
    pub action: Action,
}

/// What a rule does with the packets it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Looks them up in a table; routes with a prefix of at most so many bits do not count.
    Table(u32, Option<u8>),
    /// Ends their way.
    End(Wayless),
    /// Nothing.
    Nothing,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The table it is in.
    pub table: u32,
    /// Where it leads.
    pub prefix: Prefix,
    /// Of several routes with one prefix the one with the least counts.
    pub metric: u32,
    /// What becomes of packets.
    pub fate: Fate,
    /// Octets of the largest IP packet, 0 when it does not say.
    pub mtu: u16,
}

/// What becomes of packets that follow a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// They go to one of these next hops, each as often as its weight says.
    Hops(Vec<Hop>),
    /// They go nowhere.
    End(Wayless),
    /// They are looked up by the rules that follow.
    Throw,
}

/// A next hop of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The kernel's number of the interface.
    pub ifindex: u32,
    /// The gateway, an IPv4 address mapped; none when the destination itself is behind the interface.
    pub gateway: Option<[u8; 16]>,
    /// Its share among the next hops of its route; at least 1.
    pub weight: u32,
}

/// All rules and routes.
#[derive(Default)]
pub struct Routes {
    v4: Vec<Step>,
    v6: Vec<Step>,
    tables: Vec<Table>,
    count: usize,
}

/// A rule whose table was found.
struct Step {
    from: Option<Prefix>,
    to: Option<Prefix>,
    more: bool,
    action: StepAction,
}

enum StepAction {
    Table(usize, Option<u8>),
    End(Wayless),
}

/// A routing table: the place of a route by prefix.
#[derive(Default)]
struct Table {
    places: Lpm,
    routes: Vec<Route>,
}

impl Routes {
    /// Makes the tables. Of routes with equal table, prefix and metric the first counts.
    pub fn new(mut rules: Vec<Rule>, mut routes: Vec<Route>) -> Self {
        let count = routes.len();
        // The worst first, so that the best is written last.
        routes.reverse();
        routes.sort_by_key(|route| std::cmp::Reverse(route.metric));
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let mut tables: Vec<Table> = Vec::new();
        for route in routes {
            let number = *numbers.entry(route.table).or_insert_with(|| {
                tables.push(Table::default());
                tables.len() - 1
            });
            let table = &mut tables[number];
            table.places.insert(route.prefix, table.routes.len() as u32);
            table.routes.push(route);
        }
        rules.sort_by_key(|rule| rule.priority);
        let mut all = Self { tables, count, ..Self::default() };
        for rule in rules {
            let action = match rule.action {
                Action::Nothing => continue,
                Action::End(wayless) => StepAction::End(wayless),
                Action::Table(table, suppressed) => match numbers.get(&table) {
                    Some(&number) => StepAction::Table(number, suppressed),
                    None => continue,
                },
            };
            let step = Step { from: rule.from, to: rule.to, more: rule.more, action };
            match rule.family {
                Family::V4 => all.v4.push(step),
                Family::V6 => all.v6.push(step),
            }
        }
        all
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many rules are asked, of both families.
    pub fn rules(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The next hop of a packet, and the MTU that its route gives, 0 without one.
    #[inline]
    pub(super) fn find(&self, destination: &[u8; 16], source: &[u8; 16], flow: u32) -> Result<(Hop, u16), Wayless> {
        let steps = if unmapped(*destination).is_some() { &self.v4 } else { &self.v6 };
        for step in steps {
            let matches = |prefix: &Option<Prefix>, address| prefix.is_none_or(|prefix| prefix.has(address));
            if !matches(&step.from, source) || !matches(&step.to, destination) {
                continue;
            }
            if step.more {
                return Err(Wayless::Kernel);
            }
            let (table, suppressed) = match step.action {
                StepAction::End(wayless) => return Err(wayless),
                StepAction::Table(table, suppressed) => (&self.tables[table], suppressed),
            };
            let Some(route) = table.find(destination) else { continue };
            if suppressed.is_some_and(|length| route.prefix.length <= length) {
                continue;
            }
            match &route.fate {
                Fate::Hops(hops) => return choose(hops, flow).map(|hop| (hop, route.mtu)).ok_or(Wayless::Unreachable),
                Fate::End(wayless) => return Err(*wayless),
                Fate::Throw => {}
            }
        }
        Err(Wayless::Unreachable)
    }
}

impl Table {
    #[inline]
    fn find(&self, destination: &[u8; 16]) -> Option<&Route> {
        let place = match unmapped(*destination) {
            Some(v4) => self.places.find_v4(v4),
            None => self.places.find_v6(*destination),
        };
        self.routes.get(place? as usize)
    }
}

/// One of several next hops. A flow stays with one, as long as they are the same.
#[inline]
fn choose(hops: &[Hop], flow: u32) -> Option<Hop> {
    if let [hop] = hops {
        return Some(*hop);
    }
    let all: u64 = hops.iter().map(|hop| u64::from(hop.weight)).sum();
    // The flow's share of the sum, without a division.
    let mut at = (u64::from(flow) * all) >> 32;
    for hop in hops {
        match at.checked_sub(u64::from(hop.weight)) {
            Some(rest) => at = rest,
            None => return Some(*hop),
        }
    }
    None
}
