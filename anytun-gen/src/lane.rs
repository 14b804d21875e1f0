//! A lane: the thread that owns one queue of both interfaces. It sends, receives and answers, so that one processor is
//! enough for both ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anytun_common::classify::classify;
use anytun_common::stamp::{ANSWER, DATA, PROBE, Stamp};
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::{Frame, Link, PortSpec, Xsk};
use anytun_xdp::worker::io::PacketIo;

use crate::clock;
use crate::error::Error;
use crate::rate::Schedule;
use crate::tally::{Expected, Tally, Tracks};
use crate::traffic::{Side, Traffic};

/// Packets that are made, or received, together.
pub const BATCH: usize = 64;
/// How far behind its schedule a sender may be and still catch up; what is more is left out.
pub const SLACK: Duration = Duration::from_micros(100);
/// How long a lane with nothing to do waits.
const NAP: Duration = Duration::from_millis(1);
/// Empty frames a second with which clients introduce themselves: what any node takes.
const INTRODUCTIONS: u64 = 50_000;

/// One queue of each interface, in one memory.
pub struct Lane {
    io: Xsk,
    /// The port of the sink: 0 when it is the same interface.
    sink: usize,
    /// Which of the lanes, and of how many.
    number: u32,
    lanes: u32,
    frames: Vec<Frame>,
    /// Packets that the TX ring had no room for.
    waiting: VecDeque<Frame>,
    answers: Vec<Frame>,
}

/// What a lane is to do.
pub struct Job<'a> {
    /// The packets.
    pub traffic: &'a Traffic,
    /// When packets are due, all lanes together; nothing when it does not send.
    pub schedule: Option<Schedule>,
    /// When the schedule starts, in nanoseconds of `CLOCK_MONOTONIC`.
    pub start: u64,
    /// Whether it receives.
    pub receives: bool,
    /// Which packets belong to the measurement, sent and received.
    pub expected: Expected,
    /// The first sequence number of SATP.
    pub first: u32,
    /// One in so many packets is a probe; 0 for none.
    pub probes: u32,
    /// Sequence numbers of the receiving clients, for their answers.
    pub answering: &'a [AtomicU32],
    /// Set when it is to send no more.
    pub stop: &'a AtomicBool,
    /// Set when it is to end.
    pub finish: &'a AtomicBool,
    /// How far it is.
    pub shown: &'a Shown,
}

/// How far a lane is, for others to see.
#[derive(Debug, Default)]
pub struct Shown {
    /// Packets sent.
    pub sent: AtomicU64,
    /// Packets of the measurement received.
    pub received: AtomicU64,
    /// Probes among them.
    pub probes: AtomicU64,
    /// Answers received.
    pub answers: AtomicU64,
    /// Whether it sends no more.
    pub done: AtomicBool,
}

impl Shown {
    fn note(&self, tally: &Tally) {
        self.received.store(tally.received, Ordering::Relaxed);
        self.probes.store(tally.probes, Ordering::Relaxed);
        self.answers.store(tally.round_trip.count(), Ordering::Relaxed);
    }
}

/// What a lane has done.
#[derive(Debug, Default)]
pub struct Work {
    /// Packets sent.
    pub sent: u64,
    /// Packets left out because it was too slow.
    pub skipped: u64,
    /// When the last packet was sent, in nanoseconds since the start.
    pub sending: u64,
    /// Rounds of sequence numbers that were begun.
    pub rounds: u32,
    /// What it received.
    pub tally: Tally,
}

/// The sender's half of a lane.
struct Sender {
    work: Work,
    flow: u32,
    sequence: u32,
    made: u64,
}

