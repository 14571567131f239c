//! The one owner of the snapshot's tables: edits in, snapshots with what changed out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    changes::{Changes, Mailbox},
    kind::Kind,
    snapshot::{Key, Snapshot},
};
use crate::api::meshwright::MeshInstallation;

/// Configuration changes that follow another within this time are gathered; the first is not held
/// back, nor are endpoints ever.
pub(super) const GATHER: Duration = Duration::from_millis(5);

/// A change of the tables, as a watch saw it. A function, so that one queue serves all kinds.
pub(super) type Edit = Box<dyn FnOnce(&mut Tables) -> Changes + Send>;

/// The tables, and what is not part of the snapshot itself.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) snapshot: Snapshot,
    revision: String,
    installations: BTreeMap<Key, Arc<MeshInstallation>>,
    /// Watches that have not listed yet.
    waiting: usize,
}

impl Tables {
    pub(super) fn new(system_namespace: &str, revision: &str, watches: usize) -> Self {
        let system_namespace = system_namespace.into();
        Self {
            snapshot: Snapshot { system_namespace, ..Snapshot::default() },
            revision: revision.to_owned(),
            installations: BTreeMap::new(),
            waiting: watches,
        }
    }

    /// A watch has listed for the first time.
    pub(super) fn listed(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// One object is new, different or gone.
    pub(super) fn set<K: Kind>(&mut self, key: Key, new: Option<K::Trimmed>) -> Changes {
        let old = K::table(&mut self.snapshot).get(&key).cloned();
        let changes = K::changes(&key, old.as_deref(), new.as_ref(), &self.snapshot);
        if K::is_same(old.as_deref(), new.as_ref()) {
            return changes;
        }
        let table = Arc::make_mut(K::table(&mut self.snapshot));
        match new {
            Some(new) => {
                table.insert(key, Arc::new(new));
            }
            None => {
                table.remove(&key);
            }
        }
        changes
    }

    /// A watch has listed anew: what it does not hold is gone.
    pub(super) fn replace<K: Kind>(&mut self, objects: BTreeMap<Key, K::Trimmed>) -> Changes {
        let table = K::table(&mut self.snapshot);
        let gone: Vec<Key> =
            table.keys().filter(|key| !objects.contains_key(key)).cloned().collect();
        let mut changes = Changes::default();
        for key in gone {
            changes.merge(self.set::<K>(key, None));
        }
        for (key, object) in objects {
            changes.merge(self.set::<K>(key, Some(object)));
        }
        changes
    }

    pub(super) fn set_installation(&mut self, key: Key, new: Option<MeshInstallation>) -> Changes {
        match new {
            Some(new) => self.installations.insert(key, Arc::new(new)),
            None => self.installations.remove(&key),
        };
        self.choose_installation()
    }

    pub(super) fn replace_installations(
        &mut self,
        objects: BTreeMap<Key, MeshInstallation>,
    ) -> Changes {
        self.installations = objects.into_iter().map(|(k, o)| (k, Arc::new(o))).collect();
        self.choose_installation()
    }

    /// Two may claim the same revision for a moment; the first by name wins, as for the operator.
    fn choose_installation(&mut self) -> Changes {
        let ours = |i: &&Arc<MeshInstallation>| i.spec.revision == self.revision;
        let chosen = self.installations.values().find(ours).cloned();
        let spec = |i: &Option<Arc<MeshInstallation>>| i.as_ref().map(|i| i.spec.clone());
        let config = spec(&chosen) != spec(&self.snapshot.installation);
        self.snapshot.installation = chosen;
        Changes { config, ..Changes::default() }
    }
}

/// Applies edits until their senders are gone. Nothing is published before every watch has listed.
pub(super) async fn run(
    mut tables: Tables,
    mut edits: mpsc::Receiver<Edit>,
    mailbox: Mailbox,
    gather: Duration,
) {
    let mut pending = Changes::default();
    let mut last_config = None::<Instant>;
    let mut started = false;
    loop {
        let due = last_config.map(|at| at + gather).filter(|_| pending.config);
        let edit = tokio::select! {
            edit = edits.recv() => match edit {
                Some(edit) => Some(edit),
                None => return,
            },
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => None,
        };
        if let Some(edit) = edit {
            pending.merge(edit(&mut tables));
            // Whatever has come meanwhile belongs to the same change.
            while let Ok(edit) = edits.try_recv() {
                pending.merge(edit(&mut tables));
            }
        }
        if tables.waiting > 0 {
            continue;
        }
        if !started {
            started = true;
            pending = Changes::all();
        }
        let now = Instant::now();
        let config_due = last_config.is_none_or(|at| now >= at + gather);
        let mut publish = std::mem::take(&mut pending);
        if publish.config && config_due {
            last_config = Some(now);
        } else {
            pending.config = std::mem::take(&mut publish.config);
        }
        if !publish.is_empty() {
            mailbox.put(tables.snapshot.clone(), publish);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    };

    use super::*;
    use crate::{api::istio::networking::ServiceEntry, watch::snapshot};

    fn service(port: u16) -> snapshot::Service {
        let port = snapshot::ServicePort { port, ..snapshot::ServicePort::default() };
        snapshot::Service { ports: vec![port], ..snapshot::Service::default() }
    }

    fn slice(ready: bool) -> snapshot::EndpointSlice {
        let endpoint = snapshot::SliceEndpoint { ready, ..snapshot::SliceEndpoint::default() };
        snapshot::EndpointSlice {
            service: "cart".into(),
            endpoints: vec![endpoint],
            ..snapshot::EndpointSlice::default()
        }
    }

    #[test]
    fn an_equal_object_is_no_change() {
        let mut tables = Tables::new("system", "default", 0);
        let key = Key::new("shop", "cart");
        assert!(tables.set::<Service>(key.clone(), Some(service(80))).config);
        assert!(tables.set::<Service>(key.clone(), Some(service(80))).is_empty());
        assert!(tables.set::<Service>(key, Some(service(81))).config);
    }

    #[test]
    fn endpoints_are_not_configuration() {
        let mut tables = Tables::new("system", "default", 0);
        let key = Key::new("shop", "cart-abc");
        let changes = tables.set::<EndpointSlice>(key, Some(slice(true)));
        assert_eq!(changes.endpoints_of, [Key::new("shop", "cart")].into());
        assert!(!changes.config);
    }

    #[test]
    fn the_end_of_a_pods_work_is_for_the_pod_alone() {
        let mut tables = Tables::new("system", "default", 0);
        let key = Key::new("shop", "job-0");
        let pod = |applications_finished| snapshot::Pod {
            meshed: true,
            applications_finished,
            ..snapshot::Pod::default()
        };
        assert!(tables.set::<Pod>(key.clone(), Some(pod(false))).config);
        let changes = tables.set::<Pod>(key.clone(), Some(pod(true)));
        assert_eq!(changes, Changes { finished: [key].into(), ..Changes::default() });
    }

    #[test]
    fn pods_wake_the_entries_that_select_them() {
        let mut tables = Tables::new("system", "default", 0);
        let entry = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "batch", "namespace": "shop"},
            "spec": {"hosts": ["batch.internal"], "workloadSelector": {"labels": {"app": "batch"}}},
        }));
        tables.set::<ServiceEntry>(Key::new("shop", "batch"), Some(entry.unwrap()));
        let pod = |app: &str, ready| snapshot::Pod {
            labels: [("app".to_owned(), app.to_owned())].into(),
            ready,
            ..snapshot::Pod::default()
        };
        let mut set = |name: &str, pod| tables.set::<Pod>(Key::new("shop", name), Some(pod));
        let entries: BTreeSet<Key> = [Key::new("shop", "batch")].into();
        assert_eq!(set("batch-0", pod("batch", false)).entries, entries);
        assert_eq!(set("batch-0", pod("batch", true)).entries, entries);
        assert_eq!(set("batch-0", pod("other", true)).entries, entries, "it was selected before");
        assert!(set("web-0", pod("web", true)).entries.is_empty());
    }

    #[test]
    fn listing_again_removes_what_is_gone() {
        let mut tables = Tables::new("system", "default", 0);
        tables.set::<Service>(Key::new("shop", "old"), Some(service(80)));
        let listed = [(Key::new("shop", "new"), service(80))].into();
        assert!(tables.replace::<Service>(listed).config);
        let names: Vec<_> = tables.snapshot.services.keys().map(|k| k.name.to_string()).collect();
        assert_eq!(names, ["new"]);
    }

    #[tokio::test]
    async fn publishes_once_all_have_listed_then_the_first_change_at_once() {
        let gather = Duration::from_millis(500);
        let (sender, edits) = mpsc::channel::<Edit>(16);
        let mailbox = Mailbox::default();
        tokio::spawn(run(Tables::new("system", "default", 1), edits, mailbox.clone(), gather));
        let set = |port| -> Edit {
            Box::new(move |t| t.set::<Service>(Key::new("shop", "cart"), Some(service(port))))
        };
        sender.send(set(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(mailbox.try_take().is_none());
        let listed: Edit = Box::new(|tables| {
            tables.listed();
            Changes::default()
        });
        sender.send(listed).await.unwrap();
        assert!(mailbox.take().await.1.config);

        // The next ones are gathered; endpoints among them are not held back.
        sender.send(set(2)).await.unwrap();
        sender.send(set(3)).await.unwrap();
        let endpoints: Edit =
            Box::new(|t| t.set::<EndpointSlice>(Key::new("shop", "cart-abc"), Some(slice(true))));
        sender.send(endpoints).await.unwrap();
        let (_, changes) = mailbox.take().await;
        assert_eq!((changes.config, changes.endpoints_of.len()), (false, 1));
        let (snapshot, changes) = mailbox.take().await;
        assert!(changes.config);
        assert_eq!(snapshot.services.values().next().unwrap().ports[0].port, 3);
    }
}
