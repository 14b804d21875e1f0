//! A mirror of the kernel's rules, routes, neighbours and interfaces, kept by netlink.
//!
//! What the kernel tells of changes is taken as a sign that something changed, and what changed is then listed as a whole.
//! So nothing is put together from messages of which some may be lost, and a message that is lost costs no more than
//! one that arrives. When lists are long, they are asked for less often.

mod dump;
mod read;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use self::dump::Dumps;
use super::{HostError, Link, Waker, privilege};
use crate::table::ways::{Asks, Neighbour, Next, Routes, Ways};

/// Groups of messages (RTNLGRP of include/uapi/linux/rtnetlink.h): links, neighbours, routes and rules of both families,
/// nexthop objects.
const GROUPS: [u32; 7] = [1, 3, 7, 8, 11, 19, 32];

/// The least time between two listings, and how many times as long as a listing took it is at least: with full routing
/// tables that change all the time the mirror takes a tenth of a processor.
const PAUSE: Duration = Duration::from_millis(20);
const SHARE: u32 = 9;

/// How often it is looked which neighbours are in use, and how long one counts as that.
const LOOK: Duration = Duration::from_secs(5);
const IN_USE: Duration = Duration::from_secs(60);

/// How often the kernel is asked for one neighbour.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a mirror has done.
#[derive(Debug, Default)]
pub struct MirrorCounters {
    /// How often something was listed because it had changed.
    pub listings: AtomicU64,
    /// How often the kernel said that messages were lost.
    pub resynchronisations: AtomicU64,
    /// How often the kernel was asked for a neighbour.
    pub asked: AtomicU64,
}

/// What others see of a mirror.
#[derive(Clone)]
pub struct Mirrored {
    /// The snapshot in force.
    pub ways: Arc<ArcSwap<Ways>>,
    /// Where workers ask for neighbours.
    pub asks: Arc<Asks>,
    /// What it has done.
    pub counters: Arc<MirrorCounters>,
}

/// The mirror. It works in the network namespace of the thread that opened it.
pub struct Mirror {
    dumps: Dumps,
    signs: Socket,
    waker: Waker,
    shown: Mirrored,
    slots: HashMap<u32, u8>,
    changed: Changed,
    /// When the next listing may be.
    next: Instant,
    /// When neighbours were last asked for.
    asked: HashMap<Next, Instant>,
    /// When neighbours were last found in use.
    used: HashMap<Next, Instant>,
    /// Neighbours that the kernel has not made sure of lately.
    stale: HashSet<Next>,
}

/// What is to be listed anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Changed {
    links: bool,
    routes: bool,
    neighbours: bool,
}

impl Changed {
    const ALL: Self = Self { links: true, routes: true, neighbours: true };

    /// Notes the type of a message (RTM of include/uapi/linux/rtnetlink.h).
    fn note(&mut self, kind: u16) {
        match kind {
            // Routes go with their link without a word.
            16..=19 => (self.links, self.routes) = (true, true),
            24..=26 | 32..=34 | 104..=106 => self.routes = true,
            28..=30 => self.neighbours = true,
            _ => {}
        }
    }

    fn any(self) -> bool {
        self != Self::default()
    }
}

