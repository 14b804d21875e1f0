//! A session: everything that is set up once, and the measurements that are made with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anytun_common::generate::{Orders, Progress, Rule};
use anytun_common::stamp::DATA;

use crate::clock;
use crate::error::Error;
use crate::live::Live;
use crate::plan::Plan;
use crate::rate::Schedule;
use crate::sink::Sink;
use crate::traffic::rounds;

/// How far behind its schedule a sender may be and still catch up; what is more is left out.
const SLACK: Duration = Duration::from_micros(100);
/// What a sender may always catch up: a batch.
const LEAST_SLACK: u64 = 64;
/// How often senders and sink are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long nothing must have arrived before a measurement ends.
const QUIET: Duration = Duration::from_millis(100);
/// How long something may still arrive after the last packet was sent.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the kernel may take until an XDP sender makes its first run.
const START: Duration = Duration::from_secs(5);

/// Senders and sink, ready.
pub struct Session {
    plan: Plan,
    live: Live,
    sink: Sink,
    phase: u8,
}

/// What came of a measurement.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Packets left out because the sender was too slow for the rate.
    pub skipped: u64,
    /// How long was sent, in nanoseconds.
    pub sending: u64,
    /// Packets received, each counted once.
    pub received: u64,
    /// From the first packet received to the last, in nanoseconds.
    pub receiving: u64,
    /// Packets received that had been received before.
    pub duplicated: u64,
    /// Packets overtaken by a later one.
    pub reordered: u64,
    /// Packets that were changed on the way.
    pub corrupt: u64,
    /// Packets to the sink that were none of this measurement.
    pub foreign: u64,
    /// What was going on in between.
    pub intervals: Vec<Interval>,
    /// Whether it was ended early.
    pub stopped: bool,
}

/// What was sent and received up to a moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Interval {
    /// Nanoseconds since the start.
    pub at: u64,
    /// Packets sent until then.
    pub sent: u64,
    /// Packets received until then.
    pub received: u64,
}

impl Outcome {
    /// Packets that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// The share of packets that did not arrive.
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }

    /// Packets sent a second.
    pub fn send_rate(&self) -> f64 {
        rate(self.sent, self.sending)
    }

    /// Packets received a second, in the sink's own window.
    pub fn receive_rate(&self) -> f64 {
        rate(self.received.saturating_sub(1), self.receiving)
    }
}

fn rate(packets: u64, nanoseconds: u64) -> f64 {
    if nanoseconds == 0 { 0.0 } else { packets as f64 / clock::seconds(nanoseconds) }
}

impl Session {
    /// Sets everything up and attaches the sink.
    ///
    /// # Errors
    ///
    /// What the host cannot do.
    pub fn open(plan: Plan) -> Result<Self, Error> {
        let flows = plan.traffic.flows();
        let rounds = rounds(plan.traffic.sizes().period());
        let mut live = Live::load(flows * rounds, plan.traffic.largest())?;
        for round in 0..rounds {
            for flow in 0..flows {
                let prepared = plan.traffic.prepare(flow as u16, round);
                live.store(round * flows + flow, &prepared.slot, &prepared.frame)?;
            }
        }
        let mut sink = Sink::load()?;
        sink.attach(&plan.sink, plan.mode)?;
        // Where the numbers start does not matter, but packets of another process should rarely have ours.
        let phase = clock::now() as u8;
        Ok(Self { plan, live, sink, phase })
    }

    /// What is measured.
    pub fn plan(&self) -> &Plan {
        &self.plan
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
        self.phase = self.phase.wrapping_add(1);
        let phase = self.phase;
        let magic = u64::from(u16::from_be_bytes([DATA, phase]));
        self.sink.forget(phase)?;
        self.sink.set_rule(
            0,
            &Rule {
                ifindex: self.plan.sink.ifindex.into(),
                low: self.plan.arrive_port.into(),
                high: self.plan.arrive_port.into(),
                source: 0,
                count: 1,
                stamp_at: self.plan.arrive_prefix.len() as u64,
                magic,
                phase: phase.into(),
            },
        )?;
        let orders = Orders {
            ifindex: self.plan.interface.ifindex.into(),
            duration: schedule.duration.as_nanos() as u64,
            rate: schedule.rate,
            growth: schedule.growth as u64,
            slack: (schedule.highest() * SLACK.as_micros() as u64 / 1_000_000).max(LEAST_SLACK),
            slots: self.live.slots().into(),
            flows: self.plan.traffic.flows().into(),
            again: 1,
            magic,
            first: 0,
        };
        self.live.prepare(&orders, &Progress::default())?;
        let mut outcome = Outcome::default();
        let (live, sink) = (&self.live, &self.sink);
        thread::scope(|scope| {
            let sending = live.start(scope)?;
            let result = await_end(live, sink, phase, orders.duration, watch, stop, &mut outcome.intervals, || {
                sending.has_ended()
            });
            let ended = sending.end();
            result.and(ended)
        })?;
        outcome.stopped = stop.load(Ordering::Relaxed);
        let progress = self.live.progress()?;
        let arrived = self.settle(progress.sent)?;
        outcome.sent = progress.sent;
        outcome.skipped = progress.skipped;
        outcome.sending = progress.last.saturating_sub(progress.began).max(1);
        outcome.received = arrived.packets;
        outcome.receiving = arrived.last.saturating_sub(arrived.first);
        outcome.foreign = arrived.foreign;
        Ok(outcome)
    }

    /// Waits until everything has arrived or nothing arrives any more.
    fn settle(&self, sent: u64) -> Result<anytun_common::generate::Arrived, Error> {
        let end = clock::now() + SETTLE.as_nanos() as u64;
        let mut arrived = self.sink.arrived(self.phase)?;
        let mut changed = clock::now();
        while arrived.packets < sent && clock::now() < end.min(changed + QUIET.as_nanos() as u64) {
            thread::sleep(LOOK);
            let now = self.sink.arrived(self.phase)?;
            if now.packets != arrived.packets {
                changed = clock::now();
            }
            arrived = now;
        }
        Ok(arrived)
    }
}

/// Waits until the time of an XDP sender is over, and notes what goes on.
#[expect(clippy::too_many_arguments)]
fn await_end(
    live: &Live,
    sink: &Sink,
    phase: u8,
    duration: u64,
    watch: &mut dyn FnMut(&Interval),
    stop: &AtomicBool,
    intervals: &mut Vec<Interval>,
    ended: impl Fn() -> bool,
) -> Result<(), Error> {
    let started = clock::now();
    while !ended() && !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let progress = live.progress()?;
        if progress.began == 0 {
            if clock::now() - started > START.as_nanos() as u64 {
                return Err(Error::Running("the kernel does not run the XDP sender".into()));
            }
            continue;
        }
        let at = clock::now().saturating_sub(progress.began);
        let interval = Interval { at, sent: progress.sent, received: sink.arrived(phase)?.packets };
        watch(&interval);
        intervals.push(interval);
        if at >= duration {
            break;
        }
    }
    Ok(())
}
