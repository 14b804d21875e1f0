//! Members of groups come and go, as time does.

use std::fmt::Write;
use std::path::Path;

use anytun_common::wire::mapped;

use super::*;
use crate::table::Host;

const GROUP: [u8; 16] = mapped([239, 1, 2, 3]);
const OTHER: [u8; 16] = mapped([239, 1, 2, 4]);
/// Two intervals of 125 s and the 10 s of an answer (RFC 3376 §8.4).
const LIFETIME: u64 = 260_000;

/// The tables of a network with `keys` that has these clients.
fn build(keys: &str, clients: &[&str], before: Option<&Tables>) -> Tables {
    let mut text = format!(
        "[node]\nname = \"n\"\nsender_ids = \"1\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
         address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"office\"\n{keys}\n"
    );
    for (index, name) in clients.iter().enumerate() {
        let mux = index + 1;
        let _ = write!(
            text,
            "[[client]]\nname = \"{name}\"\nmux = {mux}\nprefixes = [\"10.9.0.{mux}/32\"]\nkd_prf = \"null\"\n\
             cipher = \"null\"\nauth = \"null\"\n"
        );
    }
    let config = config::parse(&text, Path::new("node.toml")).expect("a configuration");
    let host = Host { workers: 1, mtus: vec![1500], partial: vec![false] };
    Tables::build(&config, &host, clients.iter().map(|_| Vec::new().into()).collect(), before)
}

/// A network, and what is known of its groups.
struct Site {
    tables: Tables,
    memberships: Memberships,
    joined: Joined,
}

impl Site {
    fn new(keys: &str, clients: &[&str]) -> Self {
        let tables = build(keys, clients, None);
        let mut site = Self { tables, memberships: Memberships::default(), joined: Joined::default() };
        site.memberships.adopt(None, &site.tables, 0);
        site
    }

    fn reload(&mut self, keys: &str, clients: &[&str], now: u64) {
        let after = build(keys, clients, Some(&self.tables));
        self.memberships.adopt(Some(&self.tables), &after, now);
        self.tables = after;
    }

    fn report(&mut self, client: u32, kind: Kind, group: [u8; 16], now: u64) {
        self.memberships.take(&self.tables, self.tables.generation, Change { client, group, kind }, now);
    }

    fn join(&mut self, client: u32, group: [u8; 16], now: u64) {
        self.report(client, Kind::Join, group, now);
    }

    /// Those that workers see, when time has come to `now`.
    fn members(&mut self, group: [u8; 16], now: u64) -> Vec<u32> {
        self.memberships.tick(now);
        if let Some(joined) = self.memberships.snapshot(&self.tables) {
            self.joined = joined;
        }
        let number = self.joined.find(0, &group);
        number.map_or_else(Vec::new, |number| self.tables.members(&self.joined, number).to_vec())
    }

    /// Who is asked what, when time has come to `now`.
    fn asked(&mut self, now: u64) -> Vec<(u32, Question)> {
        self.memberships.tick(now);
        std::iter::from_fn(|| self.memberships.ask(now)).map(|ask| (ask.client, ask.question)).collect()
    }

    fn totals(&self) -> Totals {
        self.memberships.totals().map(|(_, totals)| totals).next().unwrap_or_default()
    }
}

#[test]
fn a_member_is_one_for_as_long_as_it_reports() {
    let mut site = Site::new("snooping = true", &["alice", "bob", "carol"]);
    assert_eq!(site.members(GROUP, 0), []);
    site.join(2, GROUP, 0);
    site.join(0, GROUP, 1000);
    assert_eq!((site.members(GROUP, 1000), site.members(OTHER, 1000)), (vec![0, 2], vec![]));
    assert_eq!(site.totals(), Totals { groups: 1, members: 2, refused: 0 });
    assert_eq!(site.memberships.groups_of(2), Some(1));
    site.join(2, GROUP, 100_000);
    assert_eq!(site.members(GROUP, 1000 + LIFETIME - 1), [0, 2]);
    assert_eq!(site.members(GROUP, 1000 + LIFETIME), [2]);
    assert_eq!(site.members(GROUP, 100_000 + LIFETIME - 1), [2]);
    assert_eq!(site.members(GROUP, 100_000 + LIFETIME), []);
    assert_eq!(site.totals(), Totals::default());
    assert_eq!(site.memberships.groups_of(2), Some(0));
}

