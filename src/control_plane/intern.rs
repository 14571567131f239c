//! Equal resources are one resource, and equal sets one set, whichever scope and whichever rebuild
//! they come from: memory follows what is different, and a session sees by the pointer that nothing
//! changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    envoy::Encoded,
    xds::{Resource, ResourceSet, ResourceType},
};

/// An [`Encoded`] whose sets are shared.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub clusters: Arc<ResourceSet>,
    pub listeners: Arc<ResourceSet>,
    pub routes: Arc<ResourceSet>,
    pub secrets: Arc<ResourceSet>,
}

/// Holds nothing alive.
#[derive(Debug, Default)]
pub struct Interner(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    resources: HashMap<(ResourceType, u64), Weak<Resource>>,
    sets: HashMap<(ResourceType, u128), Weak<ResourceSet>>,
}

impl Interner {
    pub fn encoded(&self, encoded: Encoded) -> Shared {
        Shared {
            clusters: self.set(ResourceType::Cluster, encoded.clusters),
            listeners: self.set(ResourceType::Listener, encoded.listeners),
            routes: self.set(ResourceType::Route, encoded.routes),
            secrets: self.set(ResourceType::Secret, encoded.secrets),
        }
    }

    pub fn set(&self, kind: ResourceType, set: ResourceSet) -> Arc<ResourceSet> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for resource in set.by_name.values() {
            hasher.update(&resource.version.to_le_bytes());
        }
        let key = (kind, hasher.digest128());
        if let Some(twin) = known.sets.get(&key).and_then(Weak::upgrade) {
            return twin;
        }
        let shared: ResourceSet =
            set.by_name.into_values().map(|resource| known.resource(kind, resource)).collect();
        let shared = Arc::new(shared);
        known.sets.insert(key, Arc::downgrade(&shared));
        shared
    }

    /// Forgets what is gone. Called after each rebuild.
    pub fn prune(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.resources.retain(|_, resource| resource.strong_count() > 0);
        known.sets.retain(|_, set| set.strong_count() > 0);
    }
}

impl Known {
    fn resource(&mut self, kind: ResourceType, resource: Arc<Resource>) -> Arc<Resource> {
        let slot = self.resources.entry((kind, resource.version)).or_default();
        match slot.upgrade() {
            // A hash is not a proof; comparing costs little beside encoding.
            Some(twin) if twin == resource => twin,
            _ => {
                *slot = Arc::downgrade(&resource);
                resource
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn encoded(names: &[&str]) -> Encoded {
        let mut encoded = Encoded::default();
        for name in names {
            encoded.clusters.insert(&Cluster { name: (*name).to_owned(), ..Cluster::default() });
        }
        encoded
    }

    #[test]
    fn equal_sets_and_equal_resources_are_one() {
        let interner = Interner::default();
        let first = interner.encoded(encoded(&["a", "b"]));
        let twin = interner.encoded(encoded(&["a", "b"]));
        assert!(Arc::ptr_eq(&first.clusters, &twin.clusters));
        let other = interner.encoded(encoded(&["b", "c"]));
        let b = |shared: &Shared| shared.clusters.get("b").unwrap().clone();
        assert!(Arc::ptr_eq(&b(&first), &b(&other)));
        drop((first, twin, other));
        interner.prune();
        assert!(interner.0.lock().unwrap().resources.is_empty());
    }
}
