//! What a measurement looks like from outside while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::error::Error;
use crate::lane::Shown;
use crate::live::Live;
use crate::outcome::Interval;
use crate::rate::Schedule;
use crate::sink::Sink;

/// How often senders and sink are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// How long nothing must have arrived before a measurement ends.
const QUIET: Duration = Duration::from_millis(100);
/// How long something may still arrive after the last packet was sent.
const SETTLE: Duration = Duration::from_secs(2);
/// How long it may take until the first packet is sent.
const START: Duration = Duration::from_secs(5);
/// Moments that an outcome keeps of a short measurement and of a long one, and what is long.
const MOMENTS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
const LONG: Duration = Duration::from_secs(10);

/// Who sends and who receives, seen from outside.
pub(crate) struct Look<'a> {
    /// The XDP sender, if it is that.
    pub(crate) live: Option<&'a Live>,
    pub(crate) sink: Option<&'a Sink>,
    pub(crate) shown: &'a [Shown],
    pub(crate) phase: u8,
    /// When lanes start.
    pub(crate) start: u64,
}

impl Look<'_> {
    /// When the sender started, 0 when it has not; and what was sent until now.
    pub(crate) fn sent(&self) -> Result<(u64, u64), Error> {
        match self.live {
            Some(live) => live.progress().map(|progress| (progress.began, progress.sent)),
            None => Ok((self.start, self.shown.iter().map(|shown| shown.sent.load(Ordering::Relaxed)).sum())),
        }
    }

    pub(crate) fn received(&self) -> Result<u64, Error> {
        match self.sink {
            Some(sink) => sink.arrived(self.phase).map(|arrived| arrived.packets),
            None => Ok(self.shown.iter().map(|shown| shown.received.load(Ordering::Relaxed)).sum()),
        }
    }

    /// Answers that are still on their way.
    fn unanswered(&self) -> u64 {
        let sum = |count: fn(&Shown) -> &AtomicU64| -> u64 {
            self.shown.iter().map(|shown| count(shown).load(Ordering::Relaxed)).sum()
        };
        sum(|shown| &shown.probes).saturating_sub(sum(|shown| &shown.answers))
    }

    /// Waits until the time of the sender is over, and notes what goes on.
    pub(crate) fn follow(
        &self,
        schedule: &Schedule,
        watch: &mut dyn FnMut(&Interval),
        stop: &AtomicBool,
        intervals: &mut Vec<Interval>,
        ended: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (asked, duration) = (clock::now(), schedule.duration.as_nanos() as u64);
        let step = MOMENTS[usize::from(schedule.duration > LONG)].as_nanos() as u64;
        loop {
            thread::sleep(LOOK);
            // First, so that no moment has more packets received than sent.
            let received = self.received()?;
            let (began, sent) = self.sent()?;
            let over = ended() || stop.load(Ordering::Relaxed);
            if began == 0 {
                if over {
                    return Ok(());
                }
                if clock::now() - asked > START.as_nanos() as u64 {
                    return Err(Error::Running("the kernel does not run the XDP sender".into()));
                }
                continue;
            }
            let at = clock::now().saturating_sub(began);
            let interval = Interval { at, sent, received };
            watch(&interval);
            let over = over || (self.live.is_some() && at >= duration);
            if over || intervals.last().map_or(0, |last: &Interval| last.at) + step <= at {
                intervals.push(interval);
            }
            if over {
                return Ok(());
            }
        }
    }

    /// Waits until everything has arrived, answers too, or nothing arrives any more.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let end = clock::now() + SETTLE.as_nanos() as u64;
        let (_, sent) = self.sent()?;
        let missing = |received: u64| sent.saturating_sub(received) + self.unanswered();
        let (mut last, mut changed) = (missing(self.received()?), clock::now());
        while last > 0 && clock::now() < end.min(changed + QUIET.as_nanos() as u64) {
            thread::sleep(LOOK);
            let now = missing(self.received()?);
            if now != last {
                (last, changed) = (now, clock::now());
            }
        }
        Ok(())
    }
}
