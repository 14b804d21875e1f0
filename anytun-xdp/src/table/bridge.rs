//! Which port of an Ethernet network, a client or the node's kernel, has which MAC address (IEEE 802.1D §7.8, §7.9).

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet::Mac;
use hashbrown::{HashMap, HashSet};

use super::{Allowance, KERNEL, Rate};
use crate::config::Bridging;

/// Entries of one bucket: two cache lines.
const SLOTS: usize = 8;
/// Buckets of the largest table, which has room for so many times eight MAC addresses; fewer when chance puts more than its
/// share into one bucket.
const MOST_BUCKETS: usize = 2048;
/// Buckets of the smallest one.
const LEAST_BUCKETS: usize = 64;
/// MAC addresses that the limits allow, for each bucket of a table that is not the largest: then hardly one bucket in four
/// thousand has more than its share.
const SHARE: usize = 2;
/// MAC addresses that may be behind the node's kernel, if no more may be behind a client: there may be a whole LAN.
const LAN: u32 = 1024;

/// Set in a key while its slot is changed.
const BUSY: u64 = 1 << 63;
/// The owner of a station that is being forgotten.
const GONE: u64 = u64::MAX;

/// What one Ethernet network has learned, and what holds for it. All workers learn, and none ever waits.
pub struct Bridge {
    bridging: Bridging,
    /// The frames to everybody that a client may send, and the kernel.
    floods: Rate,
    /// Those that the kernel still may.
    kernel_floods: Allowance,
    /// A power of two.
    buckets: Box<[Bucket]>,
    seeds: [u64; 2],
    /// In order of their numbers.
    ports: Box<[Port]>,
    /// MAC addresses that are known beforehand, and whose they are.
    given: HashMap<Mac, u32>,
    /// Whether any of them is a client's.
    has_given_clients: bool,
}

/// A client, or the node's kernel.
struct Port {
    number: u32,
    /// MAC addresses that were learned.
    learned: AtomicU32,
    /// Whether it is a client with addresses of the configuration, and may send from no other.
    is_given: bool,
}

#[derive(Default)]
#[repr(align(128))]
struct Bucket([Slot; SLOTS]);

/// A station. The slot is free while the key is 0.
#[derive(Default)]
struct Slot {
    /// VLAN and MAC address.
    key: AtomicU64,
    /// Number of the port, and the second in which the station was last heard.
    owner: AtomicU64,
}

/// A station: its VLAN, 0 without one, and its MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    /// VLAN ID.
    pub vlan: u16,
    /// MAC address, never that of a group.
    pub mac: Mac,
}

