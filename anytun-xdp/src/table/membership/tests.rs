//! Who is a member when, and who is asked what. Times are those of RFC 3376 §8 and RFC 3810 §9.

mod asking;

use std::path::Path;

use anytun_common::wire::mapped;

use super::*;
use crate::config;
use crate::satp::lease::Keeper;
use crate::table::Host;

const GROUP: [u8; 16] = mapped([239, 1, 2, 3]);
const OTHER: [u8; 16] = mapped([239, 1, 2, 4]);
const GROUP6: [u8; 16] = [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3];

/// Robustness times the query interval, and the query response interval.
const LIFETIME: u64 = 2 * 125_000 + 10_000;

/// Memberships with the tables that they are of.
struct Net {
    memberships: Memberships,
    tables: Tables,
    keeper: Keeper,
    _state: tempfile::TempDir,
}

/// A configuration whose network `office` has `keys`, with clients of that network by name; `more` are further tables.
fn text(keys: &str, clients: &[&str], more: &str) -> String {
    let mut text = format!(
        "[node]\nname = \"n\"\nsender_ids = \"7\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
         address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"office\"\n{keys}\n{more}\n"
    );
    for (place, name) in clients.iter().enumerate() {
        // What a client is called says who it is, wherever it stands.
        let (mux, host) = (place + 1, name.as_bytes()[0]);
        text += &format!(
            "[[client]]\nname = \"{name}\"\nnetwork = \"office\"\nmux = {mux}\npassphrase = \"the one of {name}\"\n\
             prefixes = [\"10.9.0.{host}/32\", \"fd00:9::{host}/128\"]\n"
        );
    }
    text
}

fn build(text: &str, keeper: &mut Keeper, before: Option<&Tables>) -> Tables {
    let config = config::parse(text, Path::new("node.toml")).expect("a configuration");
    let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
    let host = Host { workers: 1, mtus: vec![1500], partial: vec![false] };
    Tables::build(&config, &host, keeper.sequences(&fingerprints).expect("leases"), before)
}

impl Net {
    fn new(text: &str) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let mut keeper = Keeper::open(state.path(), 7, 7, 1).expect("a store");
        let tables = build(text, &mut keeper, None);
        let mut memberships = Memberships::default();
        memberships.adopt(None, &tables, 0);
        Self { memberships, tables, keeper, _state: state }
    }

    /// Puts another configuration into force.
    fn configure(&mut self, text: &str, now: u64) {
        let tables = build(text, &mut self.keeper, Some(&self.tables));
        self.memberships.adopt(Some(&self.tables), &tables, now);
        self.tables = tables;
    }

    fn report(&mut self, client: u32, kind: Kind, group: [u8; 16], now: u64) {
        let generation = self.tables.generation;
        self.memberships.take(&self.tables, generation, Change { client, group, kind }, now);
    }

    fn join(&mut self, client: u32, group: [u8; 16], now: u64) {
        self.report(client, Kind::Join, group, now);
    }

    fn leave(&mut self, client: u32, group: [u8; 16], now: u64) {
        self.report(client, Kind::Leave, group, now);
    }

    /// Looks who was heard, and when.
    fn look(&mut self, now: u64, heard: impl Fn(u32) -> Option<u64>) {
        let endpoint = (mapped([198, 51, 100, 7]), 4444);
        self.memberships.look(now, |client| heard(client).map(|heard| Whereabouts { heard, endpoint }));
    }

    /// Does all that is due until `end`; returns who was asked what, and when.
    fn run(&mut self, end: u64) -> Vec<(u64, u32, Question)> {
        let mut asked = Vec::new();
        while let Some(due) = self.memberships.due().filter(|due| *due <= end) {
            self.memberships.tick(due);
            while let Some(Ask { client, question, .. }) = self.memberships.ask(due) {
                asked.push((due, client, question));
            }
        }
        asked
    }

    /// The clients that get a packet to a group, as workers see it.
    fn members(&mut self, group: [u8; 16]) -> Vec<u32> {
        if let Some(joined) = self.memberships.snapshot(&self.tables) {
            self.tables.joined.store(Arc::new(joined));
        }
        let joined = self.tables.joined.load();
        let number = self.tables.fixed_group(0, address(group)).or_else(|| joined.find(0, &group));
        number.map_or(Vec::new(), |number| self.tables.members(&joined, number).to_vec())
    }

    fn totals(&self) -> Totals {
        self.memberships.totals().find(|(network, _)| *network == 0).map(|(_, totals)| totals).unwrap_or_default()
    }
}

