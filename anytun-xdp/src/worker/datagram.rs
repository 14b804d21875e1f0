//! SATP packets that the kernel received itself, by the socket of a service: outer fragments, which it puts together, and what
//! came to a queue that no worker has. They get back the headers that the kernel took off, and fare as all others.

use std::net::SocketAddr;

use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, ethernet, ipv4, ipv6, udp};

use super::Lane;
use super::io::PacketIo;
use super::opening::Origin;
use super::slow::Inlet;
use crate::table::Tables;
use crate::table::ways::Ways;

/// Datagrams that a worker takes in one turn: packets that come the fast way are not to wait for many.
const TURN: usize = 16;

/// Octets in front of the payload in a frame of this family.
pub const fn head(v4: bool) -> usize {
    ethernet::HEADER + if v4 { ipv4::HEADER } else { ipv6::HEADER } + udp::HEADER
}

/// Writes the headers into the first [`head`] octets of `frame`, behind which is the payload of a datagram that the kernel
/// received: the addresses and ports, DSCP and ECN that it told. What it did not tell is zero, the Ethernet addresses too.
/// Nothing when the addresses are of two families, or the datagram is larger than one can be.
pub fn enclose(frame: &mut [u8], from: SocketAddr, to: SocketAddr, tos: u8) -> Option<()> {
    let (link, network) = frame.split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    link.fill(0);
    let (ethertype, transport) = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let total = u16::try_from(network.len()).ok()?;
            let (h, transport) = network.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
            h.fill(0);
            (h[0], h[ipv4::TOS], h[ipv4::TTL], h[ipv4::PROTOCOL]) = (0x45, tos, 1, udp::PROTOCOL);
            h[ipv4::TOTAL_LENGTH..][..2].copy_from_slice(&total.to_be_bytes());
            h[ipv4::SOURCE..][..4].copy_from_slice(&from.ip().octets());
            h[ipv4::DESTINATION..][..4].copy_from_slice(&to.ip().octets());
            let sum = checksum::of(h);
            h[ipv4::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
            (ethernet::IPV4, transport)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let (h, transport) = network.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
            h.fill(0);
            (h[0], h[ipv6::NEXT_HEADER], h[ipv6::HOP_LIMIT]) = (0x60, udp::PROTOCOL, 1);
            ipv6::set_traffic_class(h, tos);
            h[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&u16::try_from(transport.len()).ok()?.to_be_bytes());
            h[ipv6::SOURCE..][..16].copy_from_slice(&from.ip().octets());
            h[ipv6::DESTINATION..][..16].copy_from_slice(&to.ip().octets());
            (ethernet::IPV6, transport)
        }
        _ => return None,
    };
    link[ethernet::TYPE..].copy_from_slice(&ethertype.to_be_bytes());
    let length = u16::try_from(transport.len()).ok()?;
    // The kernel has checked the checksum.
    for (field, value) in transport.as_chunks_mut::<2>().0.iter_mut().zip([from.port(), to.port(), length, 0]) {
        *field = value.to_be_bytes();
    }
    (usize::from(length) >= udp::HEADER).then_some(())
}

impl<I: PacketIo> Lane<I> {
    /// Takes datagrams that the kernel received for services through all stages, and sends what comes of them; returns how
    /// many.
    #[inline]
    pub(super) fn take_datagrams(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        if self.datagrams.as_ref().is_none_or(Inlet::is_empty) {
            return 0;
        }
        self.relay_datagrams(tables, ways, now)
    }

    #[inline(never)]
    fn relay_datagrams(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        let taken = self.frame_datagrams();
        if !self.received.is_empty() {
            let asks = self.asks.clone();
            self.relay(tables, ways, Origin::Kernel { ways, asks: &asks }, now, |_| ());
            self.transmit(tables);
            self.send_fragments(tables, ways, now);
        }
        taken
    }

    /// Puts datagrams into frames, among the received ones.
    fn frame_datagrams(&mut self) -> usize {
        let Self { io, tally, received, datagrams, .. } = self;
        let Some(inlet) = datagrams else { return 0 };
        let mut taken = 0;
        while taken < TURN
            && let Some(parcel) = inlet.take()
        {
            taken += 1;
            let framed = parcel.packet();
            // Without a frame it fares as what finds no room in a TX ring.
            let verdict = match (io.allocate(received, 1) > 0).then(|| received.pop()).flatten() {
                None => Some(Verdict::TxRingFull),
                Some(mut frame) => match io.buffer(&mut frame).get_mut(..framed.len()) {
                    Some(memory) => {
                        memory.copy_from_slice(framed);
                        io.set_length(&mut frame, framed.len());
                        received.push(frame);
                        None
                    }
                    None => {
                        io.recycle(frame);
                        Some(Verdict::TooBig)
                    }
                },
            };
            verdict.into_iter().for_each(|verdict| tally.count(verdict, 1));
            inlet.give_back(parcel);
        }
        tally.injected += taken as u64;
        taken
    }
}

#[cfg(test)]
mod tests {
    use anytun_common::classify::classify;
    use anytun_common::wire::mapped;

    use super::*;

    #[test]
    fn a_datagram_is_read_back_as_the_kernel_told_it() {
        for (from, to, v4) in
            [("198.51.100.7:40000", "192.0.2.53:4444", true), ("[2001:db8:1::7]:40000", "[2001:db8::53]:4444", false)]
        {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|address| address.parse().expect("an address"));
            for payload in [0, 1, 1700, 65_000] {
                let mut frame = vec![0xaa; head(v4) + payload];
                assert_eq!(enclose(&mut frame, from, to, 0xb9), Some(()));
                let found = classify(frame.as_slice()).expect("a datagram");
                assert_eq!((found.payload, found.length, found.v4, found.tos), (head(v4), payload, v4, 0xb9));
                let octets = |address: SocketAddr| match address {
                    SocketAddr::V4(address) => mapped(address.ip().octets()),
                    SocketAddr::V6(address) => address.ip().octets(),
                };
                assert_eq!((found.source, found.source_port), (octets(from), 40_000));
                assert_eq!((found.destination, found.destination_port), (octets(to), 4444));
                assert!(frame[head(v4)..].iter().all(|octet| *octet == 0xaa), "the payload is as it was");
                assert_eq!(frame[..12], [0; 12]);
            }
        }
    }

    #[test]
    fn what_no_datagram_can_be_gets_no_headers() {
        let [v4, v6] = ["192.0.2.53:4444", "[2001:db8::53]:4444"].map(|address| address.parse().expect("an address"));
        for (from, to, v4) in [(v4, v4, true), (v6, v6, false)] {
            for length in 0..head(v4) {
                assert_eq!(enclose(&mut vec![0; length], from, to, 0), None, "{length} octets");
            }
            assert_eq!(enclose(&mut vec![0; head(v4) + 65_536], from, to, 0), None);
        }
        assert_eq!(enclose(&mut [0; 100], v4, v6, 0), None);
        assert_eq!(enclose(&mut [0; 100], v6, v4, 0), None);
    }
}
