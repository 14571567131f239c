//! Which namespaces have been redirected, so that the runtime's request and the repair do not do it
//! twice. Pure.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How far a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    UnderWay,
    /// When the pod's init container had given up that many times.
    Done {
        restarts: i32,
    },
    Failed,
}

/// Namespaces by their path. It forgets those that are gone.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<PathBuf, Entry>>);

impl Ledger {
    /// Whether the caller shall redirect this namespace, which then is under way. One that is done is
    /// done again if the pod gave up since: something took the rules away.
    pub fn claim(&self, namespace: &Path, restarts: i32) -> bool {
        let mut entries = self.entries();
        let due = match entries.get(namespace) {
            None | Some(Entry::Failed) => true,
            Some(Entry::UnderWay) => false,
            Some(Entry::Done { restarts: then }) => restarts > *then,
        };
        if due {
            entries.insert(namespace.to_owned(), Entry::UnderWay);
        }
        due
    }

    /// Says how it went.
    pub fn settle(&self, namespace: &Path, restarts: i32, success: bool) {
        let entry = if success { Entry::Done { restarts } } else { Entry::Failed };
        self.entries().insert(namespace.to_owned(), entry);
    }

    /// Whether it was ever tried in this namespace.
    pub fn knows(&self, namespace: &Path) -> bool {
        self.entries().contains_key(namespace)
    }

    /// Forgets namespaces for which `exists` says no.
    pub fn retain(&self, exists: impl Fn(&Path) -> bool) {
        self.entries().retain(|path, _| exists(path));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_redirected_once_and_again_when_its_pod_gives_up() {
        let (ledger, namespace) = (Ledger::default(), Path::new("/run/netns/a"));
        assert!(ledger.claim(namespace, 0));
        assert!(!ledger.claim(namespace, 0), "it is under way");
        ledger.settle(namespace, 0, false);
        assert!(ledger.claim(namespace, 0), "it failed");
        ledger.settle(namespace, 0, true);
        assert!(!ledger.claim(namespace, 0), "it is done");
        assert!(ledger.claim(namespace, 1), "its pod gave up since");
        ledger.settle(namespace, 1, true);
        assert!(!ledger.claim(namespace, 1));
        assert!(ledger.knows(namespace));
        ledger.retain(|_| false);
        assert!(!ledger.knows(namespace));
    }
}
