//! The thread that knows who is a member of which group: it takes what clients report, has them asked, and shows workers the
//! members.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use super::running::{Running, lock};
use crate::kernel::Waker;
use crate::mode::query::Query;
use crate::table::membership::{Memberships, Whereabouts};
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
                Some(Whereabouts { heard: track.last_heard()?, endpoint: (endpoint.address, endpoint.port) })
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
