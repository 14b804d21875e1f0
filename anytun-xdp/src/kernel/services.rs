//! The services, where the XDP program looks them up: a map of all, and the first few to be compared one by one.

use std::collections::HashSet;

use anytun_common::map::{FEW, FewServices, ServiceKey};
use aya::maps::{Array, HashMap, Map, MapData, MapError};

/// Octets of a [`ServiceKey`], in the order of its fields.
type Key = [u8; size_of::<ServiceKey>()];

/// [`FewServices`] as the value of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Few(FewServices);

// SAFETY: the kernel may read and write each of its octets: none is padding, and each may have any value.
unsafe impl aya::Pod for Few {}

/// Nobody's.
const NO_SERVICES: FewServices = FewServices { keys: [ServiceKey::NONE; FEW], more: 0 };

/// Both maps, and what is in them.
pub(super) struct Services {
    all: HashMap<MapData, Key, u8>,
    few: Array<MapData, Few>,
    current: HashSet<ServiceKey>,
    keys: [ServiceKey; FEW],
}

impl Services {
    /// No services.
    pub(super) fn new(all: Map, few: Map) -> Result<Self, MapError> {
        let (all, few) = (all.try_into()?, few.try_into()?);
        let mut services = Self { all, few, current: HashSet::new(), keys: NO_SERVICES.keys };
        services.show(0)?;
        Ok(services)
    }

    /// Makes these all services there are. Those that stay miss no packet meanwhile.
    pub(super) fn set(&mut self, wanted: &HashSet<ServiceKey>) -> Result<(), MapError> {
        for key in wanted.difference(&self.current.clone()) {
            self.all.insert(octets(key), 1, 0)?;
            self.current.insert(*key);
        }
        self.keys = places(self.keys, wanted);
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

    fn show(&mut self, more: u32) -> Result<(), MapError> {
        self.few.set(0, Few(FewServices { keys: self.keys, more }), 0)
    }
}

/// The places of the first few of `wanted`. Who has one keeps it, so that it can be found while others change.
fn places(keys: [ServiceKey; FEW], wanted: &HashSet<ServiceKey>) -> [ServiceKey; FEW] {
    let mut others = wanted.iter().copied().filter(|key| !keys.contains(key));
    keys.map(|key| if wanted.contains(&key) { key } else { others.next().unwrap_or(ServiceKey::NONE) })
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
        let none = [ServiceKey::NONE; FEW];
        let two = places(none, &HashSet::from([key(1), key(2)]));
        assert_eq!(two.iter().filter(|key| **key == ServiceKey::NONE).count(), FEW - 2);
        let many = places(two, &(1..100).map(key).collect());
        assert_eq!(many[..2], two[..2]);
        assert!(!many.contains(&ServiceKey::NONE));
        let left = places(many, &HashSet::from([many[3], key(200)]));
        assert_eq!(left, [key(200), ServiceKey::NONE, ServiceKey::NONE, many[3]]);
        assert_eq!(places(left, &HashSet::new()), none);
    }
}