impl Mirror {
    /// Opens a mirror of what leads through these interfaces, which are given by slot, and lists all.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn open(links: &[Link]) -> Result<Self, HostError> {
        let failed = |error: io::Error| HostError::other("reading the kernel's routes and neighbours", error);
        let mut signs = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        signs.bind_auto().map_err(failed)?;
        signs.set_non_blocking(true).map_err(failed)?;
        // Before the first listing, so that no change falls between.
        GROUPS.iter().try_for_each(|group| signs.add_membership(*group)).map_err(failed)?;
        let waker = Waker::new()?;
        let wake = waker.clone();
        let mut mirror = Self {
            dumps: Dumps::open().map_err(failed)?,
            signs,
            waker,
            shown: Mirrored {
                ways: Arc::default(),
                asks: Arc::new(Asks::new(move || wake.wake())),
                counters: Arc::default(),
            },
            slots: links.iter().enumerate().map(|(slot, link)| (link.ifindex, slot as u8)).collect(),
            changed: Changed::ALL,
            next: Instant::now(),
            asked: HashMap::new(),
            used: HashMap::new(),
            stale: HashSet::new(),
        };
        mirror.list().map_err(failed)?;
        Ok(mirror)
    }

    /// What others see of it.
    pub fn shown(&self) -> Mirrored {
        self.shown.clone()
    }

    /// Ends the wait of [`run`](Self::run).
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Follows the kernel until `stop` is set and the waker is woken. Of its capabilities the thread keeps `CAP_NET_ADMIN`.
    pub fn run(mut self, stop: &AtomicBool) {
        if let Err(error) = privilege::keep_network_administration() {
            warn!("{error}; the thread that mirrors routes keeps its capabilities");
        }
        let mut look = Instant::now() + LOOK;
        while !stop.load(Ordering::Acquire) {
            let until = if self.changed.any() { look.min(self.next) } else { look };
            self.wait(until.saturating_duration_since(Instant::now()));
            self.take_signs();
            self.take_asks();
            let now = Instant::now();
            if self.changed.any()
                && now >= self.next
                && let Err(error) = self.list()
            {
                warn!("listing routes and neighbours: {error}; trying again");
                self.next = Instant::now() + PATIENCE;
            }
            if now >= look {
                self.keep_used();
                look = now + LOOK;
            }
        }
    }

    fn wait(&self, time: Duration) {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN), PollFd::new(self.waker.fd(), PollFlags::POLLIN)];
        // Rounded up, so that the time is over when it returns.
        let timeout = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // An interruption is as good as a sign: it is looked again.
        let _ = poll(&mut fds, timeout);
        self.waker.clear();
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.signs.as_fd()
    }

    /// Notes what the kernel said has changed.
    fn take_signs(&mut self) {
        let mut octets = Vec::with_capacity(64 << 10);
        loop {
            octets.clear();
            match self.signs.recv(&mut octets, 0) {
                Ok(_) => {
                    let mut rest = octets.as_slice();
                    // struct nlmsghdr: length, type (include/uapi/linux/netlink.h), in the machine's order.
                    while let [a, b, c, d, e, f, ..] = *rest {
                        self.changed.note(u16::from_ne_bytes([e, f]));
                        let length = u32::from_ne_bytes([a, b, c, d]).max(16).next_multiple_of(4);
                        rest = rest.get(length as usize..).unwrap_or_default();
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.changed = Changed::ALL;
                    self.shown.counters.resynchronisations.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => return,
            }
        }
    }

    /// Asks the kernel for the neighbours that workers miss.
    fn take_asks(&mut self) {
        let now = Instant::now();
        let asked: Vec<Next> = self.shown.asks.take().collect();
        for next in asked {
            if self.asked.get(&next).is_none_or(|last| now.duration_since(*last) >= PATIENCE) {
                self.asked.insert(next, now);
                self.ask(next);
            }
        }
        self.asked.retain(|_, last| now.duration_since(*last) < PATIENCE);
    }

    fn ask(&mut self, next: Next) {
        self.shown.counters.asked.fetch_add(1, Ordering::Relaxed);
        // An interface that went, or an address that is none of a neighbour: the packets say that they find no way.
        let _ = self.dumps.use_neighbour(next);
    }

    /// Has the kernel make sure of neighbours that are in use: it sees none of the packets that are sent to them.
    fn keep_used(&mut self) {
        let now = Instant::now();
        for (next, neighbour) in self.shown.ways.load().neighbours.iter() {
            if neighbour.take_used() {
                self.used.insert(*next, now);
            }
        }
        self.used.retain(|_, last| now.duration_since(*last) < IN_USE);
        let stale: Vec<Next> = self.stale.iter().filter(|next| self.used.contains_key(*next)).copied().collect();
        stale.into_iter().for_each(|next| self.ask(next));
    }

    /// Lists what has changed, and puts it in force.
    fn list(&mut self) -> io::Result<()> {
        let start = Instant::now();
        let mut ways = (*self.shown.ways.load_full()).clone();
        if self.changed.links {
            ways.exits = Arc::new(read::exits(&self.dumps.links()?, &self.slots).into_iter().collect());
        }
        if self.changed.routes {
            let rules = self.dumps.rules()?.iter().filter_map(read::rule).collect();
            let routes = self.dumps.routes()?.iter().filter_map(read::route).collect();
            ways.routes = Arc::new(Routes::new(rules, routes));
        }
        if self.changed.neighbours || self.changed.links {
            // What was used until now is noted before its mark goes.
            self.keep_used();
            let known = self.dumps.neighbours()?;
            let known: Vec<_> = known.iter().filter_map(read::neighbour).collect();
            self.stale = known.iter().filter(|known| known.stale).map(|known| known.next).collect();
            let own = known.into_iter().filter(|known| ways.exits.contains_key(&known.next.ifindex));
            ways.neighbours = Arc::new(own.map(|known| (known.next, Neighbour::new(known.mac))).collect());
            // Should one that was found be missed again, it is asked for at once.
            self.asked.retain(|next, _| !ways.neighbours.contains_key(next));
        }
        self.shown.ways.store(Arc::new(ways));
        self.shown.counters.listings.fetch_add(1, Ordering::Relaxed);
        self.changed = Changed::default();
        self.next = Instant::now() + PAUSE.max(start.elapsed() * SHARE);
        Ok(())
    }
}
