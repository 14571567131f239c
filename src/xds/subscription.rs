//! What a client asked for, of one type. Pure; the rules are those of "The xDS protocol" in Envoy's
//! documentation, cited by the names of its sections.

use std::{collections::BTreeSet, sync::Arc};

/// The one name that asks for everything.
pub const WILDCARD: &str = "*";

/// Names that a client is subscribed to, and whether it wants all others as well.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    names: Arc<BTreeSet<Arc<str>>>,
    wildcard: bool,
    /// A client that sent no names in its first request means all of them ("How the client
    /// specifies what resources to return"), until it names some (state of the world only).
    legacy: bool,
    started: bool,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Names that must be answered, whether they were known before or not: a client that
    /// subscribes again may have dropped what it had.
    pub asked: Vec<Arc<str>>,
    /// Names that the client no longer names.
    pub dropped: Vec<Arc<str>>,
    /// It now wants everything and did not before.
    pub became_wildcard: bool,
}

impl Subscription {
    pub fn includes(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub fn names_explicitly(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a request of this type was seen at all.
    pub fn is_started(&self) -> bool {
        self.started
    }

    pub fn names(&self) -> &Arc<BTreeSet<Arc<str>>> {
        &self.names
    }

    /// Puts an equal set of names in the place of this one's, so that it can be shared.
    pub fn share(&mut self, with: impl FnOnce(Arc<BTreeSet<Arc<str>>>) -> Arc<BTreeSet<Arc<str>>>) {
        self.names = with(std::mem::take(&mut self.names));
    }

    /// A request of the incremental variants. `may_be_legacy`: the type knows the legacy wildcard
    /// (listeners and clusters).
    pub fn delta(
        &mut self,
        subscribe: impl IntoIterator<Item = Arc<str>>,
        unsubscribe: impl IntoIterator<Item = Arc<str>>,
        may_be_legacy: bool,
    ) -> Change {
        let mut change = Change::default();
        let mut named_any = false;
        for name in subscribe {
            named_any = true;
            if &*name == WILDCARD {
                change.became_wildcard |= !self.wildcard;
                self.wildcard = true;
            } else {
                if !self.names.contains(&name) {
                    Arc::make_mut(&mut self.names).insert(name.clone());
                }
                change.asked.push(name);
            }
        }
        if !self.started && !named_any && may_be_legacy {
            self.wildcard = true;
            change.became_wildcard = true;
        }
        self.started = true;
        for name in unsubscribe {
            if &*name == WILDCARD {
                self.wildcard = false;
            } else if self.names.contains(&name) {
                Arc::make_mut(&mut self.names).remove(&name);
                change.dropped.push(name);
            }
        }
        // "Unsubscribing from resources": a name that the wildcard still covers must be answered,
        // with the resource or with its removal.
        if self.wildcard {
            change.asked.append(&mut change.dropped);
        }
        change
    }

    /// A request of the state-of-the-world variants: the whole list each time.
    pub fn replace(&mut self, names: Vec<Arc<str>>, may_be_legacy: bool) -> Change {
        let wanted: BTreeSet<Arc<str>> = names.into_iter().collect();
        if wanted.is_empty() && may_be_legacy && (!self.started || self.legacy) {
            let became_wildcard = !self.wildcard;
            (self.started, self.legacy, self.wildcard) = (true, true, true);
            return Change { became_wildcard, ..Change::default() };
        }
        let wildcard = wanted.contains(WILDCARD);
        let new = |name: &&Arc<str>| &***name != WILDCARD && !self.names.contains(*name);
        let change = Change {
            asked: wanted.iter().filter(new).cloned().collect(),
            dropped: self.names.iter().filter(|name| !wanted.contains(*name)).cloned().collect(),
            became_wildcard: wildcard && !self.wildcard,
        };
        (self.started, self.legacy, self.wildcard) = (true, false, wildcard);
        if !change.asked.is_empty() || !change.dropped.is_empty() {
            let explicit = wanted.into_iter().filter(|name| &**name != WILDCARD);
            self.names = Arc::new(explicit.collect());
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Arc<str>> {
        texts.iter().map(|t| Arc::from(*t)).collect()
    }

    #[test]
    fn no_names_at_first_mean_all_for_types_with_a_legacy_wildcard() {
        let mut clusters = Subscription::default();
        assert!(clusters.delta(names(&[]), names(&[]), true).became_wildcard);
        assert!(clusters.includes("anything"));
        let mut routes = Subscription::default();
        assert!(!routes.delta(names(&[]), names(&[]), false).became_wildcard);
        assert!(!routes.includes("anything"));
    }

    #[test]
    fn no_names_later_are_an_acknowledgement() {
        let mut clusters = Subscription::default();
        clusters.delta(names(&["a"]), names(&[]), true);
        assert!(!clusters.delta(names(&[]), names(&[]), true).became_wildcard);
        assert!(!clusters.includes("b"));
    }

    #[test]
    fn names_besides_the_wildcard_keep_it() {
        let mut clusters = Subscription::default();
        clusters.delta(names(&[]), names(&[]), true);
        let change = clusters.delta(names(&["a"]), names(&[]), true);
        assert_eq!(change.asked, names(&["a"]));
        assert!(clusters.includes("b"));
        clusters.delta(names(&[]), names(&["*"]), true);
        assert!(clusters.includes("a") && !clusters.includes("b"));
    }

    #[test]
    fn subscribing_again_asks_again() {
        let mut routes = Subscription::default();
        routes.delta(names(&["a"]), names(&[]), false);
        assert_eq!(routes.delta(names(&["a"]), names(&[]), false).asked, names(&["a"]));
    }

    #[test]
    fn a_dropped_name_under_the_wildcard_is_answered() {
        let mut clusters = Subscription::default();
        clusters.delta(names(&["*", "a"]), names(&[]), true);
        let change = clusters.delta(names(&[]), names(&["a"]), true);
        assert_eq!((change.asked, change.dropped), (names(&["a"]), vec![]));
    }

    #[test]
    fn state_of_the_world_replaces_the_list() {
        let mut routes = Subscription::default();
        routes.replace(names(&["a", "b"]), false);
        let change = routes.replace(names(&["b", "c"]), false);
        assert_eq!((change.asked, change.dropped), (names(&["c"]), names(&["a"])));
    }

    #[test]
    fn naming_some_ends_the_legacy_wildcard_of_state_of_the_world() {
        let mut clusters = Subscription::default();
        assert!(clusters.replace(vec![], true).became_wildcard);
        assert!(!clusters.replace(vec![], true).became_wildcard);
        clusters.replace(names(&["a"]), true);
        assert!(!clusters.includes("b"));
        assert!(!clusters.replace(vec![], true).became_wildcard);
        assert!(!clusters.includes("a"));
    }
}
