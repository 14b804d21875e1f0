//! A range of ports, as configurations write it.

use std::fmt;

/// Ports below are those of services (RFC 6335 §6), which a NAT keeps clear of (RFC 4787 REQ-3).
const LOWEST: u16 = 1024;

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Reads "20000-29999".
    ///
    /// # Errors
    /// What is wrong with the text and what it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let ends = text.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
        let Some((first, last)) = ends else {
            return Err(format!("{text:?} is no range of ports; it must be FIRST-LAST, such as \"20000-29999\""));
        };
        let Some((first, last)) = u16::try_from(first).ok().zip(u16::try_from(last).ok()) else {
            return Err(format!("{text:?} goes past port {}, which is the last", u16::MAX));
        };
        if first < LOWEST {
            return Err(format!(
                "{text:?} starts below {LOWEST}, where the ports of services are; start at {LOWEST} or above"
            ));
        }
        if last < first {
            return Err(format!("{text:?} ends before it starts; write {last}-{first}"));
        }
        Ok(Self { first, last })
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, at least one.
    pub const fn count(self) -> usize {
        (self.last - self.first) as usize + 1
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The range as aligned blocks of a power of two, each with its first port and how many leading bits of it its ports
    /// share: what a longest-prefix map holds.
    pub fn blocks(self) -> impl Iterator<Item = (u16, u8)> {
        let mut rest = Some(u32::from(self.first));
        std::iter::from_fn(move || {
            let first = rest.filter(|first| *first <= u32::from(self.last))?;
            let left = u32::from(self.last) - first + 1;
            let bits = first.trailing_zeros().min(left.ilog2());
            rest = Some(first + (1 << bits));
            Some((first as u16, 16 - bits as u8))
        })
    }

    /// Whether both have a port in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_written() {
        let range = PortRange::parse("20000-29999").expect("a range");
        assert_eq!((range.first(), range.last(), range.count()), (20_000, 29_999, 10_000));
        assert_eq!(range.to_string(), "20000-29999");
        assert!(range.contains(20_000) && range.contains(29_999));
        assert!(!range.contains(19_999) && !range.contains(30_000));
        assert_eq!(PortRange::parse(" 1024 - 65535 ").expect("a range").count(), 64_512);
        assert_eq!(PortRange::parse("5000-5000").expect("a range").count(), 1);
    }

    #[test]
    fn blocks_are_the_range_and_nothing_else() {
        for text in ["20000-29999", "1024-65535", "5000-5000", "65535-65535", "1025-32768", "32768-65535"] {
            let range = PortRange::parse(text).expect("a range");
            let blocks: Vec<(u16, u8)> = range.blocks().collect();
            let covers = |port: u16| {
                let shares = |(first, bits): &&(u16, u8)| (u32::from(port) ^ u32::from(*first)) >> (16 - bits) == 0;
                blocks.iter().filter(shares).count()
            };
            for port in 0..=u16::MAX {
                assert_eq!(covers(port), usize::from(range.contains(port)), "{port} of {text}");
            }
            assert!(blocks.len() <= 30, "{text}: {}", blocks.len());
        }
    }

    #[test]
    fn ranges_that_touch_in_one_port_overlap() {
        let range = |text| PortRange::parse(text).expect("a range");
        assert!(range("2000-3000").overlaps(range("3000-4000")));
        assert!(range("3000-4000").overlaps(range("2000-3000")));
        assert!(!range("2000-2999").overlaps(range("3000-4000")));
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_way_out() {
        for (text, part) in [
            ("", "FIRST-LAST"),
            ("20000", "FIRST-LAST"),
            ("20000-", "FIRST-LAST"),
            ("a-b", "FIRST-LAST"),
            ("+1-2", "FIRST-LAST"),
            ("20000-29999-30000", "FIRST-LAST"),
            ("20000-65536", "65535"),
            ("20000-99999999999999999999", "65535"),
            ("0-2000", "1024"),
            ("1023-2000", "1024"),
            ("3000-2000", "write 2000-3000"),
        ] {
            let message = PortRange::parse(text).expect_err(text);
            assert!(message.contains(part) && message.contains(&format!("{text:?}")), "{message}");
        }
    }
}
