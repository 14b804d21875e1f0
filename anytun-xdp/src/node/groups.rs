//! The thread that knows who is a member of which group: it takes what clients report, has them asked, and shows workers the
//! members.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::running::{Running, lock};
use crate::kernel::Waker;
use crate::mode::query::Query;
use crate::table::membership::{Memberships, Totals, Whereabouts};
use crate::table::{Joined, Tables};
use crate::worker::slow::Bell;
use crate::worker::snoop::{Addressed, Snoop};

/// How often it is looked which clients were heard.
const LOOK: Duration = Duration::from_secs(1);

/// How long reports and queries wait for the next look, at least.
const SOON: Duration = Duration::from_millis(10);

/// The longest sleep while no network learns; a reload ends it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Changes that are taken before workers see them.
const BURST: usize = 1024;

/// How many there are, to be shown: a copy, so that nobody waits for whoever shows it.
pub(super) struct Counted {
    /// Of each network that learns, its index and what is known of it.
    pub(super) networks: Vec<(u32, Totals)>,
    /// By client, the groups that it has joined; nothing in a network that does not learn.
    pub(super) clients: Vec<Option<u32>>,
}

/// What a node knows of groups that clients join.
pub(super) struct Groups {
    /// What workers put reports into.
    pub(super) snoop: Arc<Snoop>,
    /// Those of the tables in force: they change together, while this is locked.
    pub(super) memberships: Mutex<Memberships>,
    /// Snapshots that are no longer in force, until no worker reads them any more: then they are freed here.
    retired: Mutex<Vec<Arc<Joined>>>,
    thread: Arc<OnceLock<Thread>>,
}

impl Groups {
    /// Without members.
    pub(super) fn new(tables: &Tables) -> Self {
        let thread: Arc<OnceLock<Thread>> = Arc::default();
        let own = thread.clone();
        let mut memberships = Memberships::default();
        memberships.adopt(None, tables, 0);
        Self {
            snoop: Arc::new(Snoop::new(Bell::new(move || wake(&own)))),
            memberships: Mutex::new(memberships),
            retired: Mutex::default(),
            thread,
        }
    }

    /// The tables in force, and how many groups and members there are by these.
    pub(super) fn count(&self, tables: &ArcSwap<Tables>) -> (Arc<Tables>, Counted) {
        // They change together, while these are locked.
        let memberships = lock(&self.memberships);
        let tables = tables.load_full();
        let clients = (0..).zip(&tables.clients).map(|(number, _)| memberships.groups_of(number)).collect();
        (tables, Counted { networks: memberships.totals().collect(), clients })
    }

    /// Shows workers the members, if these have changed. `tables` are those of the memberships.
    fn show(&self, memberships: &mut Memberships, tables: &Tables) {
        let mut retired = lock(&self.retired);
        if let Some(joined) = memberships.snapshot(tables) {
            retired.push(tables.joined.swap(Arc::new(joined)));
        }
        retired.retain(|joined| Arc::strong_count(joined) > 1);
    }
}

fn wake(thread: &OnceLock<Thread>) {
    if let Some(thread) = thread.get() {
        thread.unpark();
    }
}

