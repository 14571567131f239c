//! The trust bundle in every namespace: the ConfigMap that pods mount to know the control plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::sync::watch;

/// The ConfigMap's name, the same in every namespace.
pub const ROOT_CONFIG_MAP: &str = "meshwright-ca-root-cert";
/// Its one key.
pub const ROOT_KEY: &str = "root-cert.pem";

const FIELD_MANAGER: &str = "meshwright";
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the ConfigMap as it should be in every namespace, while `leader` is true. Ends when the
/// sender of `leader` is gone.
pub async fn distribute(client: Client, root_pem: String, mut leader: watch::Receiver<bool>) {
    loop {
        if leader.wait_for(|leading| *leading).await.is_err() {
            return;
        }
        tokio::select! {
            () = lead(client.clone(), &root_pem) => {}
            lost = leader.wait_for(|leading| !*leading) => if lost.is_err() { return },
        }
    }
}

async fn lead(client: Client, root_pem: &str) {
    let mut state = Bundles::new(root_pem);
    let mut events = std::pin::pin!(events(client.clone()));
    loop {
        // What could not be written is tried again after a pause, or with the next event.
        let event = if state.due().is_empty() {
            events.next().await
        } else {
            tokio::time::timeout(RETRY, events.next()).await.unwrap_or(Some(Change::None))
        };
        let Some(event) = event else { return };
        state.take(event);
        for namespace in state.due() {
            match apply(&client, &namespace, root_pem).await {
                Ok(()) => state.written(&namespace),
                Err(error) if is_gone(&error) => state.gone(&namespace),
                Err(error) => {
                    tracing::warn!(%namespace, %error, "cannot write the trust bundle; trying again");
                    break;
                }
            }
        }
    }
}

async fn apply(client: &Client, namespace: &str, root_pem: &str) -> kube::Result<()> {
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(ROOT_CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(ROOT_KEY.to_owned(), root_pem.to_owned())])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    api.patch(ROOT_CONFIG_MAP, &params, &Patch::Apply(&map)).await?;
    Ok(())
}

/// A namespace that is being deleted takes nothing new.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 404 || status.code == 403 && status.message.contains("being terminated"))
}

/// One thing that happened in the cluster.
#[derive(Debug)]
enum Change {
    None,
    Namespace(Event<PartialObjectMeta<Namespace>>),
    Bundle(Event<ConfigMap>),
}

fn events(client: Client) -> impl Stream<Item = Change> {
    let maps = watcher::Config::default().fields(&format!("metadata.name={ROOT_CONFIG_MAP}"));
    let maps = watcher::watcher(Api::<ConfigMap>::all(client.clone()), maps)
        .default_backoff()
        .map_ok(Change::Bundle);
    // Names are all that is needed of namespaces.
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client);
    let namespaces = watcher::watcher(namespaces, watcher::Config::default())
        .default_backoff()
        .map_ok(Change::Namespace);
    futures::stream::select(maps, namespaces).map(|event| {
        event.unwrap_or_else(|error| {
            tracing::warn!(%error, "the watch for the trust bundle broke; watching again");
            Change::None
        })
    })
}

/// Which namespaces there are and which of them hold the right bundle. Pure.
#[derive(Debug)]
struct Bundles<'a> {
    root_pem: &'a str,
    namespaces: BTreeSet<String>,
    right: BTreeSet<String>,
    /// Nothing is due before both lists were read once: most namespaces have their bundle.
    listed: (bool, bool),
}

impl<'a> Bundles<'a> {
    fn new(root_pem: &'a str) -> Self {
        Self {
            root_pem,
            namespaces: BTreeSet::new(),
            right: BTreeSet::new(),
            listed: (false, false),
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Namespace(Event::Init) => self.namespaces.clear(),
            Change::Namespace(Event::InitDone) => self.listed.0 = true,
            Change::Namespace(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                if namespace.meta().deletion_timestamp.is_some() {
                    self.namespaces.remove(&namespace.name_any());
                } else {
                    self.namespaces.insert(namespace.name_any());
                }
            }
            Change::Namespace(Event::Delete(namespace)) => self.gone(&namespace.name_any()),
            Change::Bundle(Event::Init) => self.right.clear(),
            Change::Bundle(Event::InitDone) => self.listed.1 = true,
            Change::Bundle(Event::Apply(map) | Event::InitApply(map)) => self.bundle(&map),
            Change::Bundle(Event::Delete(map)) => {
                self.right.remove(&map.namespace().unwrap_or_default());
            }
        }
    }

    fn bundle(&mut self, map: &ConfigMap) {
        let namespace = map.namespace().unwrap_or_default();
        let found = map.data.as_ref().and_then(|data| data.get(ROOT_KEY));
        if found.is_some_and(|found| found == self.root_pem) {
            self.right.insert(namespace);
        } else {
            self.right.remove(&namespace);
        }
    }

    /// The namespaces to write to now.
    fn due(&self) -> Vec<String> {
        match self.listed {
            (true, true) => self.namespaces.difference(&self.right).cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn written(&mut self, namespace: &str) {
        self.right.insert(namespace.to_owned());
    }

    fn gone(&mut self, namespace: &str) {
        self.namespaces.remove(namespace);
        self.right.remove(namespace);
    }
}

#[cfg(test)]
mod tests {
    use kube::core::PartialObjectMetaExt;

    use super::*;

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
            .into_response_partial::<Namespace>()
    }

    fn map(namespace: &str, root: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(ROOT_CONFIG_MAP.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(ROOT_KEY.to_owned(), root.to_owned())])),
            ..ConfigMap::default()
        }
    }

    /// Two namespaces, of which `a` has its bundle already.
    fn listed() -> Bundles<'static> {
        let mut state = Bundles::new("root");
        for change in [
            Change::Namespace(Event::Init),
            Change::Namespace(Event::InitApply(namespace("a"))),
            Change::Namespace(Event::InitApply(namespace("b"))),
            Change::Namespace(Event::InitDone),
            Change::Bundle(Event::Init),
            Change::Bundle(Event::InitApply(map("a", "root"))),
        ] {
            assert!(state.due().is_empty(), "nothing is due before both lists are complete");
            state.take(change);
        }
        state.take(Change::Bundle(Event::InitDone));
        state
    }

    #[test]
    fn writes_only_where_the_bundle_is_missing() {
        let mut state = listed();
        assert_eq!(state.due(), ["b"]);
        state.written("b");
        assert!(state.due().is_empty());
    }

    #[test]
    fn restores_what_was_changed_or_deleted() {
        let mut state = listed();
        state.written("b");
        state.take(Change::Bundle(Event::Apply(map("a", "forged"))));
        assert_eq!(state.due(), ["a"]);
        state.take(Change::Bundle(Event::Apply(map("a", "root"))));
        state.take(Change::Bundle(Event::Delete(map("b", "root"))));
        assert_eq!(state.due(), ["b"]);
    }

    #[test]
    fn follows_namespaces_as_they_come_and_go() {
        let mut state = listed();
        state.take(Change::Namespace(Event::Apply(namespace("c"))));
        assert_eq!(state.due(), ["b", "c"]);
        let mut ending = namespace("b");
        ending.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        state.take(Change::Namespace(Event::Apply(ending)));
        assert_eq!(state.due(), ["c"], "a namespace that is being deleted is left alone");
        state.take(Change::Bundle(Event::Delete(map("a", "root"))));
        state.take(Change::Namespace(Event::Delete(namespace("a"))));
        assert_eq!(state.due(), ["c"]);
    }
}
