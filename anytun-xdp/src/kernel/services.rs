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
        services.show(0)?;
        Ok(services)
    }

    /// Makes these all services there are. Those that stay miss no packet meanwhile.
    pub(super) fn set(&mut self, wanted: &HashSet<ServiceKey>) -> Result<(), MapError> {
        for key in wanted.difference(&self.current.clone()) {
            self.all.insert(octets(key), 1, 0)?;
            self.current.insert(*key);
        }
        self.places = places(self.places, wanted);
        // Who gets a place is found in the map of all until it shows.
        self.show(1)?;
        if wanted.len() <= FEW {
            self.show(0)?;
        }
        for key in self.current.clone().difference(wanted) {
            self.all.remove(&octets(key))?;
            self.current.remove(key);
        }
        Ok(())
    }

    fn show(&mut self, more: u64) -> Result<(), MapError> {
        self.few.set(0, Few(FewServices { keys: self.places, more }), 0)
    }
}

/// The places of the first few of `wanted`. Who has one keeps it, so that it can be found while others change.
fn places(before: [ServiceWords; FEW], wanted: &HashSet<ServiceKey>) -> [ServiceWords; FEW] {
    let wanted: HashSet<_> = wanted.iter().map(ServiceKey::words).collect();
    let mut others = wanted.iter().copied().filter(|key| !before.contains(key));
    before.map(|key| if wanted.contains(&key) { key } else { others.next().unwrap_or(FewServices::NO_SERVICE) })
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
        let two = places(FREE, &HashSet::from([key(1), key(2)]));
        assert_eq!(two.iter().filter(|key| **key == FewServices::NO_SERVICE).count(), FEW - 2);
        let many = places(two, &(1..100).map(key).collect());
        assert_eq!(many[..2], two[..2]);
        assert!(!many.contains(&FewServices::NO_SERVICE));
        let last = (1..100).map(key).find(|key| key.words() == many[3]).expect("one of them");
        let left = places(many, &HashSet::from([last, key(200)]));
        assert_eq!(left, [key(200).words(), FewServices::NO_SERVICE, FewServices::NO_SERVICE, last.words()]);
        assert_eq!(places(left, &HashSet::new()), FREE);
    }
}