impl Lane {
    /// Opens the sockets of lane `number` of `lanes` on `queue` of both interfaces.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] as [`Xsk::open`] has it.
    pub fn open(links: [&Link; 2], queue: u32, mode: XdpMode, [number, lanes]: [u32; 2]) -> Result<Self, Error> {
        let port = |link: &Link| Some(PortSpec { link: link.clone(), queue, mode });
        let one = links[0].ifindex == links[1].ifindex;
        let ports = if one { vec![port(links[0])] } else { vec![port(links[0]), port(links[1])] };
        Ok(Self {
            io: Xsk::open(&ports)?,
            sink: usize::from(!one),
            number,
            lanes,
            frames: Vec::with_capacity(BATCH),
            waiting: VecDeque::with_capacity(BATCH),
            answers: Vec::with_capacity(BATCH),
        })
    }

    /// The sockets, for the sink's program.
    pub fn io(&self) -> &Xsk {
        &self.io
    }

    /// The port of a side.
    pub fn port(&self, side: Side) -> usize {
        if side == Side::Sink { self.sink } else { 0 }
    }

    /// Lets the receiving clients, which have these `sequences`, tell the node where they are.
    pub fn introduce(&mut self, traffic: &Traffic, sequences: &[AtomicU32]) {
        let Some(satp) = traffic.satp() else { return };
        let schedule = Schedule { rate: INTRODUCTIONS, growth: 0, duration: Duration::MAX };
        let start = clock::now();
        let (mut flow, receivers) = (0, satp.receivers());
        while flow < receivers {
            self.io.reclaim();
            let due = schedule.due(clock::now() - start).saturating_sub(flow.into()).min(BATCH as u64) as usize;
            let wanted = due.min((receivers - flow) as usize);
            self.io.allocate(&mut self.answers, wanted);
            for frame in &mut self.answers {
                let sequence = sequences[flow as usize].fetch_add(1, Ordering::Relaxed);
                let length = satp.keepalive(Side::Sink, self.io.buffer(frame), flow as u16, sequence);
                self.io.set_length(frame, length);
                flow += 1;
            }
            while !self.answers.is_empty() {
                self.io.transmit(self.sink, &mut self.answers);
                self.io.kick();
                self.io.reclaim();
            }
        }
        self.drain();
    }

    /// Does a job.
    pub fn run(&mut self, job: &Job<'_>) -> Work {
        let mut tracks = Tracks::new(if job.receives { job.traffic.flows() } else { 0 });
        let mut sender = Sender { work: Work::default(), flow: self.number, sequence: job.expected.base, made: 0 };
        // Of several lanes each has its share of the flows and of the rate.
        let mut sends = job.schedule.is_some() && self.number < job.traffic.flows();
        job.shown.done.store(!sends, Ordering::Release);
        while !job.finish.load(Ordering::Acquire) {
            self.io.reclaim();
            let mut busy = 0;
            if job.receives {
                busy += self.receive(job, &mut tracks, &mut sender.work.tally);
                job.shown.note(&sender.work.tally);
            }
            if let Some(schedule) = job.schedule.as_ref().filter(|_| sends) {
                match clock::now().checked_sub(job.start) {
                    None => {}
                    Some(elapsed)
                        if elapsed < schedule.duration.as_nanos() as u64 && !job.stop.load(Ordering::Relaxed) =>
                    {
                        busy += self.send(job, schedule, elapsed, &mut sender);
                        job.shown.sent.store(sender.work.sent, Ordering::Relaxed);
                    }
                    Some(_) => {
                        sends = false;
                        job.shown.done.store(true, Ordering::Release);
                    }
                }
            }
            if busy > 0 {
                self.io.kick();
            } else if sends {
                std::hint::spin_loop();
            } else {
                self.io.kick();
                self.io.wait(NAP);
            }
        }
        for frame in self.waiting.drain(..) {
            self.io.recycle(frame);
        }
        self.drain();
        sender.work.rounds = sender.sequence - job.expected.base + u32::from(sender.flow != self.number);
        sender.work
    }

