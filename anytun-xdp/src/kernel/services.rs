//! The services, where the XDP program looks them up: a map of all, and the first few to be compared one by one.

use std::collections::HashSet;

use anytun_common::map::{FEW, FewServices, ServiceKey, ServiceWords};
use aya::maps::{Array, HashMap, Map, MapData, MapError};

/// Octets of a [`ServiceKey`], in the order of its fields.
type Key = [u8; size_of::<ServiceKey>()];

/// [`FewServices`] as the value of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Few(FewServices);

// SAFETY: the kernel may read and write each of its octets: none is padding, and each may have any value.
unsafe impl aya::Pod for Few {}

/// The places when nobody has one.
const FREE: [ServiceWords; FEW] = [FewServices::NO_SERVICE; FEW];

/// Both maps, and what is in them.
pub(super) struct Services {
    all: HashMap<MapData, Key, u8>,
    few: Array<MapData, Few>,
    current: HashSet<ServiceKey>,
    places: [ServiceWords; FEW],
}

impl Services {
    /// No services.
    pub(super) fn new(all: Map, few: Map) -> Result<Self, MapError> {
        let (all, few) = (all.try_into()?, few.try_into()?);
        let mut services = Self { all, few, current: HashSet::new(), places: FREE };
        services.show(FREE, false)?;
        Ok(services)
    }

    /// Makes these all services there are. Those that stay miss no packet meanwhile.
    pub(super) fn set(&mut self, wanted: &HashSet<ServiceKey>) -> Result<(), MapError> {
        for key in wanted.difference(&self.current.clone()) {
            self.all.insert(octets(key), 1, 0)?;
            self.current.insert(*key);
        }
        let (kept, places) = places(self.places, wanted);
        // In steps, so that nobody reads half of one key and half of another, or of a service that it is neither here nor
        // elsewhere.
        self.show(kept, true)?;
        let has_passed = wait_for_readers();
        self.show(places, true)?;
        if has_passed && wanted.len() <= FEW && wait_for_readers() {
            self.show(places, false)?;
        }
        for key in self.current.clone().difference(wanted) {
            self.all.remove(&octets(key))?;
            self.current.remove(key);
        }
        Ok(())
    }

    /// Writes the places, and whether there are others.
    fn show(&mut self, places: [ServiceWords; FEW], more: bool) -> Result<(), MapError> {
        self.few.set(0, Few(FewServices { keys: places, more: more.into() }), 0)?;
        self.places = places;
        Ok(())
    }
}

/// The places of those of `wanted` that have one, and with them the first few others. Who has a place keeps it, so that it can
/// be found while others change.
fn places(before: [ServiceWords; FEW], wanted: &HashSet<ServiceKey>) -> ([ServiceWords; FEW], [ServiceWords; FEW]) {
    let wanted: HashSet<_> = wanted.iter().map(ServiceKey::words).collect();
    let kept = before.map(|key| if wanted.contains(&key) { key } else { FewServices::NO_SERVICE });
    let mut others = wanted.iter().copied().filter(|key| !before.contains(key));
    let filled = kept.map(|key| match key {
        FewServices::NO_SERVICE => others.next().unwrap_or(key),
        key => key,
    });
    (kept, filled)
}

/// Waits until every program that ran has ended (RCU grace period; membarrier(2)). Returns whether the kernel could: then those
/// that run now read what was written before.
fn wait_for_readers() -> bool {
    // SAFETY: the call takes numbers only and changes nothing.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
}

fn octets(key: &ServiceKey) -> Key {
    let mut octets = [0; size_of::<ServiceKey>()];
    octets[..16].copy_from_slice(&key.address);
    octets[16..18].copy_from_slice(&key.port);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_place_keeps_it() {
        let key = |port| ServiceKey::new([7; 16], port);
        let (kept, two) = places(FREE, &HashSet::from([key(1), key(2)]));
        assert_eq!(kept, FREE);
        assert_eq!(two.iter().filter(|key| **key == FewServices::NO_SERVICE).count(), FEW - 2);
        let (kept, many) = places(two, &(1..100).map(key).collect());
        assert_eq!((kept, &many[..2]), (two, &two[..2]));
        assert!(!many.contains(&FewServices::NO_SERVICE));
        let last = (1..100).map(key).find(|key| key.words() == many[3]).expect("one of them");
        let (kept, left) = places(many, &HashSet::from([last, key(200)]));
        let free = FewServices::NO_SERVICE;
        assert_eq!((kept, left), ([free, free, free, last.words()], [key(200).words(), free, free, last.words()]));
        assert_eq!(places(left, &HashSet::new()), (FREE, FREE));
    }
}
