//! What one proxy is to have: for each type a few sets of resources, each shared with every other
//! proxy that has the same.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Resource, ResourceSet, ResourceType};

/// Sets of one type whose union a proxy has; no name is in two of them.
pub type Layers = Vec<Arc<ResourceSet>>;

/// Everything that one proxy is to have.
#[derive(Clone, Debug, Default)]
pub struct View {
    layers: [Layers; ResourceType::ALL.len()],
}

impl View {
    /// Adds a set; an empty one is left out.
    pub fn add(&mut self, kind: ResourceType, set: &Arc<ResourceSet>) {
        if !set.by_name.is_empty() {
            self.layers[kind as usize].push(set.clone());
        }
    }

    #[must_use]
    pub fn with(mut self, kind: ResourceType, set: &Arc<ResourceSet>) -> Self {
        self.add(kind, set);
        self
    }

    /// Replaces all sets of one type.
    pub fn replace(&mut self, kind: ResourceType, layers: Layers) {
        self.layers[kind as usize] = layers;
    }

    pub fn layers(&self, kind: ResourceType) -> &Layers {
        &self.layers[kind as usize]
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        lookup(self.layers(kind), name)
    }
}

pub(super) fn lookup<'a>(layers: &'a Layers, name: &str) -> Option<&'a Arc<Resource>> {
    layers.iter().find_map(|set| set.get(name))
}

/// Names, as many sessions share them.
pub type Names = Arc<[Arc<str>]>;

/// Work that many sessions would repeat, remembered by exactly what it reads.
///
/// A change of the mesh turns the same two sets into the same difference for each of thousands of
/// proxies, and most of them subscribe to the same names.
#[derive(Debug, Default)]
pub struct Memo {
    differences: Mutex<VecDeque<Difference>>,
    subscriptions: Mutex<Vec<Weak<BTreeSet<Arc<str>>>>>,
}

#[derive(Debug)]
struct Difference {
    /// Weak, not a bare pointer: its address cannot be taken by another set while this lives.
    old: Weak<ResourceSet>,
    new: Weak<ResourceSet>,
    names: Names,
}

/// Enough for the changes of a few types that are in flight at a time.
const REMEMBERED: usize = 32;

impl Memo {
    /// Names whose resource is not the same in both, in order.
    pub fn changed(&self, old: &Arc<ResourceSet>, new: &Arc<ResourceSet>) -> Names {
        if Arc::ptr_eq(old, new) {
            return Names::default();
        }
        let mut known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |weak: &Weak<ResourceSet>, set| Weak::as_ptr(weak) == Arc::as_ptr(set);
        if let Some(found) = known.iter().find(|d| is(&d.old, old) && is(&d.new, new)) {
            return found.names.clone();
        }
        let names = difference(old, new);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(Difference {
            old: Arc::downgrade(old),
            new: Arc::downgrade(new),
            names: names.clone(),
        });
        names
    }

    /// The one shared copy of a set of subscribed names.
    pub fn share(&self, names: Arc<BTreeSet<Arc<str>>>) -> Arc<BTreeSet<Arc<str>>> {
        // A handful of names costs less than looking for a twin.
        if names.len() < 32 {
            return names;
        }
        let mut known = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|set| set.strong_count() > 0);
        if let Some(twin) = known.iter().filter_map(Weak::upgrade).find(|set| *set == names) {
            return twin;
        }
        known.push(Arc::downgrade(&names));
        names
    }
}

/// A merge of two ordered maps: linear, and no lookups.
fn difference(old: &ResourceSet, new: &ResourceSet) -> Names {
    let (mut old, mut new) = (old.by_name.values().peekable(), new.by_name.values().peekable());
    let mut names = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return names.into(),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        if before.map(|r| r.version) != after.map(|r| r.version)
            && let Some(either) = after.or(before)
        {
            names.push(either.name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn set(resources: &[(&str, u64)]) -> Arc<ResourceSet> {
        let resource = |&(name, version): &(&str, u64)| {
            let body = Bytes::new();
            Arc::new(Resource { name: name.into(), version, body, warmed_by: None })
        };
        Arc::new(resources.iter().map(resource).collect())
    }

    #[test]
    fn differences_are_added_changed_and_removed_names() {
        let memo = Memo::default();
        let old = set(&[("a", 1), ("b", 1), ("c", 1)]);
        let new = set(&[("b", 1), ("c", 2), ("d", 1)]);
        let names = memo.changed(&old, &new);
        assert_eq!(names.iter().map(|n| &**n).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert!(Arc::ptr_eq(&names, &memo.changed(&old, &new)));
        assert!(memo.changed(&old, &old).is_empty());
    }

    #[test]
    fn equal_subscriptions_are_one() {
        let memo = Memo::default();
        let names = || Arc::new((0..100).map(|n| Arc::from(n.to_string())).collect());
        let first = memo.share(names());
        assert!(Arc::ptr_eq(&first, &memo.share(names())));
    }
}
