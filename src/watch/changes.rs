//! What is different between a snapshot and the one before, as far as later stages care.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{Key, Snapshot};

/// What changed. Endpoints are apart: they are most of the churn and must not wait for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services whose endpoints may differ.
    pub endpoints_of: BTreeSet<Key>,
    /// ServiceEntries whose selected pods may differ.
    pub entries: BTreeSet<Key>,
    /// Pods whose applications have finished, or have not after all. Only the pod itself cares.
    pub finished: BTreeSet<Key>,
    /// Whether anything else differs.
    pub config: bool,
}

impl Changes {
    /// Everything, as for a first snapshot.
    pub fn all() -> Self {
        Self { config: true, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn merge(&mut self, other: Self) {
        self.endpoints_of.extend(other.endpoints_of);
        self.entries.extend(other.entries);
        self.finished.extend(other.finished);
        self.config |= other.config;
    }
}

/// Hands over the newest snapshot with all changes since the reader last took one: a slow reader
/// skips snapshots but misses no change.
#[derive(Clone, Debug, Default)]
pub struct Mailbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slot: Mutex<Option<(Snapshot, Changes)>>,
    filled: Notify,
}

impl Mailbox {
    pub fn put(&self, snapshot: Snapshot, changes: Changes) {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = slot.take().map(|(_, pending)| pending).unwrap_or_default();
        all.merge(changes);
        *slot = Some((snapshot, all));
        drop(slot);
        self.0.filled.notify_one();
    }

    pub async fn take(&self) -> (Snapshot, Changes) {
        loop {
            if let Some(found) = self.try_take() {
                return found;
            }
            self.0.filled.notified().await;
        }
    }

    pub fn try_take(&self) -> Option<(Snapshot, Changes)> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_misses_no_change() {
        let mailbox = Mailbox::default();
        let of = |name: &str| {
            let endpoints_of = [Key::new("a", name)].into();
            Changes { endpoints_of, ..Changes::default() }
        };
        mailbox.put(Snapshot::default(), of("x"));
        mailbox.put(Snapshot::default(), of("y"));
        let (_, changes) = mailbox.take().await;
        assert_eq!(changes.endpoints_of.len(), 2);
        assert!(mailbox.try_take().is_none());
    }
}
