//! Where a client is: learned from its packets by one worker, read by all.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use anytun_common::wire::ethernet::{self, MAX_TAGS, Mac, TAG};
use anytun_common::wire::unmapped;

use super::latch::Latch;

/// The way to a client: the interface, neighbour and tags its last authentic packet came from, and its outer address and
/// port.
///
/// It is kept as the words in which workers share it, and its parts are taken out in registers: what is stored in pieces
/// cannot be loaded as a whole at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint([u64; WORDS]);

/// What tells where a client is. Frames tell most: only they show the way that packets really came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// A frame of the client.
    Frame,
    /// A datagram of the client that the kernel received, and the routes of the host.
    Datagram,
    /// The configuration, and the routes of the host.
    Configuration,
}

/// The first octets of a frame: destination and source address, as they stand on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link([u8; ethernet::TYPE]);

impl Link {
    /// From the node's address `local` to `neighbour`.
    #[inline]
    pub fn new(neighbour: Mac, local: Mac) -> Self {
        let mut octets = [0; ethernet::TYPE];
        octets[..ethernet::SOURCE].copy_from_slice(&neighbour);
        octets[ethernet::SOURCE..].copy_from_slice(&local);
        Self(octets)
    }

    /// The way back of a frame that came with these addresses.
    #[inline]
    pub fn back(octets: &[u8; ethernet::TYPE]) -> Self {
        // Turned around as a number: octets that are stored one by one cannot be loaded as a whole at once.
        let number = Self(*octets).number();
        Self::from_number(number >> 48 | (number & MAC) << 48)
    }

    /// The octets.
    #[inline]
    pub fn as_bytes(&self) -> &[u8; ethernet::TYPE] {
        &self.0
    }

    #[inline]
    fn number(self) -> u128 {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        let (low, high) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]));
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline]
    fn from_number(number: u128) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = number.to_le_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l])
    }
}

/// The bits of one address.
const MAC: u128 = (1 << 48) - 1;

/// Up to two VLAN tags, outermost first, each a TPID and a TCI in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tags {
    octets: [u8; MAX_TAGS * TAG],
    length: u8,
}

impl Tags {
    /// The tags of a frame: what lies between its source address and its EtherType. Nothing when that is not a whole
    /// number of tags.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        // Few frames are tagged, and to copy a number of octets that only the frame knows is a call.
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut octets = [0; MAX_TAGS * TAG];
        octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
        bytes.len().is_multiple_of(TAG).then_some(Self { octets, length: bytes.len() as u8 })
    }

    /// The tags as they stand on the wire.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// VLAN identifiers, outermost first.
    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.as_bytes().chunks_exact(TAG).map(|tag| u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff)
    }
}

impl Endpoint {
    /// A client with this outer address, an IPv4 one mapped, and this UDP port, to which frames go through the interface with
    /// this slot, as a frame of its own tells.
    #[inline]
    pub fn new(slot: u8, link: Link, tags: Tags, address: [u8; 16], port: u16) -> Self {
        let link = link.number();
        let rest = u64::from(port) | u64::from(slot) << 16 | u64::from(tags.length) << 24;
        let address = u128::from_le_bytes(address);
        Self([
            link as u64,
            (link >> 64) as u64 | rest << 32,
            u64::from_le_bytes(tags.octets),
            address as u64,
            (address >> 64) as u64,
        ])
    }

    /// The same, but told by something else.
    #[inline]
    pub fn told_by(mut self, evidence: Evidence) -> Self {
        self.0[1] = self.0[1] & !(0xf << 60) | (evidence as u64) << 60;
        self
    }

    /// What tells so.
    #[inline]
    pub fn evidence(&self) -> Evidence {
        match self.0[1] >> 60 {
            0 => Evidence::Frame,
            1 => Evidence::Datagram,
            _ => Evidence::Configuration,
        }
    }

    /// Slot of the interface.
    #[inline]
    pub fn slot(&self) -> u8 {
        (self.0[1] >> 48) as u8
    }

    /// The Ethernet addresses that a frame to the client starts with.
    #[inline]
    pub fn link(&self) -> Link {
        Link::from_number(u128::from(self.0[1]) << 64 | u128::from(self.0[0]))
    }

    /// VLAN tags of the client's packets.
    #[inline]
    pub fn tags(&self) -> Tags {
        let length = (self.0[1] >> 56) as u8 & 0x0f;
        Tags { octets: self.0[2].to_le_bytes(), length: length.min((MAX_TAGS * TAG) as u8) }
    }

    /// The client's outer address, an IPv4 one mapped.
    #[inline]
    pub fn address(&self) -> [u8; 16] {
        (u128::from(self.0[4]) << 64 | u128::from(self.0[3])).to_le_bytes()
    }

    /// The client's UDP port.
    #[inline]
    pub fn port(&self) -> u16 {
        (self.0[1] >> 32) as u16
    }

    /// Whether the client speaks IPv4 outside.
    #[inline]
    pub fn is_v4(&self) -> bool {
        unmapped(self.address()).is_some()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("slot", &self.slot())
            .field("link", &self.link())
            .field("tags", &self.tags())
            .field("address", &Ipv6Addr::from(self.address()))
            .field("port", &self.port())
            .field("evidence", &self.evidence())
            .finish()
    }
}

const WORDS: usize = 5;

/// An endpoint that several workers read and, now and then, one replaces.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EndpointCell {
    words: Latch<WORDS>,
    /// Held by the one worker that publishes. Others skip instead of waiting: the next packet brings the endpoint again.
    publishing: AtomicBool,
}

