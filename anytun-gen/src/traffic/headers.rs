//! IP and UDP headers of the packets that are made.

use std::net::{IpAddr, SocketAddr};

use anytun_common::wire::{checksum, ipv4, ipv6, udp};

/// Time to live, or hop limit.
const TTL: u8 = 64;

/// Where a datagram comes from and where it goes. Both are of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
}

impl Ends {
    /// Whether the headers are those of IPv4.
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Octets of the IP and UDP headers.
    pub fn length(&self) -> usize {
        udp::HEADER + if self.is_v4() { ipv4::HEADER } else { ipv6::HEADER }
    }

    /// Offset of the UDP checksum from the start of the IP header.
    pub fn check_at(&self) -> usize {
        self.length() - udp::HEADER + udp::CHECKSUM
    }

    /// The way back.
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    /// The sum of what the UDP checksum covers besides the payload: the pseudo header and the UDP header.
    pub fn sum(&self, payload: usize) -> u64 {
        let length = (udp::HEADER + payload) as u64;
        let address = |address: IpAddr| match address {
            IpAddr::V4(v4) => checksum::add(0, &v4.octets()),
            IpAddr::V6(v6) => checksum::add(0, &v6.octets()),
        };
        address(self.source.ip())
            + address(self.destination.ip())
            + u64::from(udp::PROTOCOL)
            + 2 * length
            + u64::from(self.source.port())
            + u64::from(self.destination.port())
    }

    /// Writes both headers in front of `payload` octets. `check` is the UDP checksum; 0 for one that is left out, or that
    /// is filled in later. Room for [`length`](Self::length) octets must be there.
    pub fn write(&self, header: &mut [u8], payload: usize, check: u16) {
        let length = (udp::HEADER + payload) as u16;
        let at = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = ipv4::HEADER as u16 + length;
                let h = &mut header[..ipv4::HEADER];
                h.fill(0);
                h[0] = 0x45;
                h[ipv4::TOTAL_LENGTH..ipv4::TOTAL_LENGTH + 2].copy_from_slice(&total.to_be_bytes());
                h[ipv4::FLAGS..ipv4::FLAGS + 2].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
                h[ipv4::TTL] = TTL;
                h[ipv4::PROTOCOL] = udp::PROTOCOL;
                h[ipv4::SOURCE..ipv4::SOURCE + 4].copy_from_slice(&source.octets());
                h[ipv4::DESTINATION..ipv4::DESTINATION + 4].copy_from_slice(&destination.octets());
                let sum = checksum::of(h);
                h[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
                ipv4::HEADER
            }
            (source, destination) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let h = &mut header[..ipv6::HEADER];
                h.fill(0);
                h[0] = 0x60;
                h[ipv6::PAYLOAD_LENGTH..ipv6::PAYLOAD_LENGTH + 2].copy_from_slice(&length.to_be_bytes());
                h[ipv6::NEXT_HEADER] = udp::PROTOCOL;
                h[ipv6::HOP_LIMIT] = TTL;
                h[ipv6::SOURCE..ipv6::SOURCE + 16].copy_from_slice(&octets(source));
                h[ipv6::DESTINATION..ipv6::DESTINATION + 16].copy_from_slice(&octets(destination));
                ipv6::HEADER
            }
        };
        let [s0, s1] = self.source.port().to_be_bytes();
        let [d0, d1] = self.destination.port().to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        let [c0, c1] = check.to_be_bytes();
        header[at..at + udp::HEADER].copy_from_slice(&[s0, s1, d0, d1, l0, l1, c0, c1]);
    }
}

/// The UDP checksum for a sum of all it covers; 0 would mean that there is none (RFC 768).
#[inline]
pub fn udp_checksum(sum: u64) -> u16 {
    match !checksum::fold(sum) {
        0 => 0xffff,
        check => check,
    }
}

#[cfg(test)]
mod tests {
    use anytun_common::classify::classify;
    use anytun_common::wire::ethernet;

    use super::*;

    #[test]
    fn the_decoder_reads_what_is_written_and_the_sums_are_right() {
        for (source, destination) in
            [("198.18.0.1:7000", "192.0.2.53:4444"), ("[2001:db8::1]:7000", "[2001:db8::53]:4444")]
        {
            let ends = Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            let payload = *b"some payload of odd length, 33 oc";
            let check = udp_checksum(ends.sum(payload.len()) + checksum::add(0, &payload));
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
            if !ends.is_v4() {
                frame[12..].copy_from_slice(&[0x86, 0xdd]);
            }
            frame.resize(ethernet::HEADER + ends.length(), 0xff);
            ends.write(&mut frame[ethernet::HEADER..], payload.len(), check);
            frame.extend(payload);
            let datagram = classify(&frame[..]).unwrap();
            assert_eq!((datagram.v4, datagram.length), (ends.is_v4(), payload.len()));
            assert_eq!((datagram.source_port, datagram.destination_port), (7000, 4444));
            // The sum of everything, checksum included, is all ones.
            let stored = &frame[ethernet::HEADER + ends.check_at()..][..2];
            let whole = ends.sum(payload.len()) + checksum::add(0, stored) + checksum::add(0, &payload);
            assert_eq!(checksum::fold(whole), 0xffff);
        }
    }
}