#[test]
fn who_leaves_is_asked_twice_and_then_gone() {
    let mut site = Site::new("snooping = true", &["alice", "bob"]);
    site.join(0, GROUP, 0);
    site.join(1, GROUP, 0);
    site.report(0, Kind::Leave, GROUP, 5000);
    let question = (0, Question::Group(GROUP));
    assert_eq!(site.asked(5000), [question], "the others are not asked");
    site.report(0, Kind::Leave, GROUP, 5500);
    assert_eq!(site.asked(5999), []);
    assert_eq!(site.asked(6000), [question]);
    assert_eq!(site.members(GROUP, 6999), [0, 1]);
    assert_eq!(site.members(GROUP, 7000), [1]);
    assert_eq!(site.asked(8000), []);
    site.report(0, Kind::Leave, GROUP, 8000);
    site.report(0, Kind::Leave, OTHER, 8000);
    assert_eq!(site.asked(8000), [], "no member, so nothing changes");
}

#[test]
fn another_host_behind_the_same_client_keeps_it_a_member() {
    let mut site = Site::new("snooping = true", &["alice"]);
    site.join(0, GROUP, 0);
    site.report(0, Kind::Leave, GROUP, 5000);
    assert_eq!(site.asked(5000).len(), 1);
    site.join(0, GROUP, 5800);
    assert_eq!(site.asked(7000), [], "it has answered");
    assert_eq!(site.members(GROUP, 5800 + LIFETIME - 1), [0]);
    assert_eq!(site.members(GROUP, 5800 + LIFETIME), []);
    // Who comes and goes all the time is asked once a second.
    let mut asked = 0;
    for now in (300_000..310_000).step_by(10) {
        site.join(0, GROUP, now);
        site.report(0, Kind::Leave, GROUP, now);
        asked += site.asked(now).len();
    }
    assert!((9..=11).contains(&asked), "{asked} times in ten seconds");
}

#[test]
fn what_is_more_than_a_limit_is_refused() {
    let keys = "copies = 2\nsnooping = true\ngroups_per_client = 2\ngroups_per_network = 3";
    let mut site = Site::new(keys, &["alice", "bob", "carol"]);
    let group = |last| mapped([239, 0, 0, last]);
    (1..=3).for_each(|last| site.join(0, group(last), 0));
    assert_eq!(site.totals(), Totals { groups: 2, members: 2, refused: 1 }, "two of a client");
    (3..=4).for_each(|last| site.join(1, group(last), 0));
    assert_eq!(site.totals(), Totals { groups: 3, members: 3, refused: 2 }, "three of the network");
    site.join(1, group(1), 0);
    site.join(2, group(1), 0);
    assert_eq!(site.totals(), Totals { groups: 3, members: 4, refused: 3 }, "two members, as a packet is copied twice");
    assert_eq!(site.members(group(1), 0), [0, 1]);
    site.join(0, group(1), 10);
    assert_eq!(site.totals().refused, 3, "who is a member may say so again");
    site.report(0, Kind::Leave, group(1), 20);
    site.join(2, group(1), 20);
    assert_eq!(site.members(group(1), 2020), [1]);
    site.join(2, group(1), 2020);
    assert_eq!(site.members(group(1), 2020), [1, 2], "there is room again");
}

#[test]
fn members_of_the_configuration_stay_and_count_once() {
    let given = "copies = 3\nsnooping = true\n[[group]]\naddress = \"239.1.2.3\"\nmembers = [\"carol\", \"alice\"]";
    let mut site = Site::new(given, &["alice", "bob", "carol", "dave"]);
    let number = site.tables.fixed_group(0, address(GROUP)).expect("a group");
    assert_eq!(site.tables.members(&site.joined, number), [0, 2]);
    site.join(1, GROUP, 0);
    site.join(2, GROUP, 0);
    site.join(3, GROUP, 0);
    assert_eq!(site.members(GROUP, 0), [0, 1, 2]);
    assert_eq!((site.joined.find(0, &GROUP), site.totals().refused), (Some(number), 1));
    site.report(2, Kind::Leave, GROUP, 0);
    site.report(1, Kind::Leave, GROUP, 0);
    site.members(GROUP, 2000);
    assert_eq!(site.tables.members(&site.joined, number), [0, 2]);
}

