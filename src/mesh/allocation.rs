//! Addresses for hosts of ServiceEntries that have none, of 240.240.0.0/16 and 2001:2::/48.
//!
//! Nothing is remembered: every control plane, and every rebuild, finds the same addresses, because
//! a host's place follows from its own name, and from those that were there before it where two
//! names fall on one place. So whoever comes later moves nobody.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

const V4: u32 = u32::from_be_bytes([240, 240, 0, 0]);
const V6: u128 = 0x2001_0002 << 96;
/// The first and the last address of the range stay free: some systems take them for the network
/// itself and for a broadcast.
const PLACES: u64 = 65_534;
/// Places that a name is tried at before those next to the last one.
const TRIES: u64 = 8;

/// The two addresses of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// Gives out addresses, to the oldest first.
#[derive(Debug, Default)]
pub struct Allocator {
    taken: BTreeSet<u16>,
}

impl Allocator {
    /// Addresses that somebody has written down are not given to others.
    pub fn reserving(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { taken: addresses.into_iter().filter_map(place_of).collect() }
    }

    /// The addresses of a host, named by something that no other has; `None` once all are given.
    pub fn allocate(&mut self, id: &str) -> Option<Allocated> {
        let hashed = |seed| xxh3_64_with_seed(id.as_bytes(), seed) % PLACES;
        let tried = (0..TRIES).map(hashed);
        let next = (0..PLACES).map(|step| (hashed(TRIES) + step) % PLACES);
        let place = tried
            .chain(next)
            .filter_map(|place| u16::try_from(place + 1).ok())
            .find(|place| !self.taken.contains(place))?;
        self.taken.insert(place);
        Some(Allocated {
            v4: Ipv4Addr::from_bits(V4 | u32::from(place)),
            v6: Ipv6Addr::from_bits(V6 | u128::from(place)),
        })
    }
}

fn place_of(address: IpAddr) -> Option<u16> {
    match address {
        IpAddr::V4(ip) => u16::try_from(ip.to_bits().checked_sub(V4)?).ok(),
        IpAddr::V6(ip) => u16::try_from(ip.to_bits().checked_sub(V6)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn all(ids: &[String]) -> BTreeMap<String, Allocated> {
        let mut allocator = Allocator::default();
        ids.iter().map(|id| (id.clone(), allocator.allocate(id).unwrap())).collect()
    }

    fn ids(numbers: &BTreeSet<u32>) -> Vec<String> {
        numbers.iter().map(|n| format!("shop/entry-{n}/host-{n}.example.com")).collect()
    }

    #[test]
    fn addresses_are_of_the_two_ranges() {
        let got = Allocator::default().allocate("shop/api/api.example.com").unwrap();
        assert_eq!(got.v4.octets()[..2], [240, 240]);
        assert_eq!(got.v6.segments()[..3], [0x2001, 2, 0]);
        assert_eq!(place_of(got.v4.into()), place_of(got.v6.into()));
    }

    #[test]
    fn written_addresses_are_not_given_away() {
        let free = Allocator::default().allocate("a").unwrap();
        for address in [IpAddr::V4(free.v4), IpAddr::V6(free.v6)] {
            assert_ne!(Allocator::reserving([address]).allocate("a").unwrap(), free);
        }
    }

    #[test]
    fn every_place_is_given_once_and_then_none() {
        let mut allocator = Allocator::default();
        let given: BTreeSet<_> =
            (0..PLACES).map(|n| allocator.allocate(&n.to_string()).unwrap().v4).collect();
        assert_eq!(given.len() as u64, PLACES);
        assert_eq!(allocator.allocate("one more"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn no_two_hosts_share_an_address(numbers in prop::collection::btree_set(any::<u32>(), 0..2000)) {
            let given = all(&ids(&numbers));
            let addresses: BTreeSet<_> = given.values().map(|a| (a.v4, a.v6)).collect();
            prop_assert_eq!(addresses.len(), given.len());
        }

        #[test]
        fn younger_hosts_move_nobody(
            older in prop::collection::btree_set(0..1_000_000_u32, 0..1000),
            younger in prop::collection::btree_set(1_000_000..2_000_000_u32, 0..1000),
        ) {
            let before = all(&ids(&older));
            let after = all(&[ids(&older), ids(&younger)].concat());
            for (id, address) in before {
                prop_assert_eq!(after[&id], address);
            }
        }

        #[test]
        fn who_leaves_moves_few(
            numbers in prop::collection::btree_set(any::<u32>(), 1..1000),
            gone in any::<prop::sample::Index>(),
        ) {
            let mut rest = ids(&numbers);
            let before = all(&rest);
            let gone = rest.remove(gone.index(rest.len()));
            let after = all(&rest);
            let moved = rest.iter().filter(|id| after[*id] != before[*id]).count();
            // Only who was turned away from the free place, directly or by one that was.
            prop_assert!(moved <= 3, "{moved} moved when {gone} left");
        }
    }
}
