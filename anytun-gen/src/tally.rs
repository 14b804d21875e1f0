//! What the sink has seen.

use anytun_common::stamp::{ANSWER, DATA, PROBE, Stamp};
use hdrhistogram::Histogram;

use crate::track::{Seen, Senders, Track};
use crate::traffic::{Arrival, Bad};

/// The longest time that is told apart: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// Decimal digits that times keep.
const DIGITS: u8 = 3;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // These bounds are within what the histogram can do.
        Self(Histogram::new_with_bounds(1, LONGEST, DIGITS).unwrap_or_else(|_| unreachable!("fixed bounds")))
    }
}

impl Times {
    /// Notes one.
    #[inline]
    pub fn note(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Times) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value below which this share of them is, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

/// Which packets belong to a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The second octet of the magic number.
    pub phase: u8,
    /// The first sequence number.
    pub base: u32,
    /// How many phases before are of the same session.
    pub past: u8,
}

impl Expected {
    /// Whether a packet belongs to the measurement.
    #[inline]
    fn has(&self, stamp: &Stamp) -> bool {
        stamp.magic[1] == self.phase && stamp.sequence >= self.base
    }

    /// Whether a packet belongs to a measurement before, and is late.
    fn is_past(&self, stamp: &Stamp) -> bool {
        let ago = self.phase.wrapping_sub(stamp.magic[1]);
        matches!(stamp.magic[0], DATA | PROBE | ANSWER)
            && if ago == 0 { stamp.sequence < self.base } else { ago <= self.past }
    }
}

/// What has arrived, on one lane or on all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets of the measurement, each counted once.
    pub received: u64,
    /// Probes among them.
    pub probes: u64,
    /// Those that had been there before.
    pub duplicated: u64,
    /// Those that were overtaken.
    pub reordered: u64,
    /// Packets that were changed on the way.
    pub corrupt: u64,
    /// Packets that are none of the measurement.
    pub foreign: u64,
    /// When the first came, in nanoseconds of `CLOCK_MONOTONIC`; 0 before.
    pub first: u64,
    /// When the last came.
    pub last: u64,
    /// One way.
    pub latency: Times,
    /// There and back.
    pub round_trip: Times,
}

/// The numbers of every flow.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    /// Of the stamps, by flow.
    flows: Vec<Track>,
    /// Of SATP, by receiving client and sender ID.
    outer: Vec<Senders>,
}

impl Tracks {
    /// For so many flows.
    pub fn new(flows: u32) -> Self {
        Self { flows: vec![Track::default(); flows as usize], outer: vec![Senders::default(); flows as usize] }
    }
}

impl Tally {
    /// Notes a packet that arrived at `now`. Returns its stamp if it is a probe that wants an answer.
    #[inline]
    pub fn note(
        &mut self,
        tracks: &mut Tracks,
        arrival: Result<Arrival, Bad>,
        expected: Expected,
        now: u64,
    ) -> Option<Stamp> {
        let Arrival { stamp, outer } = match arrival {
            Ok(arrival) => arrival,
            Err(bad) => {
                *(if bad == Bad::Corrupt { &mut self.corrupt } else { &mut self.foreign }) += 1;
                return None;
            }
        };
        let kind = stamp.magic[0];
        let track = tracks.flows.get_mut(usize::from(stamp.flow));
        let (Some(track), DATA | PROBE | ANSWER, true) = (track, kind, expected.has(&stamp)) else {
            // What was lost to a measurement before is none of anybody else.
            self.foreign += u64::from(!expected.is_past(&stamp));
            return None;
        };
        let elapsed = now.saturating_sub(stamp.timestamp);
        if kind == ANSWER {
            self.round_trip.note(elapsed);
            return None;
        }
        let mut seen = track.note(stamp.sequence);
        if let Some(header) = outer
            && let Some(senders) = tracks.outer.get_mut(usize::from(stamp.flow))
        {
            // What a node sends in order, by client and sender ID, need not be in the order of the flow.
            seen = match (seen, senders.note(header.sender, header.sequence)) {
                (Seen::Again, _) | (_, Seen::Again) => Seen::Again,
                (_, seen) => seen,
            };
        }
        match seen {
            Seen::Again => {
                self.duplicated += 1;
                return None;
            }
            Seen::Late | Seen::Old => self.reordered += 1,
            Seen::New => {}
        }
        if self.first == 0 {
            self.first = now;
        }
        self.last = now;
        self.received += 1;
        if stamp.timestamp != 0 {
            self.latency.note(elapsed);
        }
        self.probes += u64::from(kind == PROBE);
        (kind == PROBE).then_some(stamp)
    }

