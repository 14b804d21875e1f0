//! Longest-prefix match. One hash table per prefix length that occurs, the longest first: a network whose clients all have
//! host routes, which is the usual one, costs a single look-up however many there are.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::ops::BitAnd;

use hashbrown::DefaultHashBuilder;

use super::NOBODY;
use crate::config::Prefix;
use crate::satp::{Pages, prefetch};

/// Prefixes of both families and the client number each leads to.
#[derive(Clone, Debug, Default)]
pub struct Lpm {
    v4: Vec<Level<u32>>,
    v6: Vec<Level<u128>>,
}

/// The prefixes of one length, in a table with open addressing: key and value lie in one cache line, whose address follows
/// from the key alone, so it can be fetched ahead.
#[derive(Clone, Debug)]
struct Level<A> {
    mask: A,
    /// A power of two, and at least twice as many as there are prefixes.
    slots: Pages<Slot<A>>,
    count: usize,
    hash: DefaultHashBuilder,
}

/// A prefix and the client it leads to, or [`NOBODY`].
#[derive(Clone, Copy, Debug)]
struct Slot<A> {
    prefix: A,
    client: u32,
}

/// Slots of a level with its first prefix.
const FEWEST: usize = 4;

impl Lpm {
    /// Adds a prefix; returns what it led to before.
    pub fn insert(&mut self, prefix: Prefix, client: u32) -> Option<u32> {
        let host_bits = |width: u32| width.saturating_sub(u32::from(prefix.length));
        match prefix.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
                level(&mut self.v4, mask).insert(address.to_bits() & mask, client)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
                level(&mut self.v6, mask).insert(address.to_bits() & mask, client)
            }
        }
    }

    /// The client whose prefix covers an IPv4 address most closely.
    #[inline]
    pub fn find_v4(&self, address: [u8; 4]) -> Option<u32> {
        find(&self.v4, u32::from_be_bytes(address))
    }

    /// The client whose prefix covers an IPv6 address most closely.
    #[inline]
    pub fn find_v6(&self, address: [u8; 16]) -> Option<u32> {
        find(&self.v6, u128::from_be_bytes(address))
    }

    /// Brings near what is looked at first to find an IPv4 address.
    #[inline]
    pub fn prefetch_v4(&self, address: [u8; 4]) {
        if let Some(level) = self.v4.first() {
            level.prefetch(u32::from_be_bytes(address));
        }
    }

    /// Brings near what is looked at first to find an IPv6 address.
    #[inline]
    pub fn prefetch_v6(&self, address: [u8; 16]) {
        if let Some(level) = self.v6.first() {
            level.prefetch(u128::from_be_bytes(address));
        }
    }
}

/// The level of a mask. A longer prefix has the greater mask, so descending masks put it first.
fn level<A: Address>(levels: &mut Vec<Level<A>>, mask: A) -> &mut Level<A> {
    let at = levels.binary_search_by(|level| mask.cmp(&level.mask)).unwrap_or_else(|at| {
        levels.insert(at, Level::new(mask));
        at
    });
    &mut levels[at]
}

#[inline]
fn find<A: Address>(levels: &[Level<A>], address: A) -> Option<u32> {
    levels.iter().find_map(|level| level.find(address))
}

/// An address of either family as a number.
trait Address: Copy + Default + Ord + Hash + BitAnd<Output = Self> {}
impl Address for u32 {}
impl Address for u128 {}

impl<A: Address> Level<A> {
    fn new(mask: A) -> Self {
        Self { mask, slots: Self::empty(FEWEST), count: 0, hash: DefaultHashBuilder::default() }
    }

    fn empty(slots: usize) -> Pages<Slot<A>> {
        vec![Slot { prefix: A::default(), client: NOBODY }; slots].into()
    }

    /// The slot where the search for a prefix starts.
    #[inline]
    fn home(&self, prefix: A) -> usize {
        self.hash.hash_one(prefix) as usize & (self.slots.len() - 1)
    }

    /// The slot that has the prefix, or the empty one where it would be. There is one, as half of all are empty.
    #[inline]
    fn place(&self, prefix: A) -> usize {
        let mut at = self.home(prefix);
        while self.slots[at].client != NOBODY && self.slots[at].prefix != prefix {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    #[inline]
    fn find(&self, address: A) -> Option<u32> {
        let client = self.slots[self.place(address & self.mask)].client;
        (client != NOBODY).then_some(client)
    }

    #[inline]
    fn prefetch(&self, address: A) {
        prefetch::value(&self.slots[self.home(address & self.mask)]);
    }

    fn insert(&mut self, prefix: A, client: u32) -> Option<u32> {
        let at = self.place(prefix);
        let old = std::mem::replace(&mut self.slots[at], Slot { prefix, client }).client;
        if old != NOBODY {
            return Some(old);
        }
        self.count += 1;
        if self.count * 2 > self.slots.len() {
            self.grow();
        }
        None
    }

    fn grow(&mut self) {
        let twice = Self::empty(self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, twice);
        for slot in old.iter().filter(|slot| slot.client != NOBODY) {
            let at = self.place(slot.prefix);
            self.slots[at] = *slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix { address: address.parse().expect("address"), length }
    }

    #[test]
    fn the_longest_prefix_wins_in_any_order_of_insertion() {
        let rows = [("0.0.0.0", 0), ("10.0.0.0", 8), ("10.9.0.0", 16), ("10.9.0.11", 32)];
        for rotation in 0..rows.len() {
            let mut lpm = Lpm::default();
            for turn in 0..rows.len() {
                let index = (turn + rotation) % rows.len();
                assert_eq!(lpm.insert(prefix(rows[index].0, rows[index].1), index as u32), None);
            }
            assert_eq!(lpm.find_v4([192, 0, 2, 1]), Some(0));
            assert_eq!(lpm.find_v4([10, 1, 2, 3]), Some(1));
            assert_eq!(lpm.find_v4([10, 9, 0, 12]), Some(2));
            assert_eq!(lpm.find_v4([10, 9, 0, 11]), Some(3));
            assert_eq!(lpm.find_v6([0; 16]), None, "an IPv4 default route says nothing about IPv6");
        }
    }

    #[test]
    fn ipv6_prefixes_of_every_length_match_their_own_address() {
        let address: std::net::Ipv6Addr = "fd00:9::11".parse().expect("address");
        let mut lpm = Lpm::default();
        for length in 0..=128u8 {
            lpm.insert(Prefix { address: address.into(), length }, u32::from(length));
        }
        for length in 0..128u32 {
            // The first bit behind the prefix differs, so this one and no longer one covers it.
            let other = address.to_bits() ^ 1 << (127 - length);
            assert_eq!(lpm.find_v6(other.to_be_bytes()), Some(length));
        }
        assert_eq!(lpm.find_v6(address.octets()), Some(128));
    }

    #[test]
    fn many_prefixes_are_all_found_and_those_inserted_twice_replaced() {
        let mut lpm = Lpm::default();
        let address = |n: u32| (n.wrapping_mul(2_654_435_769)).to_be_bytes();
        for turn in 0..2 {
            for n in 0..10_000 {
                let prefix = Prefix { address: address(n).into(), length: 32 };
                assert_eq!(lpm.insert(prefix, n + turn), (turn == 1).then_some(n));
            }
        }
        for n in 0..20_000 {
            assert_eq!(lpm.find_v4(address(n)), (n < 10_000).then_some(n + 1));
        }
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(Lpm::default().find_v4([10, 0, 0, 1]), None);
    }
}
