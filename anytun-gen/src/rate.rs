//! Rates in packets a second, and the schedule that follows from them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Packets a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// So many.
    Fixed(u64),
    /// As many as can be sent.
    Max,
}

/// The highest rate: above what any link here carries, and low enough for the arithmetic of the XDP program.
pub const HIGHEST: u64 = 32_000_000;

impl FromStr for Rate {
    type Err = String;

    /// Reads a number with the suffix `k` or `M`, or `max`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        let wrong = || format!("`{text}` is no rate; write packets a second such as 5000, 100k or 1.5M, or max");
        let (number, unit) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 1e3),
            Some((at, 'm' | 'M')) => (&text[..at], 1e6),
            _ => (text, 1.0),
        };
        let digits = number.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        let value = number.parse::<f64>().ok().filter(|_| digits).ok_or_else(wrong)? * unit;
        if !(1.0..=HIGHEST as f64).contains(&value) {
            return Err(format!(
                "a rate of {text}; it must be from 1 to {} packets a second, or max",
                Self::Fixed(HIGHEST)
            ));
        }
        Ok(Self::Fixed(value.round() as u64))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Max => f.write_str("max"),
            Self::Fixed(rate) if rate >= 1_000_000 && rate % 10_000 == 0 => write!(f, "{}M", rate as f64 / 1e6),
            Self::Fixed(rate) if rate >= 1_000 && rate % 10 == 0 => write!(f, "{}k", rate as f64 / 1e3),
            Self::Fixed(rate) => write!(f, "{rate}"),
        }
    }
}

/// A rate that grows evenly from one value to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ramp {
    /// At the start.
    pub from: u64,
    /// At the end.
    pub to: u64,
}

impl FromStr for Ramp {
    type Err = String;

    /// Reads `FROM:TO`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) =
            text.split_once(':').ok_or_else(|| format!("`{text}` is no ramp; write it such as 100k:1M"))?;
        match (from.parse()?, to.parse()?) {
            (Rate::Fixed(from), Rate::Fixed(to)) => Ok(Self { from, to }),
            _ => Err("a ramp goes from one number to another; `max` is none".to_owned()),
        }
    }
}

/// How many packets are due at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Packets a second at the start; 0 for as many as can be.
    pub rate: u64,
    /// By how much the rate grows in a second.
    pub growth: i64,
    /// How long.
    pub duration: Duration,
}

impl Schedule {
    /// A rate that does not change.
    pub fn fixed(rate: Rate, duration: Duration) -> Self {
        let rate = match rate {
            Rate::Fixed(rate) => rate,
            Rate::Max => 0,
        };
        Self { rate, growth: 0, duration }
    }

    /// A rate that grows, or falls, over the duration.
    pub fn ramp(ramp: Ramp, duration: Duration) -> Self {
        let growth = (ramp.to as f64 - ramp.from as f64) / duration.as_secs_f64().max(1e-3);
        Self { rate: ramp.from, growth: growth.round() as i64, duration }
    }

    /// The highest rate it comes to; 0 for as many as can be.
    pub fn highest(&self) -> u64 {
        let end = self.rate as f64 + self.growth as f64 * self.duration.as_secs_f64();
        self.rate.max(end.max(0.0) as u64)
    }

    /// Packets that are due so many nanoseconds after the start; everything when there is no rate. The mean of the first
    /// and the present rate, times the time.
    #[inline]
    pub fn due(&self, elapsed: u64) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let micros = elapsed / 1000;
        let grown = self.growth.saturating_mul(micros as i64) / 2_000_000;
        self.rate.saturating_add_signed(grown).saturating_mul(micros) / 1_000_000 + 1
    }

    /// Packets in all; nothing when there is no rate.
    pub fn total(&self) -> Option<u64> {
        (self.rate != 0).then(|| self.due(self.duration.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, rate, shown) in [
            ("5000", 5_000, "5k"),
            ("100k", 100_000, "100k"),
            ("1.5M", 1_500_000, "1.5M"),
            ("0.25m", 250_000, "250k"),
            ("1", 1, "1"),
            ("1234567", 1_234_567, "1234567"),
        ] {
            let read: Rate = text.parse().unwrap();
            assert_eq!(read, Rate::Fixed(rate), "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(read.to_string().parse::<Rate>(), Ok(read));
        }
        assert_eq!("MAX".parse(), Ok(Rate::Max));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "k", "0", "-5", "1e3", "1G", "33M", "inf", "1.2.3", "NaN"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["", "1k", "1k:max", ":", "1k:"] {
            assert!(text.parse::<Ramp>().is_err(), "{text}");
        }
        assert_eq!("100k:1M".parse(), Ok(Ramp { from: 100_000, to: 1_000_000 }));
    }

    #[test]
    fn a_schedule_is_due_packet_by_packet() {
        let even = Schedule::fixed(Rate::Fixed(1_000), Duration::from_secs(2));
        assert_eq!([0, 999_999, 1_000_000, 1_500_000_000].map(|at| even.due(at)), [1, 1, 2, 1_501]);
        assert_eq!(even.total(), Some(2_001));
        assert_eq!(Schedule::fixed(Rate::Max, Duration::from_secs(2)).total(), None);
        let up = Schedule::ramp(Ramp { from: 1_000, to: 3_000 }, Duration::from_secs(2));
        assert_eq!([0, 1_000_000_000, 2_000_000_000].map(|at| up.due(at)), [1, 1_501, 4_001]);
        let down = Schedule::ramp(Ramp { from: 3_000, to: 1_000 }, Duration::from_secs(2));
        assert_eq!(down.total(), Some(4_001));
        assert_eq!((up.highest(), down.highest()), (3_000, 3_000));
    }
}
