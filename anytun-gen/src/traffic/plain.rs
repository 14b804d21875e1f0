//! Plain UDP.

use std::net::SocketAddr;

use anytun_common::generate::Slot;
use anytun_common::stamp::Stamp;
use anytun_common::wire::{checksum, ethernet};

use super::headers::{Ends, udp_checksum};
use super::{Prepared, ethernet_header, payload};
use crate::error::Error;
use crate::size::Sizes;

/// Flows of plain UDP datagrams, whose source ports are counted up.
#[derive(Clone, Debug)]
pub struct Plain {
    ethernet: [u8; ethernet::HEADER],
    ends: Ends,
    flows: u16,
    prefix: Vec<u8>,
    sizes: Sizes,
}

impl Plain {
    /// Flows from the port of `source` upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when ends, flows, sizes and prefix do not fit each other.
    pub fn new(macs: [[u8; 6]; 2], ends: Ends, flows: u16, prefix: Vec<u8>, sizes: Sizes) -> Result<Self, Error> {
        if ends.source.is_ipv4() != ends.destination.is_ipv4() {
            return Err(Error::usage("--source and --destination must be of one family, IPv4 or IPv6"));
        }
        let last = u32::from(ends.source.port()) + u32::from(flows) - 1;
        if ends.source.port() == 0 || last > u32::from(u16::MAX) {
            return Err(Error::usage(format!(
                "{flows} flows from port {} would need ports up to {last}; choose a lower port in --source or fewer --flows",
                ends.source.port()
            )));
        }
        if prefix.len() % 2 != 0 {
            return Err(Error::usage(format!(
                "--prefix has {} octets; it must have an even number, because checksums count words",
                prefix.len()
            )));
        }
        let least = ethernet::HEADER + ends.length() + prefix.len() + Stamp::OCTETS;
        if sizes.smallest() < least {
            return Err(Error::usage(format!(
                "a --size of {} has no room for headers and stamp; these packets need at least {least} octets",
                sizes.smallest()
            )));
        }
        let ethernet = ethernet_header(macs[0], macs[1], ends.is_v4());
        Ok(Self { ethernet, ends, flows, prefix, sizes })
    }

    /// How many flows there are.
    pub fn flows(&self) -> u32 {
        self.flows.into()
    }

    /// The sizes.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Octets of the largest frame.
    pub fn largest(&self) -> usize {
        self.sizes.largest()
    }

    /// The addresses and ports of a flow.
    pub fn ends(&self, flow: u16) -> Ends {
        let mut ends = self.ends;
        ends.source.set_port(ends.source.port().wrapping_add(flow));
        ends
    }

    /// Where the first flow comes from.
    pub fn source(&self) -> SocketAddr {
        self.ends.source
    }

    /// Writes the packet with this stamp into `frame`, and returns its length; 0 when `frame` is too short.
    #[inline]
    pub fn write(&self, frame: &mut [u8], stamp: &Stamp) -> usize {
        let length = self.sizes.at(stamp.sequence);
        let Some(frame) = frame.get_mut(..length) else { return 0 };
        let ends = self.ends(stamp.flow);
        let (head, datagram) = frame.split_at_mut(ethernet::HEADER + ends.length());
        let (prefix, rest) = datagram.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(&self.prefix);
        let sum = checksum::add(payload::write(rest, stamp), &self.prefix);
        let octets = datagram.len();
        head[..ethernet::HEADER].copy_from_slice(&self.ethernet);
        ends.write(&mut head[ethernet::HEADER..], octets, udp_checksum(sum + ends.sum(octets)));
        length
    }

    /// The packet of a flow in a round, for a sender that fills in stamp and checksum.
    pub fn prepare(&self, flow: u16, round: u32) -> Prepared {
        let stamp = Stamp { flow, sequence: round, ..Stamp::default() };
        let mut frame = vec![0; self.largest()];
        let length = self.write(&mut frame, &stamp);
        frame.truncate(length);
        let ends = self.ends(flow);
        let stamp_at = ethernet::HEADER + ends.length() + self.prefix.len();
        let check_at = ethernet::HEADER + ends.check_at();
        frame[stamp_at..stamp_at + Stamp::OCTETS].fill(0);
        frame[check_at..check_at + 2].fill(0);
        let octets = length - ethernet::HEADER - ends.length();
        let sum = ends.sum(octets) + checksum::add(0, &frame[ethernet::HEADER + ends.length()..]);
        let slot = Slot {
            length: length as u16,
            stamp_at: stamp_at as u16,
            check_at: check_at as u16,
            sum: checksum::fold(sum),
            flow,
            ..Slot::default()
        };
        Prepared { slot, frame }
    }
}

#[cfg(test)]
mod tests {
    use anytun_common::classify::classify;
    use anytun_common::stamp::DATA;

    use super::*;

    fn plain(source: &str, destination: &str, size: &str, prefix: &[u8]) -> Result<Plain, Error> {
        let ends = Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        Plain::new([[2; 6], [4; 6]], ends, 16, prefix.to_vec(), size.parse().unwrap())
    }

    #[test]
    fn packets_are_whole_and_known_again() {
        for (source, destination) in [("198.18.0.1:7000", "198.18.0.2:9000"), ("[fd00::1]:7000", "[fd00::2]:9000")] {
            let plain = plain(source, destination, "86,512,1400", b"1234").unwrap();
            for sequence in 0..6 {
                let stamp = Stamp { magic: [DATA, 1], flow: 15, sequence, timestamp: 77 };
                let mut frame = [0; 2048];
                let length = plain.write(&mut frame, &stamp);
                assert_eq!(length, [86, 512, 1400][sequence as usize % 3]);
                let datagram = classify(&frame[..length]).unwrap();
                assert_eq!((datagram.source_port, datagram.destination_port), (7015, 9000));
                assert_eq!(payload::read(&frame[datagram.payload + 4..length]), Some(stamp));
                let sum = plain.ends(15).sum(datagram.length) + checksum::add(0, &frame[datagram.payload - 2..length]);
                assert_eq!(checksum::fold(sum), 0xffff);
            }
        }
    }

    #[test]
    fn a_prepared_packet_that_is_completed_is_the_packet() {
        let plain = plain("198.18.0.1:7000", "198.18.0.2:9000", "70,600", b"\x40\x00\x00\x1a").unwrap();
        let stamp = Stamp { magic: [DATA, 1], flow: 3, sequence: 21, timestamp: 1 << 50 };
        let mut whole = [0; 2048];
        let length = plain.write(&mut whole, &stamp);
        let Prepared { slot, mut frame } = plain.prepare(3, 21);
        let (at, check) = (usize::from(slot.stamp_at), usize::from(slot.check_at));
        frame[at..at + Stamp::OCTETS].copy_from_slice(&stamp.to_bytes());
        let sum = udp_checksum(checksum::add(u64::from(slot.sum), &stamp.to_bytes()));
        frame[check..check + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(frame, whole[..length]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_limit() {
        let refused = |result: Result<Plain, Error>| result.unwrap_err().to_string();
        assert!(refused(plain("198.18.0.1:65530", "198.18.0.2:9000", "64", b"")).contains("65545"));
        assert!(refused(plain("198.18.0.1:1", "198.18.0.2:9000", "61", b"")).contains("at least 62"));
        assert!(refused(plain("198.18.0.1:1", "[fd00::2]:9000", "64", b"")).contains("family"));
        assert!(refused(plain("[fd00::1]:1", "[fd00::2]:9000", "64", b"")).contains("at least 82"));
        assert!(refused(plain("198.18.0.1:1", "198.18.0.2:9000", "64", b"1")).contains("even"));
    }
}
