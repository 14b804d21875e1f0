//! The path MTU to a client, as routers on the way told of it (RFC 1191, RFC 8201).

use std::sync::atomic::{AtomicU64, Ordering};

/// How long a path MTU is believed: then larger packets may try again (RFC 1191 §6.3, RFC 8201 §4).
const LIFETIME: u64 = 10 * 60;

const MILLISECONDS: u64 = 1000;

/// The path MTU to where a client is; none at first.
///
/// In one word, so that all workers read it whole: when it ends, in seconds after the node started, in the upper half; a
/// digest of the address it holds for; the MTU. Zero when there is none.
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// Notes that packets to `address`, an IPv4 one mapped, may have `mtu` octets, `now` milliseconds after the node
    /// started. A larger MTU than what is noted changes nothing: only time makes it grow. Returns whether it is the MTU now.
    pub fn learn(&self, address: [u8; 16], mtu: u16, now: u64) -> bool {
        let word = (now / MILLISECONDS + LIFETIME) << 32 | u64::from(digest(address)) << 16 | u64::from(mtu);
        let smaller = |old| (Self::of(old, address, now).is_none_or(|old| mtu <= old)).then_some(word);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smaller).is_ok()
    }

    /// Octets of the largest IP packet to `address`, as far as anything is known, `now` milliseconds after the node started.
    #[inline]
    pub fn get(&self, address: [u8; 16], now: u64) -> Option<u16> {
        Self::of(self.0.load(Ordering::Relaxed), address, now)
    }

    #[inline]
    fn of(word: u64, address: [u8; 16], now: u64) -> Option<u16> {
        if word == 0 || word >> 32 <= now / MILLISECONDS || (word >> 16) as u16 != digest(address) {
            return None;
        }
        Some(word as u16)
    }
}

/// Tells the addresses that one client has had from each other.
#[inline]
fn digest(address: [u8; 16]) -> u16 {
    let address = u128::from_be_bytes(address);
    // Multiplying by the golden ratio mixes upwards.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let upper = ((address >> 64) as u64).wrapping_mul(MIX);
    ((upper ^ address as u64).wrapping_mul(MIX) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [u8; 16] = [7; 16];
    const THERE: [u8; 16] = [9; 16];

    #[test]
    fn it_shrinks_at_once_and_grows_after_ten_minutes() {
        let path = PathMtu::default();
        assert_eq!(path.get(HERE, 0), None);
        assert!(path.learn(HERE, 1400, 500));
        assert!(path.learn(HERE, 1300, 60_000));
        assert!(!path.learn(HERE, 1350, 61_000));
        assert_eq!(path.get(HERE, 61_000), Some(1300));
        assert_eq!(path.get(HERE, 659_999), Some(1300));
        assert_eq!(path.get(HERE, 660_000), None);
        assert!(path.learn(HERE, 1350, 660_000));
        assert_eq!(path.get(HERE, 660_000), Some(1350));
        assert!(path.learn(HERE, 1350, 700_000), "to be told again makes it last");
        assert_eq!(path.get(HERE, 1_299_999), Some(1350));
    }

    #[test]
    fn it_holds_for_the_address_it_was_told_of() {
        let path = PathMtu::default();
        path.learn(HERE, 1300, 0);
        assert_eq!(path.get(THERE, 0), None);
        assert!(path.learn(THERE, 1400, 0));
        assert_eq!((path.get(THERE, 0), path.get(HERE, 0)), (Some(1400), None));
    }
}