impl Station {
    /// Never 0, as no station has the MAC address 0.
    fn key(self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        u64::from(self.vlan) << 48 | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

const fn owner(client: u32, second: u32) -> u64 {
    (client as u64) << 32 | second as u64
}

const fn client_of(owner: u64) -> u32 {
    (owner >> 32) as u32
}

impl Bridge {
    /// One that has learned nothing. `ports` are the numbers of its clients in a snapshot, in order, and [`KERNEL`] behind
    /// them if the node's kernel is a port. `given` are MAC addresses that are known beforehand, and the number of their port.
    pub fn new(bridging: Bridging, ports: impl IntoIterator<Item = u32>, given: HashMap<Mac, u32>) -> Self {
        let random = RandomState::new();
        let owners: HashSet<u32> = given.values().copied().filter(|owner| *owner != KERNEL).collect();
        let port = |number| Port { number, learned: AtomicU32::new(0), is_given: owners.contains(&number) };
        let ports: Box<[Port]> = ports.into_iter().map(port).collect();
        let most = ports.iter().map(|port| limit(&bridging, port.number) as usize).fold(0, usize::saturating_add);
        let buckets = (most / SHARE).clamp(LEAST_BUCKETS, MOST_BUCKETS).next_power_of_two();
        Self {
            bridging,
            floods: Rate::new(bridging.flood_rate),
            kernel_floods: Allowance::default(),
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            seeds: [random.hash_one(0u8), random.hash_one(1u8) | 1],
            ports,
            given,
            has_given_clients: !owners.is_empty(),
        }
    }

    /// What it was told.
    pub fn bridging(&self) -> &Bridging {
        &self.bridging
    }

    /// MAC addresses that are known beforehand, and whose they are.
    pub fn given(&self) -> &HashMap<Mac, u32> {
        &self.given
    }

    /// The frames to everybody that a client may send, and the kernel.
    #[inline]
    pub fn floods(&self) -> Rate {
        self.floods
    }

    /// The frames to everybody that the kernel still may send.
    #[inline]
    pub fn kernel_floods(&self) -> &Allowance {
        &self.kernel_floods
    }

    #[inline]
    fn bucket(&self, key: u64) -> &[Slot] {
        let product = u128::from(key ^ self.seeds[0]) * u128::from(self.seeds[1]);
        let hash = (product as u64 ^ (product >> 64) as u64) as usize;
        self.buckets.get(hash & (self.buckets.len() - 1)).map_or(&[], |bucket| &bucket.0)
    }

    /// The port that has a number. To be asked when something is new, as it has to be looked for.
    fn port(&self, number: u32) -> Option<&Port> {
        let place = self.ports.binary_search_by_key(&number, |port| port.number);
        place.ok().and_then(|place| self.ports.get(place))
    }

    /// The port behind which a station is.
    #[inline]
    pub fn find(&self, station: Station) -> Option<u32> {
        if !self.given.is_empty()
            && let Some(client) = self.given.get(&station.mac)
        {
            return Some(*client);
        }
        let key = station.key();
        self.bucket(key).iter().find_map(|slot| {
            let owner = (slot.key.load(Ordering::Acquire) == key).then(|| slot.owner.load(Ordering::Acquire))?;
            // Still the same station, so the owner was its own.
            (owner != GONE && slot.key.load(Ordering::Relaxed) == key).then(|| client_of(owner))
        })
    }

    /// Notes that a station is behind `client`, or the kernel, which it sent a frame through in this `second` after the node
    /// started. One that was behind another has moved.
    ///
    /// # Errors
    /// [`ForeignSource`](Verdict::ForeignSource) when it is known beforehand that it is not, [`MacLimit`](Verdict::MacLimit)
    /// when too many are behind the client, [`MacTableFull`](Verdict::MacTableFull) when there are too many in all.
    #[inline]
    pub fn learn(&self, station: Station, client: u32, second: u32) -> Result<(), Verdict> {
        if !self.given.is_empty() {
            let owner = self.given.get(&station.mac);
            if owner == Some(&client) {
                return Ok(());
            }
            let is_given = || self.has_given_clients && self.port(client).is_some_and(|port| port.is_given);
            if owner.is_some() || is_given() {
                return Err(Verdict::ForeignSource);
            }
        }
        let key = station.key();
        let slots = self.bucket(key);
        let Some(slot) = slots.iter().find(|slot| slot.key.load(Ordering::Acquire) == key) else {
            let added = self.add(slots, key, client, second);
            // Another worker may have added the same station, and counted it.
            let is_known = || slots.iter().any(|slot| slot.key.load(Ordering::Acquire) == key);
            return if added == Err(Verdict::MacLimit) && is_known() { Ok(()) } else { added };
        };
        let (before, after) = (slot.owner.load(Ordering::Acquire), owner(client, second));
        // The slot is another's by now, or about to be: the next frame finds a new one.
        let is_stale = before == GONE || slot.key.load(Ordering::Relaxed) != key;
        if before == after || is_stale {
            return Ok(());
        }
        if client_of(before) == client {
            // Who loses against another worker has been heard all the same.
            let _ = slot.owner.compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed);
            return Ok(());
        }
        self.reserve(client)?;
        match slot.owner.compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => self.release(client_of(before)),
            Err(_) => self.release(client),
        }
        Ok(())
    }

    #[cold]
    fn add(&self, slots: &[Slot], key: u64, client: u32, second: u32) -> Result<(), Verdict> {
        self.reserve(client)?;
        // Two workers may add the same station: then the first slot counts, and the other one ages.
        for slot in slots {
            if slot.key.compare_exchange(0, BUSY | key, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                slot.owner.store(owner(client, second), Ordering::Release);
                slot.key.store(key, Ordering::Release);
                return Ok(());
            }
        }
        self.release(client);
        Err(Verdict::MacTableFull)
    }

    fn reserve(&self, client: u32) -> Result<(), Verdict> {
        let port = self.port(client).ok_or(Verdict::MacLimit)?;
        let most = limit(&self.bridging, client);
        let more = |count: u32| (count < most).then_some(count + 1);
        let reserved = port.learned.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        reserved.map(drop).map_err(|_| Verdict::MacLimit)
    }