#[test]
fn a_member_that_reports_no_more_is_one_until_its_time_is_up() {
    let mut net = Net::new(&text("snooping = true", &["a", "b", "c"], ""));
    assert!(net.members(GROUP).is_empty());
    net.join(2, GROUP, 1_000);
    net.join(0, GROUP, 2_000);
    net.join(0, GROUP6, 2_000);
    assert_eq!((net.members(GROUP), net.members(GROUP6), net.members(OTHER)), (vec![0, 2], vec![0], vec![]));
    assert_eq!((net.memberships.groups_of(0), net.memberships.groups_of(1)), (Some(2), Some(0)));
    net.join(0, GROUP, 200_000);
    net.run(1_000 + LIFETIME - 1);
    assert_eq!(net.members(GROUP), [0, 2]);
    net.run(1_000 + LIFETIME);
    assert_eq!(net.members(GROUP), [0]);
    net.run(2_000 + LIFETIME);
    assert_eq!((net.members(GROUP), net.members(GROUP6)), (vec![0], vec![]), "each group has a time of its own");
    net.run(200_000 + LIFETIME - 1);
    assert_eq!(net.members(GROUP), [0]);
    net.run(200_000 + LIFETIME);
    assert_eq!((net.members(GROUP), net.totals()), (vec![], Totals::default()));
}

#[test]
fn who_leaves_is_asked_twice_whether_there_are_others() {
    let mut net = Net::new(&text("snooping = true", &["a", "b"], ""));
    net.run(1_000);
    net.join(0, GROUP, 1_000);
    net.join(1, GROUP, 1_000);
    net.leave(0, GROUP, 5_000);
    net.leave(0, GROUP, 5_100);
    let question = Question::Group(GROUP);
    assert_eq!(net.run(6_999), [(5_000, 0, question), (6_000, 0, question)]);
    assert_eq!(net.members(GROUP), [0, 1], "as long as it can answer");
    assert!(net.run(7_000).is_empty());
    assert_eq!(net.members(GROUP), [1]);
    net.leave(1, GROUP, 10_000);
    net.run(10_500);
    net.join(1, GROUP, 10_600);
    assert!(net.run(20_000).is_empty(), "who has answered is asked no more");
    assert_eq!(net.members(GROUP), [1]);
    net.leave(0, GROUP, 21_000);
    net.leave(1, OTHER, 21_000);
    assert!(net.run(30_000).is_empty(), "who is no member leaves nothing");
}

#[test]
fn who_comes_and_goes_without_end_is_asked_once_a_second() {
    let mut net = Net::new(&text("snooping = true", &["a"], ""));
    net.run(999);
    let mut asked = Vec::new();
    for now in (1_000..11_000).step_by(5) {
        net.join(0, GROUP, now);
        net.leave(0, GROUP, now + 1);
        asked.extend(net.run(now + 4));
    }
    let times: Vec<u64> = asked.iter().map(|(time, ..)| *time).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000) && times.len() >= 9, "{times:?}");
    assert_eq!(net.members(GROUP), [0]);
    net.run(20_000);
    assert!(net.members(GROUP).is_empty());
}

#[test]
fn limits_hold_for_each_client_each_network_and_each_group() {
    let group = |number: u8| mapped([239, 7, 7, number]);
    let keys = "snooping = true\ngroups_per_client = 2\ngroups_per_network = 3\ncopies = 2";
    let mut net = Net::new(&text(keys, &["a", "b", "c"], ""));
    (0..3).for_each(|number| net.join(0, group(number), 0));
    assert_eq!((net.memberships.groups_of(0), net.totals().refused), (Some(2), 1), "of a client");
    (2..4).for_each(|number| net.join(1, group(number), 0));
    assert_eq!((net.totals().groups, net.totals().refused), (3, 2), "of a network");
    net.join(1, group(0), 0);
    net.join(2, group(0), 0);
    assert_eq!((net.members(group(0)), net.totals().refused), (vec![0, 1], 3), "of copies");
    net.join(0, group(0), 1);
    assert_eq!(net.totals(), Totals { groups: 3, members: 4, refused: 3 }, "who is a member may stay");
    net.leave(0, group(0), 1_000);
    net.run(3_000);
    net.join(2, group(0), 3_000);
    assert_eq!((net.members(group(0)), net.totals().refused), (vec![1, 2], 3), "what is free again can be had");
}

