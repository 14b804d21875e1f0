//! Where a client is: learned from its packets by one worker, read by all.

use std::sync::atomic::{AtomicBool, Ordering};

use anytun_common::wire::ethernet::{MAX_TAGS, Mac, TAG};
use anytun_common::wire::unmapped;

use super::latch::Latch;

/// The way to a client: the interface, neighbour and tags its last authentic packet came from, and its outer address and
/// port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Slot of the interface.
    pub slot: u8,
    /// The node's MAC address on that interface: the destination of the client's packets.
    pub local: Mac,
    /// The neighbour's MAC address: the source of the client's packets.
    pub neighbour: Mac,
    /// VLAN tags of the client's packets.
    pub tags: Tags,
    /// The client's outer address, an IPv4 one mapped.
    pub address: [u8; 16],
    /// The client's UDP port.
    pub port: u16,
}

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
    /// Whether the client speaks IPv4 outside.
    #[inline]
    pub fn is_v4(&self) -> bool {
        unmapped(self.address).is_some()
    }

    fn pack(&self) -> [u64; WORDS] {
        let mac = |mac: Mac, high: u16| {
            u64::from(high) << 48 | u64::from_be_bytes([0, 0, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]])
        };
        let address = u128::from_be_bytes(self.address);
        [
            mac(self.local, u16::from(self.slot) << 8 | u16::from(self.tags.length)),
            mac(self.neighbour, self.port),
            u64::from_be_bytes(self.tags.octets),
            (address >> 64) as u64,
            address as u64,
        ]
    }

    fn unpack(words: [u64; WORDS]) -> Self {
        let mac = |word: u64| {
            let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
            [a, b, c, d, e, f]
        };
        Self {
            slot: (words[0] >> 56) as u8,
            local: mac(words[0]),
            neighbour: mac(words[1]),
            tags: Tags { octets: words[2].to_be_bytes(), length: ((words[0] >> 48) as u8).min((MAX_TAGS * TAG) as u8) },
            address: (u128::from(words[3]) << 64 | u128::from(words[4])).to_be_bytes(),
            port: (words[1] >> 48) as u16,
        }
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
        self.words.load().map(Endpoint::unpack)
    }

    /// Puts `endpoint` in force if it differs and `still_newest` says, once no other worker can publish, that its packet
    /// is still the highest of its sender. Returns whether it did.
    #[inline]
    pub fn learn(&self, endpoint: &Endpoint, still_newest: impl FnOnce() -> bool) -> bool {
        let words = endpoint.pack();
        if self.words.load() == Some(words) {
            return false;
        }
        self.publish(words, still_newest)
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
        Endpoint {
            slot: n % 16,
            local: [n; 6],
            neighbour: [n ^ 0xff; 6],
            tags: Tags::new(&[0x81, 0, 0, n, 0x88, 0xa8, 0x0f, n][..usize::from(n % 3) * 4]).expect("whole tags"),
            address: [n; 16],
            port: u16::from(n) * 257,
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
                        assert_eq!(found, endpoint(found.address[0]));
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