    fn release(&self, client: u32) {
        if let Some(port) = self.port(client) {
            port.learned.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Forgets stations that were not heard for long. To be called about once a second by one thread.
    pub fn age(&self, second: u32) {
        for slot in self.buckets.iter().flat_map(|bucket| &bucket.0) {
            let (key, owner) = (slot.key.load(Ordering::Acquire), slot.owner.load(Ordering::Acquire));
            let is_old = second.saturating_sub(owner as u32) > self.bridging.mac_age;
            // One that was heard in this moment stays.
            let ends = key != 0
                && key & BUSY == 0
                && is_old
                && slot.owner.compare_exchange(owner, GONE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if ends {
                self.release(client_of(owner));
                slot.key.store(0, Ordering::Release);
            }
        }
    }

    /// How many stations are behind a client or the kernel: those of the configuration, or those learned.
    pub fn behind(&self, client: u32) -> usize {
        match self.port(client) {
            Some(port) if port.is_given => self.given.values().filter(|owner| **owner == client).count(),
            port => port.map_or(0, |port| port.learned.load(Ordering::Relaxed) as usize),
        }
    }

    /// How many stations are known.
    pub fn stations(&self) -> usize {
        let is_taken = |slot: &&Slot| slot.key.load(Ordering::Relaxed) != 0;
        self.given.len() + self.buckets.iter().flat_map(|bucket| &bucket.0).filter(is_taken).count()
    }
}

/// MAC addresses that may be behind a port.
fn limit(bridging: &Bridging, port: u32) -> u32 {
    if port == KERNEL { bridging.mac_limit.max(LAN) } else { bridging.mac_limit }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const BRIDGING: Bridging = Bridging { mac_age: 300, mac_limit: 4, flood_rate: 100 };

    fn station(number: u32, vlan: u16) -> Station {
        let [a, b, c, d] = number.to_be_bytes();
        Station { vlan, mac: [2, 0, a, b, c, d] }
    }

    fn bridge() -> Bridge {
        Bridge::new(BRIDGING, 0..3, HashMap::new())
    }

    #[test]
    fn a_station_is_found_where_it_was_heard_last_and_in_its_vlan_only() {
        let bridge = bridge();
        assert_eq!(bridge.find(station(1, 0)), None);
        assert_eq!(bridge.learn(station(1, 0), 0, 5), Ok(()));
        assert_eq!((bridge.find(station(1, 0)), bridge.find(station(1, 7))), (Some(0), None));
        assert_eq!(bridge.learn(station(1, 0), 2, 6), Ok(()), "it moves");
        assert_eq!((bridge.find(station(1, 0)), bridge.behind(0), bridge.behind(2)), (Some(2), 0, 1));
        assert_eq!(bridge.stations(), 1);
    }

    #[test]
    fn no_client_has_more_than_the_limit_and_old_ones_make_room() {
        let bridge = bridge();
        for number in 0..4 {
            assert_eq!(bridge.learn(station(number, 0), 0, number), Ok(()));
        }
        assert_eq!(bridge.learn(station(4, 0), 0, 9), Err(Verdict::MacLimit));
        assert_eq!(bridge.learn(station(4, 0), 1, 9), Ok(()), "another client has its own");
        assert_eq!(bridge.learn(station(4, 0), 0, 9), Err(Verdict::MacLimit), "nor by moving");
        assert_eq!(bridge.find(station(4, 0)), Some(1));
        bridge.age(301);
        assert_eq!((bridge.behind(0), bridge.find(station(0, 0))), (3, None), "only the first is older than 300 s");
        assert_eq!(bridge.learn(station(5, 0), 0, 301), Ok(()));
        assert_eq!(bridge.learn(station(1, 0), 0, 302), Ok(()), "heard again");
        bridge.age(303);
        assert_eq!((bridge.find(station(1, 0)), bridge.find(station(2, 0))), (Some(0), None));
        bridge.age(2000);
        assert_eq!((bridge.stations(), bridge.behind(0), bridge.behind(1)), (0, 0, 0));
    }

    #[test]
    fn addresses_of_the_configuration_are_nobody_else_s() {
        let own = [station(1, 0).mac, station(2, 0).mac];
        let bridge = Bridge::new(BRIDGING, 0..3, own.into_iter().map(|mac| (mac, 1)).collect());
        assert_eq!(bridge.learn(station(1, 0), 0, 5), Err(Verdict::ForeignSource));
        assert_eq!(bridge.learn(station(1, 9), 1, 5), Ok(()));
        assert_eq!(bridge.learn(station(3, 0), 1, 5), Err(Verdict::ForeignSource), "it may use no other");
        assert_eq!(bridge.learn(station(3, 0), 0, 5), Ok(()));
        assert_eq!((bridge.find(station(2, 5)), bridge.behind(1), bridge.behind(0)), (Some(1), 2, 1));
        bridge.age(5000);
        assert_eq!(bridge.stations(), 2, "they do not age");
    }

    #[test]
    fn a_full_table_refuses_and_goes_on() {
        let bridge = Bridge::new(Bridging { mac_limit: u32::MAX, ..BRIDGING }, 0..1, HashMap::new());
        let learned =
            (0..16 * MOST_BUCKETS as u32).filter(|number| bridge.learn(station(*number, 0), 0, 0).is_ok()).count();
        assert!((4 * MOST_BUCKETS..=8 * MOST_BUCKETS).contains(&learned), "{learned}");
        assert_eq!((bridge.stations(), bridge.behind(0)), (learned, learned));
    }

    #[test]
    fn the_kernel_s_own_address_is_nobody_else_s_and_it_may_have_a_lan_behind_it() {
        let own = station(1000, 0);
        let bridge = Bridge::new(BRIDGING, [7, 9, KERNEL], [(own.mac, KERNEL)].into());
        assert_eq!(bridge.find(own), Some(KERNEL), "before it was heard");
        for client in [7, 9] {
            assert_eq!(bridge.learn(own, client, 5), Err(Verdict::ForeignSource));
            assert_eq!(bridge.learn(Station { vlan: 9, ..own }, client, 5), Err(Verdict::ForeignSource), "in any VLAN");
        }
        assert_eq!(bridge.learn(own, KERNEL, 5), Ok(()));
        let learned = (0..2 * LAN).filter(|number| bridge.learn(station(2000 + number, 0), KERNEL, 5).is_ok()).count();
        assert_eq!((learned, bridge.behind(KERNEL)), (LAN as usize, LAN as usize));
        assert_eq!(bridge.find(station(2000, 0)), Some(KERNEL));
        assert_eq!(bridge.learn(station(2000, 0), 9, 6), Ok(()), "what is behind it may move");
        assert_eq!((bridge.behind(KERNEL), bridge.behind(9)), (LAN as usize - 1, 1));
        assert_eq!(bridge.learn(station(1, 0), 8, 6), Err(Verdict::MacLimit), "no client of the network");
        bridge.age(5000);
        assert_eq!((bridge.stations(), bridge.find(own)), (1, Some(KERNEL)));
    }

    #[test]
    fn a_table_is_as_large_as_its_limits() {
        let buckets = |clients: u32, mac_limit| {
            Bridge::new(Bridging { mac_limit, ..BRIDGING }, 0..clients, HashMap::new()).buckets.len()
        };
        assert_eq!((buckets(3, 1), buckets(3, 64), buckets(16, 64)), (64, 128, 512));
        assert_eq!((buckets(1000, 64), buckets(1, 4096)), (MOST_BUCKETS, MOST_BUCKETS));
    }

    #[test]
    fn workers_that_learn_at_once_lose_count_of_nothing() {
        let bridge = Bridge::new(Bridging { mac_limit: 1000, ..BRIDGING }, 0..4, HashMap::new());
        thread::scope(|scope| {
            for client in 0..4u32 {
                let bridge = &bridge;
                scope.spawn(move || {
                    for round in 0..200 {
                        for number in 0..100 {
                            let _ = bridge.learn(station(number, 0), (client + round) % 4, round);
                            assert!(bridge.find(station(number, 0)).is_none_or(|client| client < 4));
                        }
                    }
                });
            }
            for second in 0..50 {
                bridge.age(second);
            }
        });
        let behind: usize = (0..4).map(|client| bridge.behind(client)).sum();
        assert_eq!(behind, bridge.stations());
        bridge.age(u32::MAX);
        assert_eq!((0..4).map(|client| bridge.behind(client)).sum::<usize>(), 0);
    }
}
