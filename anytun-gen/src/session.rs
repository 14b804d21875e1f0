//! A session: everything that is set up once, and the measurements that are made with it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anytun_common::generate::{Orders, Progress};
use anytun_common::stamp::{DATA, Stamp};

use crate::carrier;
use crate::clock;
use crate::error::Error;
use crate::lane::{BATCH, Job, Lane, SLACK, Shown, Work};
use crate::live::Live;
use crate::look::{LOOK, Look};
use crate::outcome::{Interval, Outcome};
use crate::plan::{Engine, Plan};
use crate::rate::Schedule;
use crate::sink::Sink;
use crate::tally::Expected;
use crate::traffic::{Satp, Side, rounds};

/// How long lanes have until the schedule starts.
const LEAD: Duration = Duration::from_millis(5);

/// How long a carrier is waited for: a NIC of 1 Gbit/s that was started anew takes about three seconds.
const CARRIER: Duration = Duration::from_secs(30);

/// Senders and sink, ready.
pub struct Session {
    plan: Plan,
    lanes: Vec<Lane>,
    sink: Sink,
    live: Option<Pool>,
    phase: u8,
    /// Phases that were begun, that one included.
    begun: u8,
    /// The next sequence number of SATP that no client has used for sending.
    next: u32,
    /// The same for the receiving clients, which send little.
    answering: Vec<AtomicU32>,
}

/// The XDP sender and where it is in its packets.
struct Pool {
    live: Live,
    /// Whether each packet goes out once only.
    sealed: bool,
    /// The phase that sealed packets carry.
    phase: u8,
    /// The first sequence number of SATP in it.
    first: u32,
    at: Progress,
}

impl Session {
    /// Sets everything up, attaches the sink, and introduces the clients.
    ///
    /// # Errors
    ///
    /// What the host cannot do, which may take half a minute to find where an interface has no carrier; [`Error::Running`]
    /// when clients do not reach each other.
    pub fn open(plan: Plan, stop: &AtomicBool) -> Result<Self, Error> {
        plan.check()?;
        let mut sink = Sink::load()?;
        let needs_lanes =
            plan.engine == Engine::Xsk || plan.sink_engine == Engine::Xsk || plan.traffic.satp().is_some();
        let count = plan.queues.clone().count() as u32;
        let links = [&plan.interface, &plan.sink];
        let lanes: Vec<Lane> = plan
            .queues
            .clone()
            .zip(0..)
            .filter(|_| needs_lanes)
            .map(|(queue, number)| Lane::open(links, queue, plan.mode, [number, count]))
            .collect::<Result<_, _>>()?;
        for (queue, lane) in plan.queues.clone().zip(&lanes) {
            for (rule, side) in [Side::Sink, Side::Interface].into_iter().enumerate() {
                let port = lane.port(side);
                if let Some((.., socket)) = lane.io().sockets().find(|(slot, ..)| *slot as usize == port) {
                    sink.set_socket(rule as u32, queue, socket)?;
                }
            }
        }
        sink.attach(&plan.sink, plan.mode)?;
        if plan.round_trip.is_some() && plan.sink.ifindex != plan.interface.ifindex {
            sink.attach(&plan.interface, plan.mode)?;
        }
        carrier::wait(&links, CARRIER, stop)?;
        let receivers = plan.traffic.satp().map_or(0, |satp| satp.receivers());
        let answering = (0..receivers).map(|_| AtomicU32::new(plan.first_sequence)).collect();
        // Where the numbers start does not matter, but packets of another process should rarely have ours.
        let phase = (clock::now() >> 10) as u8;
        let next = plan.first_sequence;
        let mut session = Self { plan, lanes, sink, live: None, phase, begun: 0, next, answering };
        if session.plan.traffic.satp().is_some() {
            session.introduce(stop)?;
        }
        Ok(session)
    }

