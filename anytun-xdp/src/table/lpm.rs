//! Longest-prefix match. One hash table per prefix length that occurs, the longest first: a network whose clients all have
//! host routes, which is the usual one, costs a single look-up however many there are.

use std::hash::Hash;
use std::net::IpAddr;
use std::ops::BitAnd;

use hashbrown::HashMap;

use crate::config::Prefix;

/// Prefixes of both families and the client number each leads to.
#[derive(Clone, Debug, Default)]
pub struct Lpm {
    v4: Vec<Level<u32>>,
    v6: Vec<Level<u128>>,
}

/// The prefixes of one length.
#[derive(Clone, Debug)]
struct Level<A> {
    mask: A,
    prefixes: HashMap<A, u32>,
}

impl Lpm {
    /// Adds a prefix; returns what it led to before.
    pub fn insert(&mut self, prefix: Prefix, client: u32) -> Option<u32> {
        let host_bits = |width: u32| width.saturating_sub(u32::from(prefix.length));
        match prefix.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
                insert(&mut self.v4, mask, address.to_bits(), client)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
                insert(&mut self.v6, mask, address.to_bits(), client)
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
}

fn insert<A: Copy + Ord + Hash + BitAnd<Output = A>>(
    levels: &mut Vec<Level<A>>,
    mask: A,
    address: A,
    client: u32,
) -> Option<u32> {
    // A longer prefix has the greater mask, so descending masks put it first.
    let at = match levels.binary_search_by(|level| mask.cmp(&level.mask)) {
        Ok(at) => at,
        Err(at) => {
            levels.insert(at, Level { mask, prefixes: HashMap::new() });
            at
        }
    };
    levels[at].prefixes.insert(address & mask, client)
}

#[inline]
fn find<A: Copy + Eq + Hash + BitAnd<Output = A>>(levels: &[Level<A>], address: A) -> Option<u32> {
    levels.iter().find_map(|level| level.prefixes.get(&(address & level.mask)).copied())
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
    fn an_empty_table_finds_nothing() {
        assert_eq!(Lpm::default().find_v4([10, 0, 0, 1]), None);
    }
}
