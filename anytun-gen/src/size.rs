//! Sizes of packets, as the user counts them: octets of the plain Ethernet frame without FCS.

use std::fmt;
use std::str::FromStr;

use anytun_common::wire::ethernet;

/// Sizes that follow each other, again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sizes {
    cycle: Vec<u16>,
    text: String,
}

/// The largest frame: what a slot of the XDP sender and a frame of AF_XDP hold with outer headers in front.
const LARGEST: u16 = 1900;
/// Sizes that a list can have.
const MOST: usize = 64;
/// The simple Internet mix, in the order that spreads the sizes best: seven small, four middle, one large.
const IMIX: [u16; 12] = [64, 594, 64, 64, 594, 64, 1514, 64, 594, 64, 594, 64];

impl Sizes {
    /// How many packets go by until the sizes repeat.
    pub fn period(&self) -> usize {
        self.cycle.len()
    }

    /// The size of the packet with this number.
    #[inline]
    pub fn at(&self, number: u32) -> usize {
        usize::from(self.cycle[number as usize % self.cycle.len()])
    }

    /// The smallest size.
    pub fn smallest(&self) -> usize {
        self.cycle.iter().copied().min().unwrap_or_default().into()
    }

    /// The largest size.
    pub fn largest(&self) -> usize {
        self.cycle.iter().copied().max().unwrap_or_default().into()
    }

    /// The mean size.
    pub fn mean(&self) -> f64 {
        self.cycle.iter().map(|&size| f64::from(size)).sum::<f64>() / self.cycle.len() as f64
    }

    /// No frame larger than this; larger ones become so large.
    pub fn limit(&mut self, largest: usize) {
        let largest = u16::try_from(largest).unwrap_or(u16::MAX);
        for size in &mut self.cycle {
            *size = (*size).min(largest);
        }
    }

    /// Whether the sizes are a mix, whose largest may be made smaller where the way has no room for it.
    pub fn is_mix(&self) -> bool {
        self.text == "imix"
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        if text == "imix" {
            return Ok(Self { cycle: IMIX.to_vec(), text });
        }
        let cycle: Vec<u16> = text.split(',').map(size).collect::<Result<_, _>>()?;
        if cycle.len() > MOST {
            return Err(format!("{} sizes; a list can have {MOST}", cycle.len()));
        }
        Ok(Self { cycle, text })
    }
}

fn size(text: &str) -> Result<u16, String> {
    let least = ethernet::HEADER as u16;
    match text.trim().parse() {
        Ok(size) if (least..=LARGEST).contains(&size) => Ok(size),
        Ok(size) => Err(format!("a size of {size} octets; it must be from {least} to {LARGEST}")),
        Err(_) => Err(format!("`{text}` is no size; write octets such as 64, a list such as 64,512, or imix")),
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_the_mix_are_read() {
        let sizes: Sizes = "64, 512".parse().unwrap();
        assert_eq!((0..4).map(|number| sizes.at(number)).collect::<Vec<_>>(), [64, 512, 64, 512]);
        let mut mix: Sizes = "IMIX".parse().unwrap();
        assert_eq!((mix.period(), mix.smallest(), mix.largest()), (12, 64, 1514));
        let count = |size| (0..12).filter(|&number| mix.at(number) == size).count();
        assert_eq!((count(64), count(594), count(1514)), (7, 4, 1));
        assert!((mix.mean() - 361.5).abs() < 0.01, "{}", mix.mean());
        mix.limit(1414);
        assert_eq!(mix.largest(), 1414);
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_limit() {
        for text in ["", "x", "13", "1901", "64,,64", "-1"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
        assert!("1901".parse::<Sizes>().unwrap_err().contains("14 to 1900"));
    }
}