    /// Adds what another lane has seen.
    pub fn add(&mut self, other: &Tally) {
        if other.first != 0 {
            self.first = if self.first == 0 { other.first } else { self.first.min(other.first) };
        }
        self.last = self.last.max(other.last);
        self.received += other.received;
        self.probes += other.probes;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        self.latency.add(&other.latency);
        self.round_trip.add(&other.round_trip);
    }
}

#[cfg(test)]
mod tests {
    use anytun_common::wire::satp::Header;

    use super::*;

    const EXPECTED: Expected = Expected { phase: 4, base: 100, past: 2 };

    fn arrival(kind: u8, flow: u16, sequence: u32, outer: Option<u32>) -> Result<Arrival, Bad> {
        let stamp = Stamp { magic: [kind, 4], flow, sequence, timestamp: 1_000 };
        Ok(Arrival { stamp, outer: outer.map(|sequence| Header { sequence, sender: 1, mux: 9 }) })
    }

    #[test]
    fn what_a_tampered_way_does_is_told_apart() {
        let (mut tally, mut tracks) = (Tally::default(), Tracks::new(2));
        let mut note = |arrival| tally.note(&mut tracks, arrival, EXPECTED, 6_000);
        for sequence in [100, 101, 104, 103] {
            assert_eq!(note(arrival(DATA, 0, sequence, None)), None);
        }
        note(arrival(DATA, 0, 103, None));
        note(arrival(DATA, 2, 100, None));
        note(arrival(DATA, 2, 101, None));
        note(arrival(0, 0, 105, None));
        note(Err(Bad::Corrupt));
        note(Err(Bad::Foreign));
        assert!(note(arrival(PROBE, 1, 100, None)).is_some());
        note(arrival(ANSWER, 1, 100, None));
        assert_eq!((tally.received, tally.duplicated, tally.reordered), (5, 1, 1));
        assert_eq!((tally.corrupt, tally.foreign, tally.probes), (1, 4, 1));
        assert_eq!((tally.latency.count(), tally.round_trip.count()), (5, 1));
        assert_eq!((tally.first, tally.last), (6_000, 6_000));
        assert!((tally.latency.quantile(0.5) - 5.0).abs() < 0.01, "{}", tally.latency.quantile(0.5));
    }

    #[test]
    fn what_comes_late_from_before_counts_nowhere() {
        let (mut tally, mut tracks) = (Tally::default(), Tracks::new(2));
        let mut note = |kind, phase, sequence| {
            let stamp = Stamp { magic: [kind, phase], flow: 0, sequence, timestamp: 1_000 };
            assert_eq!(tally.note(&mut tracks, Ok(Arrival { stamp, outer: None }), EXPECTED, 6_000), None);
        };
        // Of the warm-up with the same prepared packets, and of the two phases before.
        note(DATA, 4, 99);
        for phase in [2, 3] {
            note(ANSWER, phase, 100);
            note(PROBE, phase, 5);
        }
        // Of a session before, and of nobody's.
        note(ANSWER, 1, 100);
        note(DATA, 5, 100);
        note(0, 3, 100);
        assert_eq!((tally.received, tally.duplicated, tally.reordered, tally.corrupt), (0, 0, 0, 0));
        assert_eq!((tally.foreign, tally.round_trip.count(), tally.latency.count()), (3, 0, 0));
    }

    #[test]
    fn with_satp_order_is_that_of_client_and_sender() {
        let (mut tally, mut tracks) = (Tally::default(), Tracks::new(1));
        let mut note = |sequence, outer| tally.note(&mut tracks, arrival(DATA, 0, sequence, Some(outer)), EXPECTED, 1);
        note(100, 7);
        note(102, 8);
        // Overtaken before the node.
        note(101, 9);
        // Overtaken behind it.
        note(104, 11);
        note(103, 10);
        // The node sealed one packet twice, then sent one number twice.
        note(104, 12);
        note(105, 12);
        assert_eq!((tally.received, tally.reordered, tally.duplicated), (5, 1, 2));
    }
}