#[test]
fn a_group_has_one_number_for_as_long_as_it_is_there() {
    let mut site = Site::new("snooping = true", &["alice", "bob"]);
    let number = |site: &mut Site, now| {
        site.members(GROUP, now);
        site.joined.find(0, &GROUP).expect("a group")
    };
    site.join(0, GROUP, 0);
    let first = number(&mut site, 0);
    site.join(1, OTHER, 0);
    site.join(1, GROUP, 0);
    assert_eq!(number(&mut site, 0), first);
    assert!(is_group_of_both(&site, first));
    assert_eq!(site.members(GROUP, LIFETIME), []);
    assert_eq!(site.tables.members(&site.joined, first), [], "packets that wait are for nobody");
    site.join(1, GROUP, LIFETIME);
    assert_ne!(number(&mut site, LIFETIME), first);
}

fn is_group_of_both(site: &Site, number: u32) -> bool {
    crate::table::is_group(number) && site.tables.members(&site.joined, number) == [0, 1]
}

#[test]
fn a_reload_keeps_the_members_that_stay() {
    let mut site = Site::new("snooping = true", &["alice", "bob", "carol"]);
    site.join(0, GROUP, 0);
    site.join(2, GROUP, 0);
    site.join(1, OTHER, 0);
    site.report(0, Kind::Leave, GROUP, 1000);
    site.reload("snooping = true", &["carol", "dave", "alice"], 1500);
    assert_eq!((site.members(GROUP, 1500), site.members(OTHER, 1500)), (vec![0, 2], vec![]), "bob is gone");
    assert_eq!(site.totals(), Totals { groups: 1, members: 2, refused: 0 });
    assert_eq!(site.asked(2000), [(2, Question::Group(GROUP)); 2], "alice has left still");
    assert_eq!(site.members(GROUP, 3000), [0]);
    // Numbered before, and taken in afterwards.
    for (client, kind) in [(1, Kind::Join), (0, Kind::Join)] {
        site.memberships.take(&site.tables, 1, Change { client, group: OTHER, kind }, 3000);
    }
    assert_eq!(site.members(OTHER, 3000), [2]);
    site.reload("snooping = true", &["alice"], 4000);
    site.memberships.take(&site.tables, 1, Change { client: 0, group: GROUP, kind: Kind::Join }, 4000);
    assert_eq!((site.members(GROUP, 4000), site.members(OTHER, 4000)), (vec![], vec![0]), "too long ago");
    site.reload("", &["alice"], 5000);
    assert!(site.memberships.is_idle());
    assert_eq!((site.members(OTHER, 5000), site.memberships.groups_of(0)), (vec![], None));
    site.join(0, GROUP, 6000);
    assert_eq!(site.members(GROUP, 6000), []);
}

#[test]
fn clients_that_were_heard_are_asked_in_every_round() {
    let mut site = Site::new("snooping = true", &["alice", "bob", "carol"]);
    assert_eq!(site.asked(0), [], "nobody was heard yet");
    site.memberships.look(|client| (client != 1).then_some(500));
    let both = [(0, Question::AllV4), (2, Question::AllV4)];
    assert_eq!(site.asked(1000), both, "at once");
    site.memberships.look(|client| (client != 1).then_some(900));
    assert_eq!(site.asked(2000), []);
    // RFC 3376 §8.6, §8.7: the second query follows after a quarter of the interval.
    assert_eq!(site.asked(31_249), []);
    assert_eq!(site.asked(31_250), both);
    assert_eq!(site.asked(31_250 + 124_999), []);
    assert_eq!(site.asked(31_250 + 125_000), both);
    // Carol is silent from now on.
    site.memberships.look(|client| (client == 0).then_some(250_000));
    assert_eq!(site.asked(31_250 + 250_000), [(0, Question::AllV4)]);
    site.memberships.look(|client| (client == 2).then_some(290_000));
    assert_eq!(site.asked(290_000), [(2, Question::AllV4)], "she may come from another node");
}

#[test]
fn who_was_not_asked_stays_a_member() {
    let mut site = Site::new("snooping = true\ngroups_per_client = 2000\ngroups_per_network = 2000", &["alice"]);
    let group = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        mapped([239, 0, high, low])
    };
    let count = WAITING as u32 + 1;
    (0..count).for_each(|number| site.join(0, group(number), 0));
    (0..count).for_each(|number| site.report(0, Kind::Leave, group(number), 0));
    site.memberships.tick(0);
    site.memberships.tick(1000);
    site.memberships.tick(2000);
    assert_eq!(site.totals().members, u64::from(count), "nobody has sent a query");
    assert_eq!(std::iter::from_fn(|| site.memberships.ask(2000)).count(), WAITING);
}
