//! The packets: how they are made and how they are known again.

pub mod headers;
pub mod payload;
mod plain;

use anytun_common::generate::Slot;
use anytun_common::stamp::PATTERNS;
use anytun_common::wire::ethernet;

pub use plain::Plain;

/// A packet that is prepared for the XDP sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// What the sender has to know of it.
    pub slot: Slot,
    /// The frame; where it has a stamp, that is still zero, and so are the checksums over it.
    pub frame: Vec<u8>,
}

/// An Ethernet header without a tag.
pub fn ethernet_header(destination: [u8; 6], source: [u8; 6], v4: bool) -> [u8; ethernet::HEADER] {
    let mut header = [0; ethernet::HEADER];
    header[..ethernet::SOURCE].copy_from_slice(&destination);
    header[ethernet::SOURCE..ethernet::TYPE].copy_from_slice(&source);
    let ethertype = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    header[ethernet::TYPE..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// Rounds of all flows after which prepared packets repeat: a multiple of the sizes' period and of the patterns.
pub fn rounds(period: usize) -> u32 {
    let (mut a, mut b) = (period as u32, PATTERNS);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    period as u32 / a * PATTERNS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_hold_whole_periods() {
        assert_eq!([1, 2, 3, 12, 16, 48].map(rounds), [16, 16, 48, 48, 16, 48]);
    }
}
