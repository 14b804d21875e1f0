//! Plain UDP.

use anytun_common::classify::Datagram;
use anytun_common::generate::Slot;
use anytun_common::stamp::{ANSWER, Stamp};
use anytun_common::wire::{checksum, ethernet};

use super::headers::{Ends, udp_checksum};
use super::{Arrival, Bad, Prepared, Side, ethernet_header, payload, turn};
use crate::error::Error;
use crate::size::Sizes;

/// Flows of plain UDP datagrams, whose source ports are counted up.
#[derive(Clone, Debug)]
pub struct Plain {
    ethernet: [u8; ethernet::HEADER],
    ends: Ends,
    flows: u16,
    prefix: Vec<u8>,
    arrival: Arriving,
    sizes: Sizes,
}

/// How packets arrive at the sink.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Their UDP destination port.
    pub port: u16,
    /// What is in front of the stamp.
    pub prefix: Vec<u8>,
}

impl Plain {
    /// Flows from the port of `source` upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when ends, flows, sizes and prefix do not fit each other.
    pub fn new(
        macs: [[u8; 6]; 2],
        ends: Ends,
        flows: u16,
        prefix: Vec<u8>,
        arrival: Arriving,
        sizes: Sizes,
    ) -> Result<Self, Error> {
        if ends.source.is_ipv4() != ends.destination.is_ipv4() {
            return Err(Error::usage("--source and --destination must be of one family, IPv4 or IPv6"));
        }
        let last = u32::from(ends.source.port()) + u32::from(flows) - 1;
        if last > u32::from(u16::MAX) {
            return Err(Error::usage(format!(
                "{flows} flows from port {} would need ports up to {last}; choose a lower port in --source or fewer --flows",
                ends.source.port()
            )));
        }
        if !prefix.len().is_multiple_of(2) {
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
        Ok(Self { ethernet, ends, flows, prefix, arrival, sizes })
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

    /// The lowest and the highest UDP destination port of what arrives at a side.
    #[inline]
    pub fn ports(&self, side: Side) -> [u16; 2] {
        match side {
            Side::Sink => [self.arrival.port; 2],
            Side::Interface => [self.ends.source.port(), self.ends.source.port() + (self.flows - 1)],
        }
    }

    /// Octets in front of the stamp of what arrives at a side.
    pub fn prefix(&self, side: Side) -> usize {
        match side {
            Side::Sink => self.arrival.prefix.len(),
            Side::Interface => self.prefix.len(),
        }
    }

    /// Knows a packet again.
    #[inline]
    pub fn read(&self, side: Side, frame: &[u8], datagram: &Datagram) -> Result<Arrival, Bad> {
        let data = frame.get(datagram.payload..datagram.payload + datagram.length).ok_or(Bad::Corrupt)?;
        let prefix = if side == Side::Sink { &self.arrival.prefix } else { &self.prefix };
        let data = data.strip_prefix(&prefix[..]).ok_or(Bad::Foreign)?;
        if !payload::is_stamped(data) {
            return Err(Bad::Foreign);
        }
        let stamp = payload::read(data).filter(|stamp| stamp.flow < self.flows).ok_or(Bad::Corrupt)?;
        // The relay must not have lost or added octets at the end.
        let sent = self.sizes.at(stamp.sequence) - ethernet::HEADER - self.ends.length() - self.prefix.len();
        if data.len() != sent && stamp.magic[0] != ANSWER {
            return Err(Bad::Corrupt);
        }
        Ok(Arrival { stamp, outer: None })
    }

    /// Turns a packet that arrived around, with another stamp.
    #[inline]
    pub fn answer(&self, frame: &mut [u8], datagram: &Datagram, stamp: &Stamp) -> usize {
        turn::turn(frame, datagram, self.arrival.prefix.len(), stamp)
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

    /// The packet with this stamp, for a sender that fills in stamp and checksum.
    pub fn prepare(&self, stamp: &Stamp) -> Prepared {
        let flow = stamp.flow;
        let mut frame = vec![0; self.largest()];
        let length = self.write(&mut frame, stamp);
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
    use anytun_common::stamp::{DATA, PROBE};

    use super::*;

    fn plain(source: &str, destination: &str, size: &str, prefix: &[u8]) -> Result<Plain, Error> {
        let ends = Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        let arrival = Arriving { port: 9000, prefix: prefix.to_vec() };
        Plain::new([[2; 6], [4; 6]], ends, 16, prefix.to_vec(), arrival, size.parse().unwrap())
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
        let Prepared { slot, mut frame } = plain.prepare(&stamp);
        let (at, check) = (usize::from(slot.stamp_at), usize::from(slot.check_at));
        frame[at..at + Stamp::OCTETS].copy_from_slice(&stamp.to_bytes());
        let sum = udp_checksum(checksum::add(u64::from(slot.sum), &stamp.to_bytes()));
        frame[check..check + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(frame, whole[..length]);
    }

    #[test]
    fn an_answer_is_the_packet_turned_around() {
        for (source, destination) in [("198.18.0.1:7000", "198.18.0.2:9000"), ("[fd00::1]:7000", "[fd00::2]:9000")] {
            let plain = plain(source, destination, "101", b"1234").unwrap();
            let stamp = Stamp { magic: [PROBE, 1], flow: 2, sequence: 9, timestamp: 77 };
            let mut frame = [0; 2048];
            let length = plain.write(&mut frame, &stamp);
            let datagram = classify(&frame[..length]).unwrap();
            assert_eq!(plain.read(Side::Sink, &frame[..length], &datagram).unwrap().stamp, stamp);
            let answer = Stamp { magic: [ANSWER, 1], ..stamp };
            assert_eq!(plain.answer(&mut frame, &datagram, &answer), length);
            let back = classify(&frame[..length]).unwrap();
            assert_eq!((back.source, back.destination), (datagram.destination, datagram.source));
            assert_eq!((back.source_port, back.destination_port), (9000, 7002));
            assert_eq!((&frame[..6], &frame[6..12]), (&[4; 6][..], &[2; 6][..]));
            assert_eq!(plain.read(Side::Interface, &frame[..length], &back).unwrap().stamp, answer);
            let sum = plain.ends(2).sum(back.length) + checksum::add(0, &frame[back.payload - 2..length]);
            assert_eq!(checksum::fold(sum), 0xffff);
        }
    }

    #[test]
    fn what_was_changed_is_corrupt_and_what_is_not_ours_foreign() {
        let plain = plain("198.18.0.1:7000", "198.18.0.2:9000", "64", b"").unwrap();
        let mut frame = [0; 64];
        plain.write(&mut frame, &Stamp { magic: [DATA, 1], flow: 2, sequence: 9, timestamp: 77 });
        let datagram = classify(&frame[..]).unwrap();
        let read = |change: fn(&mut [u8])| {
            let mut frame = frame;
            change(&mut frame[datagram.payload..]);
            plain.read(Side::Sink, &frame, &datagram).map(|arrival| arrival.stamp.sequence)
        };
        assert_eq!(read(|_| {}), Ok(9));
        assert_eq!(read(|data| data[7] ^= 1), Err(Bad::Corrupt));
        assert_eq!(read(|data| data[21] ^= 0x80), Err(Bad::Corrupt));
        assert_eq!(read(|data| data[0] = 0), Err(Bad::Foreign));
        let cut = Datagram { length: datagram.length - 1, ..datagram };
        assert_eq!(plain.read(Side::Sink, &frame, &cut), Err(Bad::Corrupt));
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