    /// What is measured.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The highest sequence number of SATP that a client has used; nothing for plain UDP.
    pub fn last_sequence(&self) -> Option<u32> {
        self.plan.traffic.satp()?;
        let answered = self.answering.iter().map(|next| next.load(Ordering::Relaxed)).max().unwrap_or_default();
        Some(self.next.max(answered).saturating_sub(1))
    }

    /// Prepares packets for the XDP sender: for `packets` packets in all if they must be sealed, else a few that are used
    /// again and again. `watch` sees how many are ready, and of how many.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when they do not fit the memory or the sequence numbers; what the kernel refuses.
    pub fn prepare(&mut self, packets: u64, watch: &mut dyn FnMut(u32, u32)) -> Result<(), Error> {
        if self.plan.engine != Engine::Xdp {
            return Ok(());
        }
        let traffic = &self.plan.traffic;
        let flows = traffic.flows();
        let sealed = traffic.is_sealed();
        let whole = u64::from(rounds(traffic.sizes().period()));
        let wanted = if sealed { packets.div_ceil(u64::from(flows)) } else { whole };
        let slots = wanted.saturating_mul(u64::from(flows));
        let size = crate::live::slot_size(traffic.largest())? as u64;
        let available = crate::memory::available();
        if slots.saturating_mul(size) > available {
            return Err(Error::usage(format!(
                "{slots} prepared packets of {size} octets are {} MB, and {} MB of memory are available; choose a lower \
                 --rate, a shorter --duration, or --pool with fewer packets",
                slots.saturating_mul(size) / 1_000_000,
                available / 1_000_000
            )));
        }
        let numbers = u64::from(u32::MAX - self.next);
        let slots = u32::try_from(slots).ok().filter(|_| wanted < numbers).ok_or_else(|| {
            Error::usage(format!(
                "{slots} prepared packets are more than the sequence numbers from {} on allow; choose fewer packets, more \
                 --clients, or a lower --first-sequence",
                self.next
            ))
        })?;
        let (phase, first) = (self.next_phase(), self.next);
        let traffic = &self.plan.traffic;
        let mut live = Live::load(slots, traffic.largest())?;
        let made = AtomicU32::new(0);
        let magic = if sealed { [DATA, phase] } else { [0; 2] };
        let make = |index: u32| {
            let (flow, sequence) = ((index % flows) as u16, index / flows);
            let stamp = Stamp { magic, flow, sequence, timestamp: 0 };
            traffic.prepare(&stamp, first.wrapping_add(sequence))
        };
        thread::scope(|scope| {
            let filling = scope.spawn(|| live.fill(&made, make));
            while !filling.is_finished() {
                thread::sleep(LOOK);
                watch(made.load(Ordering::Relaxed), slots);
            }
            filling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.live = Some(Pool { live, sealed, phase, first, at: Progress::default() });
        Ok(())
    }

    /// Sends by a schedule, and tells what arrived. `watch` sees every moment; when `stop` is set it ends early.
    ///
    /// # Errors
    ///
    /// What failed while it ran. Lost packets are no failure.
    pub fn measure(
        &mut self,
        schedule: &Schedule,
        watch: &mut dyn FnMut(&Interval),
        stop: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let probes = match self.plan.round_trip {
            None => 0,
            Some(0) => 1,
            Some(rate) if schedule.rate == 0 => u32::try_from(1_000_000 / rate.max(1)).unwrap_or(1),
            Some(rate) => (schedule.highest() / rate).clamp(1, u64::from(u32::MAX)) as u32,
        };
        self.carry(schedule, self.plan.engine, probes, watch, stop)
    }

    /// [`measure`](Self::measure) with any engine and one probe in `probes` packets.
    fn carry(
        &mut self,
        schedule: &Schedule,
        engine: Engine,
        probes: u32,
        watch: &mut dyn FnMut(&Interval),
        stop: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let expected = self.expect(engine)?;
        let Self { plan, lanes, sink, live, next, answering, .. } = self;
        let by_xdp = engine == Engine::Xdp;
        let counted = plan.sink_engine == Engine::Xdp;
        if let Some(pool) = live.as_mut().filter(|_| by_xdp) {
            pool.order(plan, schedule, expected.phase, *next)?;
        }
        let pool = live.as_ref().filter(|_| by_xdp);
        let finish = AtomicBool::new(false);
        let shown: Vec<Shown> = lanes.iter().map(|_| Shown::default()).collect();
        let start = clock::now() + LEAD.as_nanos() as u64;
        let mut outcome = Outcome::default();
        let look = Look {
            live: pool.map(|pool| &pool.live),
            sink: counted.then_some(&*sink),
            shown: &shown,
            phase: expected.phase,
            start,
        };
        let works = thread::scope(|scope| {
            let running: Vec<_> = lanes
                .iter_mut()
                .zip(&shown)
                .filter(|_| !by_xdp || !counted)
                .map(|(lane, shown)| {
                    let job = Job {
                        traffic: &plan.traffic,
                        schedule: (!by_xdp).then_some(*schedule),
                        start,
                        receives: !counted,
                        expected,
                        first: *next,
                        probes,
                        answering,
                        stop,
                        finish: &finish,
                        shown,
                    };
                    scope.spawn(move || lane.run(&job))
                })
                .collect();
            let watched = match pool {
                Some(pool) => pool.live.start(scope).and_then(|sending| {
                    let result = look.follow(schedule, watch, stop, &mut outcome.intervals, &|| sending.has_ended());
                    result.and(sending.end())
                }),
                None => look.follow(schedule, watch, stop, &mut outcome.intervals, &|| {
                    shown.iter().all(|shown| shown.done.load(Ordering::Acquire))
                }),
            };
            let settled = watched.and_then(|()| look.settle());
            finish.store(true, Ordering::Release);
            let works: Vec<Work> = running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            settled.map(|()| works)
        })?;
        outcome.stopped = stop.load(Ordering::Relaxed);
        let rounds = self.account(&works, engine, expected, &mut outcome)?;
        self.next = self.next.saturating_add(rounds);
        Ok(outcome)
    }

    /// Starts a new phase: which packets belong to it, told to the sink.
    fn expect(&mut self, engine: Engine) -> Result<Expected, Error> {
        let expected = match &self.live {
            Some(pool) if pool.sealed && engine == Engine::Xdp => {
                Expected { phase: pool.phase, base: pool.at.sequence as u32, past: self.begun.saturating_sub(1) }
            }
            _ => Expected { phase: self.next_phase(), base: 0, past: self.begun.saturating_sub(1) },
        };
        self.sink.forget(expected.phase)?;
        for (index, side, link) in [(0, Side::Sink, &self.plan.sink), (1, Side::Interface, &self.plan.interface)] {
            if side == Side::Interface && self.plan.round_trip.is_none() {
                continue;
            }
            let mut rule = self.plan.traffic.rule(side);
            rule.ifindex = link.ifindex.into();
            rule.count = u64::from(side == Side::Sink && self.plan.sink_engine == Engine::Xdp);
            rule.magic = u16::from_be_bytes([DATA, expected.phase]).into();
            rule.phase = expected.phase.into();
            self.sink.set_rule(index, &rule)?;
        }
        Ok(expected)
    }

    /// The phase that begins.
    fn next_phase(&mut self) -> u8 {
        self.phase = self.phase.wrapping_add(1);
        self.begun = self.begun.saturating_add(1);
        self.phase
    }

    /// Adds up what was done; returns the rounds of sequence numbers that were used.
    fn account(
        &mut self,
        works: &[Work],
        engine: Engine,
        expected: Expected,
        outcome: &mut Outcome,
    ) -> Result<u32, Error> {
        let mut rounds = 0;
        for work in works {
            outcome.sent += work.sent;
            outcome.skipped += work.skipped;
            outcome.sending = outcome.sending.max(work.sending);
            outcome.tally.add(&work.tally);
            rounds = rounds.max(work.rounds);
        }
        if let Some(pool) = self.live.as_mut().filter(|_| engine == Engine::Xdp) {
            let progress = pool.live.progress()?;
            outcome.sent = progress.sent;
            outcome.skipped = progress.skipped;
            outcome.sending = progress.last.saturating_sub(progress.began);
            outcome.exhausted = progress.exhausted != 0;
            rounds = (progress.sequence - pool.at.sequence) as u32 + u32::from(progress.column != 0);
            // A round that was begun is over: the next phase starts with the first flow.
            let flows = u64::from(self.plan.traffic.flows());
            let sequence = pool.at.sequence + u64::from(rounds);
            pool.at = Progress { sequence, slot: sequence * flows, ..Progress::default() };
        }
        if self.plan.sink_engine == Engine::Xdp {
            let arrived = self.sink.arrived(expected.phase)?;
            outcome.tally.received = arrived.packets;
            outcome.tally.foreign = arrived.foreign;
            (outcome.tally.first, outcome.tally.last) = (arrived.first, arrived.last);
        }
        Ok(rounds)
    }

    /// Lets every receiving client tell the node where it is, and sends one packet of each flow to see that it arrives.
    fn introduce(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        let flows = u64::from(self.plan.traffic.flows());
        let rate = flows.clamp(100, 20_000);
        // Every lane goes through all of its flows, also where they are not shared out evenly.
        let duration = Duration::from_secs_f64((flows + self.lanes.len() as u64) as f64 / rate as f64);
        let schedule = Schedule { rate, growth: 0, duration };
        let deadline = clock::now() + (Duration::from_secs(5) + 2 * duration).as_nanos() as u64;
        let mut best = 0;
        let strange = loop {
            self.lanes[0].introduce(&self.plan.traffic, &self.answering);
            let outcome = self.carry(&schedule, Engine::Xsk, 0, &mut |_| {}, stop)?;
            if outcome.tally.received >= outcome.sent && outcome.sent >= flows {
                return Ok(());
            }
            best = best.max(outcome.tally.received.min(flows));
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Running("stopped before the clients had reached each other".into()));
            }
            if clock::now() > deadline {
                break [outcome.tally.corrupt, outcome.tally.foreign];
            }
        };
        if best * 100 >= flows * 99 {
            return Ok(());
        }
        let sink = &self.plan.sink.name;
        let found = match self.plan.traffic.satp().is_some_and(Satp::is_open) {
            false => format!("{best} of {flows} clients behind {sink} can be reached through the node."),
            true => format!(
                "Of {flows} clients the packets of {best} come out of the node at {sink}. Has its host a route to \
                 --destination that leads there, and does somebody answer for the next hop?"
            ),
        };
        Err(Error::Running(format!(
            "{found} Is it running with this configuration? Are the MAC addresses right? A node that has seen higher sequence \
             numbers refuses these as replayed: continue with --first-sequence, or `anytun-xdp forget NAME`; `anytun-xdp \
             status` shows why packets were dropped. ({} corrupt and {} foreign packets arrived.)",
            strange[0], strange[1]
        )))
    }
}

impl Pool {
    /// Tells the program what to send.
    fn order(&mut self, plan: &Plan, schedule: &Schedule, phase: u8, next: u32) -> Result<(), Error> {
        let orders = Orders {
            ifindex: plan.interface.ifindex.into(),
            duration: schedule.duration.as_nanos() as u64,
            rate: schedule.rate,
            growth: schedule.growth as u64,
            slack: (schedule.highest() * SLACK.as_micros() as u64 / 1_000_000).max(BATCH as u64),
            slots: self.live.slots().into(),
            flows: plan.traffic.flows().into(),
            again: u64::from(!self.sealed),
            magic: u16::from_be_bytes([DATA, phase]).into(),
            first: next.into(),
        };
        if !self.sealed {
            self.at = Progress::default();
        }
        debug_assert!(!self.sealed || u64::from(self.first) + self.at.sequence == u64::from(next));
        self.live.prepare(&orders, &self.at)
    }
}
