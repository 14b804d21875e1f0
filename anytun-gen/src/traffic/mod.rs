//! The packets: how they are made and how they are known again.

pub mod headers;
pub mod payload;
mod plain;
mod satp;
mod turn;

use anytun_common::classify::Datagram;
use anytun_common::generate::{Rule, Slot};
use anytun_common::stamp::{PATTERNS, Stamp};
use anytun_common::wire::ethernet;
use anytun_common::wire::satp::Header;

pub use plain::{Arriving, Plain};
pub use satp::{Places, Receivers, Satp};

use crate::size::Sizes;

/// Which end of the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Where packets are sent, and answers arrive.
    Interface = 0,
    /// Where packets arrive, and answers are sent.
    Sink = 1,
}

/// What is sent.
pub enum Traffic {
    /// Plain UDP.
    Plain(Plain),
    /// SATP of the clients of a node.
    Satp(Satp),
}

/// A packet that arrived as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// What it carries.
    pub stamp: Stamp,
    /// The SATP header it arrived with.
    pub outer: Option<Header>,
}

/// Why a packet that arrived does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// It was changed on the way.
    Corrupt,
    /// It is none of ours.
    Foreign,
}

/// A packet that is prepared for the XDP sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// What the sender has to know of it.
    pub slot: Slot,
    /// The frame; where the sender stamps it, stamp and checksums are still zero.
    pub frame: Vec<u8>,
}

impl Traffic {
    /// Flows: source ports, or clients that send.
    pub fn flows(&self) -> u32 {
        match self {
            Self::Plain(plain) => plain.flows(),
            Self::Satp(satp) => satp.flows(),
        }
    }

    /// The sizes.
    pub fn sizes(&self) -> &Sizes {
        match self {
            Self::Plain(plain) => plain.sizes(),
            Self::Satp(satp) => satp.sizes(),
        }
    }

    /// Octets of the largest frame.
    pub fn largest(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.largest(),
            Self::Satp(satp) => satp.largest(),
        }
    }

    /// Whether every packet must be sealed.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Satp(satp) if satp.is_sealed())
    }

    /// The SATP traffic, if it is that.
    pub fn satp(&self) -> Option<&Satp> {
        match self {
            Self::Plain(_) => None,
            Self::Satp(satp) => Some(satp),
        }
    }

    /// Writes the packet with this stamp as it leaves the interface; returns its length, or 0 when `frame` is too short.
    /// `sequence` is that of SATP.
    #[inline]
    pub fn write(&self, frame: &mut [u8], stamp: &Stamp, sequence: u32) -> usize {
        match self {
            Self::Plain(plain) => plain.write(frame, stamp),
            Self::Satp(satp) => satp.write(Side::Interface, frame, stamp, sequence),
        }
    }

    /// The packet with this stamp for the XDP sender.
    pub fn prepare(&self, stamp: &Stamp, sequence: u32) -> Prepared {
        match self {
            Self::Plain(plain) => plain.prepare(stamp),
            Self::Satp(satp) => satp.prepare(stamp, sequence),
        }
    }

    /// Knows a packet again that arrived at `side`; where one interface is both, the port tells.
    #[inline]
    pub fn read(&self, side: Option<Side>, frame: &mut [u8], datagram: &Datagram) -> Result<Arrival, Bad> {
        let port = datagram.destination_port;
        let is = |side: &Side| {
            let [low, high] = self.ports(*side);
            (low..=high).contains(&port)
        };
        let mut sides = [Side::Sink, Side::Interface].into_iter().filter(|one| side.is_none_or(|side| side == *one));
        let side = sides.find(is).ok_or(Bad::Foreign)?;
        match self {
            Self::Plain(plain) => plain.read(side, frame, datagram),
            Self::Satp(satp) => satp.read(side, frame, datagram),
        }
    }

    /// Makes the answer to a probe that arrived at the sink, in place of it; returns its length. `sequence` is that of SATP.
    #[inline]
    pub fn answer(&self, frame: &mut [u8], datagram: &Datagram, stamp: &Stamp, sequence: u32) -> usize {
        match self {
            Self::Plain(plain) => plain.answer(frame, datagram, stamp),
            Self::Satp(satp) if satp.is_open() => turn::turn(frame, datagram, 0, stamp),
            Self::Satp(satp) => satp.write(Side::Sink, frame, stamp, sequence),
        }
    }

    /// The lowest and the highest UDP destination port of what arrives at a side.
    #[inline]
    pub fn ports(&self, side: Side) -> [u16; 2] {
        match self {
            Self::Plain(plain) => plain.ports(side),
            Self::Satp(satp) => satp.ports(side),
        }
    }

    /// What arrives at a side, for the sink's program; interface, magic number, phase and action are still missing.
    pub fn rule(&self, side: Side) -> Rule {
        let [low, high] = self.ports(side).map(u64::from);
        match self {
            Self::Plain(plain) => Rule { low, high, stamp_at: plain.prefix(side) as u64, ..Rule::default() },
            Self::Satp(satp) if side == Side::Sink && satp.is_open() => {
                Rule { low, high, stamp_at: 0, ..Rule::default() }
            }
            Self::Satp(satp) => {
                Rule { low, high, source: satp.service_port().into(), stamp_at: Rule::SEALED, ..Rule::default() }
            }
        }
    }
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