#[test]
fn members_of_the_configuration_and_others_get_each_packet_once() {
    let more = "[[group]]\nnetwork = \"office\"\naddress = \"239.1.2.3\"\nmembers = [\"c\", \"a\"]";
    let mut net = Net::new(&text("snooping = true\ncopies = 3", &["a", "b", "c", "d"], more));
    assert_eq!(net.members(GROUP), [0, 2]);
    net.join(1, GROUP, 0);
    net.join(2, GROUP, 0);
    assert_eq!(net.members(GROUP), [0, 1, 2]);
    net.join(3, GROUP, 0);
    assert_eq!((net.members(GROUP), net.totals().refused), (vec![0, 1, 2], 1), "copies of both are counted");
    net.join(0, GROUP, 0);
    assert_eq!(net.totals().refused, 1, "whom the configuration has costs no further copy");
    (0..4).for_each(|client| net.leave(client, GROUP, 1_000));
    net.run(3_000);
    assert_eq!((net.members(GROUP), net.totals().members), (vec![0, 2], 0), "these stay whatever they say");
}

#[test]
fn a_reload_keeps_the_memberships_of_who_stays() {
    let mut net = Net::new(&text("snooping = true", &["a", "b", "c", "d"], ""));
    (0..4).for_each(|client| net.join(client, GROUP, 1_000));
    net.leave(3, GROUP, 5_000);
    net.run(5_000);
    assert_eq!(net.members(GROUP), [0, 1, 2, 3]);
    let first = net.tables.generation;
    // The other network has the index 0 now, and b is in it.
    let after = text("snooping = true", &["d", "x", "c", "b", "a"], "");
    let after = after.replacen(
        "[[network]]\nname = \"office\"",
        "[[network]]\nname = \"lab\"\n[[network]]\nname = \"office\"",
        1,
    );
    let after = after.replace("name = \"b\"\nnetwork = \"office\"", "name = \"b\"\nnetwork = \"lab\"");
    net.configure(&after, 5_500);
    let members = |net: &mut Net| {
        let joined = net.memberships.snapshot(&net.tables);
        joined.into_iter().for_each(|joined| net.tables.joined.store(Arc::new(joined)));
        let joined = net.tables.joined.load();
        joined.find(1, &GROUP).map_or(Vec::new(), |number| net.tables.members(&joined, number).to_vec())
    };
    assert_eq!(members(&mut net), [0, 2, 4], "d, c and a by their new numbers, and b in another network is none");
    // A worker that was at work with the tables of before.
    net.memberships.take(&net.tables, first, Change { client: 0, group: OTHER, kind: Kind::Join }, 5_600);
    assert_eq!(net.memberships.groups_of(4), Some(2), "a has both groups");
    assert_eq!(net.run(6_999).last(), Some(&(6_000, 0, Question::Group(GROUP))), "d is still asked");
    net.run(7_000);
    assert_eq!(members(&mut net), [2, 4]);
    net.configure(&after, 8_000);
    net.memberships.take(&net.tables, first, Change { client: 1, group: OTHER, kind: Kind::Join }, 8_000);
    let totals: Vec<_> = net.memberships.totals().collect();
    assert_eq!(totals, [(1, Totals { groups: 2, members: 3, refused: 0 })], "what is too old counts for nothing");
    net.configure(&after.replace("snooping = true", ""), 9_000);
    assert_eq!((members(&mut net), net.memberships.totals().count()), (vec![], 0), "and a network may learn no more");
    assert!(net.memberships.is_idle());
}