    /// Makes and sends what is due; returns how many packets the kernel took.
    fn send(&mut self, job: &Job<'_>, schedule: &Schedule, elapsed: u64, sender: &mut Sender) -> usize {
        let share = u64::from(self.lanes);
        let accounted = sender.made + sender.work.skipped;
        let mut due = (schedule.due(elapsed) / share).saturating_sub(accounted);
        if schedule.rate != 0 {
            let slack = (schedule.highest() * SLACK.as_micros() as u64 / 1_000_000 / share).max(BATCH as u64);
            if due > slack {
                sender.work.skipped += due - slack;
                due = slack;
            }
        }
        let wanted = (due as usize).min(BATCH).saturating_sub(self.waiting.len());
        self.frames.extend(self.waiting.drain(..));
        let made = self.frames.len();
        self.io.allocate(&mut self.frames, wanted);
        for frame in &mut self.frames[made..] {
            let probe = job.probes != 0 && sender.made.is_multiple_of(u64::from(job.probes));
            let kind = if probe { PROBE } else { DATA };
            let stamp = Stamp {
                magic: [kind, job.expected.phase],
                flow: sender.flow as u16,
                sequence: sender.sequence,
                timestamp: clock::now(),
            };
            let sequence = job.first.wrapping_add(sender.sequence - job.expected.base);
            let length = job.traffic.write(self.io.buffer(frame), &stamp, sequence);
            self.io.set_length(frame, length);
            sender.made += 1;
            sender.flow += self.lanes;
            if sender.flow >= job.traffic.flows() {
                sender.flow = self.number;
                sender.sequence += 1;
            }
        }
        let sent = self.io.transmit(0, &mut self.frames);
        self.waiting.extend(self.frames.drain(..));
        if sent > 0 {
            sender.work.sent += sent as u64;
            sender.work.sending = elapsed;
        }
        sent
    }

    /// Takes a batch from every port; returns how many packets there were.
    fn receive(&mut self, job: &Job<'_>, tracks: &mut Tracks, tally: &mut Tally) -> usize {
        let mut total = 0;
        for port in 0..self.io.ports() {
            let count = self.io.receive(port, &mut self.frames, BATCH);
            if count == 0 {
                continue;
            }
            total += count;
            let now = clock::now();
            let side = match (self.sink, port) {
                (0, _) => None,
                (_, 0) => Some(Side::Interface),
                _ => Some(Side::Sink),
            };
            for mut frame in self.frames.drain(..) {
                let Ok(datagram) = classify(self.io.packet(&frame)) else {
                    tally.foreign += 1;
                    self.io.recycle(frame);
                    continue;
                };
                let arrival = job.traffic.read(side, self.io.buffer(&mut frame), &datagram);
                let probe = tally.note(tracks, arrival, job.expected, now);
                let Some(stamp) = probe else {
                    self.io.recycle(frame);
                    continue;
                };
                let answer = Stamp { magic: [ANSWER, job.expected.phase], ..stamp };
                let sequence =
                    job.answering.get(usize::from(stamp.flow)).map(|next| next.fetch_add(1, Ordering::Relaxed));
                let buffer = self.io.buffer(&mut frame);
                let length = job.traffic.answer(buffer, &datagram, &answer, sequence.unwrap_or_default());
                self.io.set_length(&mut frame, length);
                self.answers.push(frame);
            }
        }
        if !self.answers.is_empty() {
            self.io.transmit(self.sink, &mut self.answers);
            // Without room in the ring an answer is lost, as any packet may be.
            for frame in self.answers.drain(..) {
                self.io.recycle(frame);
            }
        }
        total
    }

    /// Waits until the kernel has sent what it took.
    fn drain(&mut self) {
        let deadline = clock::now() + Duration::from_secs(1).as_nanos() as u64;
        while self.io.ledger().tx > 0 && clock::now() < deadline {
            self.io.kick();
            self.io.reclaim();
            if self.io.ledger().tx > 0 {
                self.io.wait(NAP);
            }
        }
    }
}