impl Running {
    fn milliseconds(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Puts tables into force in which the members of groups are those of before, as far as they stay; returns the tables of
    /// before.
    pub(super) fn replace_tables(&self, tables: Tables) -> Arc<Tables> {
        let replaced = {
            let mut memberships = lock(&self.groups.memberships);
            memberships.adopt(Some(&self.tables.load()), &tables, self.milliseconds());
            self.groups.show(&mut memberships, &tables);
            self.tables.swap(Arc::new(tables))
        };
        // A network may learn now that did not before.
        wake(&self.groups.thread);
        replaced
    }

    /// Keeps the members of groups until the node stops. `asker` is what wakes the worker that sends queries.
    pub(super) fn keep_groups(&self, asker: Option<&Waker>) {
        let Groups { snoop, thread, .. } = &self.groups;
        let _first = thread.set(thread::current());
        let mut looked = None;
        while !self.stop.load(Ordering::Acquire) {
            let sleep = self.see_to_groups(asker, &mut looked);
            // So that a worker that gets reports without end wakes this thread no more often than that.
            thread::sleep(SOON);
            if snoop.doze() {
                thread::park_timeout(sleep);
            }
            snoop.rise();
        }
    }

    /// Does what is to be done now; returns for how long there is nothing more, unless somebody reports something. `looked`
    /// is when it was last looked which clients were heard.
    fn see_to_groups(&self, asker: Option<&Waker>, looked: &mut Option<u64>) -> Duration {
        let Groups { snoop, memberships, .. } = &self.groups;
        let mut memberships = lock(memberships);
        let tables = self.tables.load_full();
        let now = self.milliseconds();
        for (generation, change) in std::iter::from_fn(|| snoop.take()).take(BURST) {
            memberships.take(&tables, generation, change, now);
        }
        if memberships.is_idle() {
            return LONGEST_SLEEP;
        }
        memberships.tick(now);
        let look = LOOK.as_millis() as u64;
        if looked.is_none_or(|looked| now.saturating_sub(looked) >= look) {
            memberships.look(now, |number| {
                let track = &tables.clients.get(number as usize)?.track;
                let endpoint = track.endpoint.load()?;
                Some(Whereabouts { heard: track.last_heard()?, endpoint: (endpoint.address(), endpoint.port()) })
            });
            *looked = Some(now);
        }
        self.groups.show(&mut memberships, &tables);
        let mut has_asked = false;
        while snoop.has_room()
            && let Some(ask) = memberships.ask(now)
        {
            if let Some(snooped) = tables.snooped(ask.network) {
                let query = Query::new(ask.question, snooped);
                snoop.ask(Addressed { generation: tables.generation, client: ask.client, query });
                has_asked = true;
            }
        }
        if has_asked {
            asker.into_iter().for_each(Waker::wake);
        }
        match memberships.due() {
            _ if memberships.is_asking() => SOON,
            Some(due) => LOOK.min(Duration::from_millis(due.saturating_sub(now))),
            None => LOOK,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anytun_common::wire::mapped;

    use super::*;
    use crate::satp::lease::Keeper;
    use crate::table::Host;
    use crate::table::membership::{Change, Kind};

    #[test]
    fn what_is_shown_is_of_the_tables_it_comes_with_and_keeps_nobody() {
        let client = |name: &str, network: &str, mux: u8| {
            format!(
                "[[client]]\nname = \"{name}\"\nnetwork = \"{network}\"\nmux = {mux}\nprefixes = [\"10.9.0.{mux}/32\"]\n\
                 passphrase = \"what {name} knows\"\n"
            )
        };
        let text =
            "[node]\nname = \"n\"\nsender_ids = \"1\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
                    address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"deaf\"\n[[network]]\nname = \"o\"\n\
                    snooping = true\n"
                .to_owned()
                + &client("a", "deaf", 1)
                + &client("b", "o", 2)
                + &client("c", "o", 3);
        let config = crate::config::parse(&text, Path::new("node.toml")).unwrap();
        let state = tempfile::tempdir().unwrap();
        let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
        let sequences = Keeper::open(state.path(), 1, 1, 1).unwrap().sequences(&fingerprints).unwrap();
        let host = Host { workers: 1, mtus: vec![1500], partial: vec![false] };
        let tables = ArcSwap::from_pointee(Tables::build(&config, &host, sequences, None));
        let in_force = tables.load_full();
        let groups = Groups::new(&in_force);
        let change = |client: u32, last: u8| Change { client, group: mapped([239, 1, 2, last]), kind: Kind::Join };
        for (client, last) in [(1, 3), (2, 3), (2, 4)] {
            lock(&groups.memberships).take(&in_force, in_force.generation, change(client, last), 0);
        }
        let (shown, counts) = groups.count(&tables);
        // While it is being written, reports are taken and change nothing of it.
        let mut memberships = groups.memberships.try_lock().expect("nobody keeps them");
        memberships.take(&in_force, in_force.generation, change(1, 5), 0);
        assert!(Arc::ptr_eq(&shown, &in_force));
        assert_eq!(counts.clients, [None, Some(1), Some(2)]);
        assert_eq!(counts.networks, [(1, Totals { groups: 2, members: 3, refused: 0 })]);
    }
}