impl EndpointCell {
    /// The endpoint in force.
    #[inline]
    pub fn load(&self) -> Option<Endpoint> {
        self.words.load().map(Endpoint)
    }

    /// Whether packets of the client have told where it is.
    #[inline]
    pub fn is_learned(&self) -> bool {
        self.load().is_some_and(|endpoint| endpoint.evidence() != Evidence::Configuration)
    }

    /// Puts `endpoint` in force if it differs and `still_newest` says, once no other worker can publish, that its packet
    /// is still the highest of its sender. Returns whether it did.
    #[inline]
    pub fn learn(&self, endpoint: &Endpoint, still_newest: impl FnOnce() -> bool) -> bool {
        !self.is_at(endpoint) && self.publish(endpoint.0, still_newest)
    }

    /// Whether `endpoint` is in force.
    #[inline]
    pub fn is_at(&self, endpoint: &Endpoint) -> bool {
        // Compared in registers: a comparison of memory would wait for it to be written.
        let differs = |known: [u64; WORDS]| known.iter().zip(endpoint.0).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
        self.words.load().is_some_and(|known| !differs(known))
    }

    #[cold]
    fn publish(&self, words: [u64; WORDS], still_newest: impl FnOnce() -> bool) -> bool {
        if self.publishing.swap(true, Ordering::Acquire) {
            return false;
        }
        let newest = still_newest();
        if newest {
            self.words.store(words);
        }
        self.publishing.store(false, Ordering::Release);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: u8) -> Endpoint {
        let tags = Tags::new(&[0x81, 0, 0, n, 0x88, 0xa8, 0x0f, n][..usize::from(n % 3) * 4]).expect("whole tags");
        let evidence = [Evidence::Frame, Evidence::Datagram, Evidence::Configuration][usize::from(n / 3 % 3)];
        Endpoint::new(n % 16, Link::new([n ^ 0xff; 6], [n; 6]), tags, [n; 16], u16::from(n) * 257).told_by(evidence)
    }

    #[test]
    fn the_way_back_has_the_addresses_the_other_way_round() {
        let (there, here) = ([2, 3, 5, 7, 11, 13], [17, 19, 23, 29, 31, 37]);
        let back = Link::back(&[17, 19, 23, 29, 31, 37, 2, 3, 5, 7, 11, 13]);
        assert_eq!(back, Link::new(there, here));
        assert_eq!(back.as_bytes(), &[2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]);
    }

    #[test]
    fn its_parts_are_those_it_was_made_of() {
        let link = Link::new([2, 3, 5, 7, 11, 13], [17, 19, 23, 29, 31, 37]);
        let address: [u8; 16] = std::array::from_fn(|at| 0xf0 + at as u8);
        for octets in [&[][..], &[0x81, 0, 0xff, 0xfe], &[0x88, 0xa8, 0xe0, 0x64, 0x81, 0x00, 0x0f, 0xff]] {
            let tags = Tags::new(octets).expect("whole tags");
            let endpoint = Endpoint::new(0xff, link, tags, address, 0xfedc);
            assert_eq!(endpoint.evidence(), Evidence::Frame);
            let endpoint = endpoint.told_by(Evidence::Configuration).told_by(Evidence::Datagram);
            assert_eq!(endpoint.evidence(), Evidence::Datagram);
            assert_eq!((endpoint.slot(), endpoint.link(), endpoint.tags()), (0xff, link, tags));
            assert_eq!((endpoint.address(), endpoint.port()), (address, 0xfedc));
            assert_eq!(endpoint.tags().as_bytes(), octets);
        }
    }

    #[test]
    fn what_is_learned_is_what_is_read() {
        let cell = EndpointCell::default();
        assert_eq!(cell.load(), None);
        for n in 0..=255 {
            assert!(cell.learn(&endpoint(n), || true));
            assert_eq!(cell.load(), Some(endpoint(n)));
            assert!(!cell.learn(&endpoint(n), || true), "the same endpoint is not published again");
        }
    }

    #[test]
    fn a_packet_that_is_no_longer_the_newest_changes_nothing() {
        let cell = EndpointCell::default();
        assert!(cell.learn(&endpoint(1), || true));
        assert!(!cell.learn(&endpoint(2), || false));
        assert_eq!(cell.load(), Some(endpoint(1)));
        assert!(cell.learn(&endpoint(3), || true), "the cell is free again");
    }

    #[test]
    fn readers_never_see_a_mixture() {
        let cell = EndpointCell::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|half| {
                    let cell = &cell;
                    scope.spawn(move || {
                        for turn in 0..20_000u32 {
                            cell.learn(&endpoint((turn % 128) as u8 + half * 128), || true);
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut seen = 0u32;
                while !done.load(Ordering::Relaxed) || seen == 0 {
                    if let Some(found) = cell.load() {
                        assert_eq!(found, endpoint(found.address()[0]));
                        seen += 1;
                    }
                }
            });
            for writer in writers {
                writer.join().expect("writer");
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("reader");
        });
    }

    #[test]
    fn vlan_identifiers_leave_priority_out() {
        let tags = Tags::new(&[0x88, 0xa8, 0xe0, 0x64, 0x81, 0x00, 0x0f, 0xff]).expect("two tags");
        assert_eq!(tags.ids().collect::<Vec<_>>(), [100, 4095]);
        assert_eq!(Tags::new(&[0x81, 0, 0]), None);
        assert_eq!(Tags::new(&[0; 12]), None);
    }
}
