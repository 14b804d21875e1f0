//! The outer headers of the packet before, and what was found in them: in a batch of few flows most packets have the same.

use anytun_common::wire::satp::HEADER;
use anytun_common::wire::{Bytes, checksum, ethernet, ipv4, udp};

use super::batch::Packet;

/// Where the SATP packet begins in a [plain](anytun_common::classify::plain) frame, and where its header ends.
const START: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER;
const END: usize = START + HEADER;
const ROW: usize = size_of::<u128>();
const ROWS: usize = END / ROW;
const TAIL: usize = END - ROWS * ROW;

/// What may differ between packets that are parsed alike: the identification and the checksum of IPv4, the checksum of UDP and
/// the sequence number.
const VARYING: [(usize, usize); 4] = [
    (ethernet::HEADER + ipv4::IDENTIFICATION, 2),
    (ethernet::HEADER + ipv4::CHECKSUM, 2),
    (ethernet::HEADER + ipv4::HEADER + udp::CHECKSUM, 2),
    (START, 4),
];

/// The bits of each row that do not.
const FIXED: [u128; ROWS] = {
    let mut rows = [u128::MAX; ROWS];
    let mut index = 0;
    while index < VARYING.len() {
        let (at, octets) = VARYING[index];
        let mut octet = at;
        while octet < at + octets {
            rows[octet / ROW] &= !(0xff << (8 * (octet % ROW)));
            octet += 1;
        }
        index += 1;
    }
    rows
};

/// The outer headers of a packet, without what varies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    rows: [u128; ROWS],
    tail: [u8; TAIL],
    /// What identification and checksum of IPv4 add to the sum of its header, which is right for all if it is for one.
    sum: u16,
    /// Octets of the frame.
    length: usize,
}

impl Head {
    /// Those of a frame that is long enough.
    #[inline]
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let octets = frame.first_chunk::<END>()?;
        let mut rows = [0; ROWS];
        for (index, row) in rows.iter_mut().enumerate() {
            *row = u128::from_le_bytes(octets.read(index * ROW)?) & FIXED[index];
        }
        let word = |at: usize| octets.read(ethernet::HEADER + at).map(u16::from_be_bytes).map(u64::from);
        let sum = checksum::fold(word(ipv4::IDENTIFICATION)? + word(ipv4::CHECKSUM)?);
        Some(Self { rows, tail: octets.read(ROWS * ROW)?, sum, length: frame.len() })
    }

    #[inline]
    fn is_like(&self, other: &Self) -> bool {
        let rows = self.rows.iter().zip(&other.rows).fold(0, |all, (one, other)| all | (one ^ other));
        rows == 0 && (self.tail, self.sum, self.length) == (other.tail, other.sum, other.length)
    }
}

/// The last packet of a batch that was found by its headers, and what was found.
#[derive(Debug, Default)]
pub(super) struct Before(Option<(Head, Packet)>);

impl Before {
    /// What parsing a frame that begins so finds, if it is like the one before.
    #[inline]
    pub(super) fn parsed(&self, own: &Head, frame: &[u8]) -> Option<Packet> {
        let (_, packet) = self.0.as_ref().filter(|(head, _)| head.is_like(own))?;
        let mut packet = *packet;
        packet.header.sequence = u32::from_be_bytes(frame.read(START)?);
        Some(packet)
    }

    /// Notes what was found in a plain frame that begins so.
    #[inline]
    pub(super) fn note(&mut self, head: Head, packet: &Packet) {
        // What is for no service has no SATP header.
        self.0 = (!packet.is_from_outside()).then_some((head, *packet));
    }
}

#[cfg(test)]
mod tests {
    use anytun_common::classify::{Datagram, classify, plain};
    use anytun_common::wire::satp::Header;

    use super::*;

    const IP: usize = ethernet::HEADER;

    /// A whole packet, with the checksum of its IP header.
    fn frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame
            .extend_from_slice(&[0x45, 0xb8, 0, 88, 0x12, 0x34, 0x40, 0, 63, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 53]);
        frame.extend_from_slice(&[0x9c, 0x40, 0x11, 0x5c, 0, 68, 0xab, 0xcd]);
        frame.extend_from_slice(&[1, 2, 3, 4, 0, 9, 0, 7]);
        frame.resize(IP + 88, 0xaa);
        sign(&mut frame);
        frame
    }

    /// Writes the checksum of the IP header: that of RFC 1071, word by word.
    fn sign(frame: &mut [u8]) {
        frame[IP + 10..IP + 12].fill(0);
        let words = frame[IP..IP + 20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[IP + 10..IP + 12].copy_from_slice(&(!sum as u16).to_be_bytes());
    }

    /// What parsing finds in a frame.
    fn found(frame: &[u8]) -> Option<(Datagram, Header)> {
        let datagram = classify(frame).ok()?;
        plain(frame)?;
        Some((datagram, Header::read(frame, datagram.payload)?))
    }

    fn before(frame: &[u8]) -> Before {
        let (datagram, header) = found(frame).expect("a packet");
        let mut before = Before::default();
        before.note(Head::of(frame).expect("long enough"), &Packet::new(&datagram, header, 3).expect("a small one"));
        before
    }

    fn parsed(before: &Before, frame: &[u8]) -> Option<Packet> {
        before.parsed(&Head::of(frame)?, frame)
    }

    /// Whatever one bit or two of the headers are changed to.
    #[test]
    fn only_what_parsing_would_find_is_taken_from_the_packet_before() {
        let first = frame();
        let before = before(&first);
        let (datagram, header) = found(&first).expect("a packet");
        let mut alike = 0;
        for one in 0..8 * END {
            for other in one..8 * END {
                let mut frame = first.clone();
                frame[one / 8] ^= 1 << (one % 8);
                if other > one {
                    frame[other / 8] ^= 1 << (other % 8);
                }
                let Some(packet) = parsed(&before, &frame) else { continue };
                alike += 1;
                let (same, own) = found(&frame).expect("what is like a packet is one");
                assert_eq!((same, Header { sequence: header.sequence, ..own }), (datagram, header), "{one} {other}");
                assert_eq!((packet.header, packet.service, packet.start(), packet.end()), (own, 3, START, IP + 88));
            }
        }
        // All pairs within the checksum of UDP and the sequence number, single bits of these, and those changes of the
        // identification that the checksum makes good.
        assert!(alike > 48 * 47 / 2 + 48, "{alike}");
    }

    #[test]
    fn packets_of_a_flow_are_alike() {
        let before = before(&frame());
        for number in 0..=u16::MAX {
            let mut frame = frame();
            frame[IP + 4..IP + 6].copy_from_slice(&number.to_be_bytes());
            frame[START + 2..START + 4].copy_from_slice(&number.to_be_bytes());
            sign(&mut frame);
            let packet = parsed(&before, &frame).expect("the same headers");
            assert_eq!(packet.header.sequence, 0x0102_0000 | u32::from(number));
        }
    }

    #[test]
    fn a_frame_of_another_length_is_another() {
        let (first, before) = (frame(), before(&frame()));
        assert!(parsed(&before, &first).is_some());
        assert!((0..first.len()).all(|length| parsed(&before, &first[..length]).is_none()));
    }
}