#[test]
fn a_number_that_comes_round_is_not_given_to_two_groups() {
    let mut net = Net::new(&text("snooping = true", &["a", "b"], ""));
    net.join(0, GROUP, 0);
    // As after a billion others.
    net.memberships.made = 0;
    net.join(1, OTHER, 0);
    assert_eq!((net.members(GROUP), net.members(OTHER)), (vec![0], vec![1]));
    net.leave(0, GROUP, 1_000);
    net.run(3_000);
    net.memberships.made = 0;
    net.join(0, GROUP6, 3_000);
    assert_eq!((net.members(OTHER), net.members(GROUP6)), (vec![1], vec![0]));
}

/// RFC 3376 §8.4: the time goes by the interval in force.
#[test]
fn a_shorter_interval_holds_for_who_is_a_member_and_whoever_answers_stays() {
    let mut net = Net::new(&text("snooping = true", &["a", "b"], ""));
    net.look(0, |_| Some(0));
    net.run(99_999);
    net.join(0, GROUP, 50_000);
    net.join(1, GROUP, 50_000);
    net.configure(&text("snooping = true\nquery_interval = 4", &["a", "b"], ""), 100_000);
    let mut heard = 50_000;
    for now in (100_000..130_000).step_by(1_000) {
        net.look(now, |client| Some(if client == 0 { heard } else { 50_000 }));
        let asked = net.run(now);
        if asked.iter().any(|(_, client, question)| (*client, *question) == (0, Question::AllV4)) {
            net.join(0, GROUP, now + 500);
            heard = now + 500;
        }
        // Twice the interval, and half of it to answer.
        let others: &[u32] = if now < 110_000 { &[0, 1] } else { &[0] };
        assert_eq!(net.members(GROUP), others, "{now}");
    }
}

#[test]
fn a_longer_interval_leaves_time_for_questions_that_come_later() {
    let mut net = Net::new(&text("snooping = true\nquery_interval = 4", &["a"], ""));
    net.look(0, |_| Some(0));
    net.run(7_999);
    net.join(0, GROUP, 1_000);
    net.configure(&text("snooping = true", &["a"], ""), 8_000);
    net.run(1_000 + LIFETIME - 1);
    assert_eq!(net.members(GROUP), [0]);
    net.run(1_000 + LIFETIME);
    assert!(net.members(GROUP).is_empty());
    // Who leaves is no member two seconds later, whatever the interval.
    net.join(0, GROUP, 300_000);
    net.leave(0, GROUP, 301_000);
    net.configure(&text("snooping = true\nquery_interval = 1000", &["a"], ""), 301_500);
    net.run(303_000);
    assert!(net.members(GROUP).is_empty());
}

#[test]
fn whatever_comes_what_is_counted_is_what_there_is() {
    const CLIENTS: u32 = 5;
    let keys = "snooping = true\nquery_interval = 4\ngroups_per_client = 4\ngroups_per_network = 6\ncopies = 3";
    let mut net = Net::new(&text(keys, &["a", "b", "c", "d", "e"], ""));
    let groups: Vec<[u8; 16]> = (0..9).map(|number| mapped([239, 9, 9, number])).collect();
    let mut state = 7_u64;
    let mut random = |below: usize| {
        // The linear congruential generator of MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut now = 0;
    for _ in 0..5_000 {
        now += random(400) as u64;
        let kind = if random(3) == 0 { Kind::Leave } else { Kind::Join };
        let (client, group) = (random(CLIENTS as usize) as u32, groups[random(groups.len())]);
        net.report(client, kind, group, now);
        net.run(now);
        let lists: Vec<_> = groups.iter().map(|group| net.members(*group)).collect();
        assert!(lists.iter().all(|list| list.len() <= 3 && list.is_sorted()), "{lists:?}");
        let totals = net.totals();
        assert_eq!(totals.members, lists.iter().map(|list| list.len() as u64).sum::<u64>());
        assert_eq!(totals.groups, lists.iter().filter(|list| !list.is_empty()).count() as u64);
        assert!(totals.groups <= 6);
        for client in 0..CLIENTS {
            let count = lists.iter().filter(|list| list.contains(&client)).count();
            assert_eq!(net.memberships.groups_of(client), Some(count as u32));
            assert!(count <= 4);
        }
    }
    assert!(net.totals().refused > 0);
    net.run(now + 2 * 4_000 + 2_000);
    assert_eq!(Totals { refused: 0, ..net.totals() }, Totals::default(), "nothing is left behind");
}
