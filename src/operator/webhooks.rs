//! What every replica does for the webhooks: mirrors installations, namespaces and the versions of
//! nodes, and registers the validation webhook.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, NodeStatus, NodeSystemInfo},
        rbac::v1::ClusterRole,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    api::ObjectMeta,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    apply::{self, Changes, Key},
    installation::{build::webhook, validate::inject_config},
    platform::{OPERATOR, Platform},
};
use crate::{
    api::meshwright::MeshInstallation,
    webhook::{
        inject::{NativeSupport, PLATFORM_ANNOTATIONS, kubelet_version},
        server::{Installations, Namespaces},
        validate::names::is_leaving,
    },
};

const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// For the first lists of namespaces and installations.
const START_TIMEOUT: Duration = Duration::from_mins(1);

type Tasks = JoinSet<anyhow::Result<()>>;

/// Keeps what the webhooks read up to date.
pub(super) struct Mirror {
    objects: Store<DeserializeGuard<MeshInstallation>>,
    nodes: Store<Node>,
    platform: Platform,
    installations: Arc<ArcSwap<Installations>>,
    changes: watch::Sender<()>,
    /// Whose turn it is: two watches lead here, and the newer state must not be overtaken.
    turn: Mutex<()>,
}

impl Mirror {
    /// Starts to follow namespaces, nodes and installations; returns when all are known.
    pub(super) async fn start(
        client: Client,
        platform: Platform,
        installations: Arc<ArcSwap<Installations>>,
        changes: watch::Sender<()>,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Namespaces> {
        let namespaces = follow_namespaces(&client, tasks);
        let (objects, object_writer) = reflector::store();
        let (nodes, node_writer) = reflector::store();
        let turn = Mutex::default();
        let mirror = Arc::new(Self { objects, nodes, platform, installations, changes, turn });

        let events = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .modify(keep_version)
            .reflect(node_writer);
        mirror.clone().refresh_on("nodes", events, tasks);
        let api = Api::<DeserializeGuard<MeshInstallation>>::all(client.clone());
        let events =
            watcher(api, watcher::Config::default()).default_backoff().reflect(object_writer);
        mirror.clone().refresh_on("MeshInstallations", events, tasks);

        let ready = async {
            namespaces.wait_until_ready().await?;
            mirror.nodes.wait_until_ready().await?;
            mirror.objects.wait_until_ready().await
        };
        tokio::time::timeout(START_TIMEOUT, ready)
            .await
            .context("the API server did not list namespaces, nodes and MeshInstallations in time: are the CustomResourceDefinitions installed, and may the operator read them?")?
            .context("a watch ended")?;
        mirror.refresh();
        Ok(Namespaces { cache: namespaces, client })
    }

    /// Refreshes at each event.
    fn refresh_on<K: Send + 'static>(
        self: Arc<Self>,
        what: &'static str,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
        tasks: &mut Tasks,
    ) {
        let mut events = events.boxed();
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                report(what, event.err());
                self.refresh();
            }
            anyhow::bail!("the watch of {what} ended")
        });
    }

    fn refresh(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let native = NativeSupport::of_nodes(self.nodes.state().iter().map(AsRef::as_ref));
        let known = known(&self.objects, &native, &self.platform);
        let before = self.installations.load();
        let differ = !same_specs(&known, &before);
        if differ || known.inject != before.inject {
            self.installations.store(Arc::new(known));
        }
        if differ {
            self.changes.send_replace(());
        }
    }
}

fn follow_namespaces(client: &Client, tasks: &mut Tasks) -> Store<PartialObjectMeta<Namespace>> {
    let (namespaces, writer) = reflector::store();
    let metadata = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let mut stream = watcher(metadata, watcher::Config::default())
        .default_backoff()
        .modify(|namespace| {
            namespace.managed_fields_mut().clear();
            namespace.annotations_mut().retain(|key, _| PLATFORM_ANNOTATIONS.contains(&&**key));
        })
        .reflect(writer)
        .boxed();
    tasks.spawn(async move {
        while let Some(event) = stream.next().await {
            report("namespaces", event.err());
        }
        anyhow::bail!("the watch of namespaces ended")
    });
    namespaces
}

/// A node is big and changes often; injection depends on its kubelet's version only.
fn keep_version(node: &mut Node) {
    let kubelet = kubelet_version(node).to_owned();
    *node = Node {
        metadata: ObjectMeta {
            name: node.metadata.name.take(),
            resource_version: node.metadata.resource_version.take(),
            ..ObjectMeta::default()
        },
        spec: None,
        status: Some(NodeStatus {
            node_info: Some(NodeSystemInfo {
                kubelet_version: kubelet,
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
    };
}

/// The readable installations, the oldest of each revision first.
fn known(
    store: &Store<DeserializeGuard<MeshInstallation>>,
    native: &NativeSupport,
    platform: &Platform,
) -> Installations {
    let readable = |guard: &Arc<DeserializeGuard<MeshInstallation>>| {
        guard.0.as_ref().ok().map(|installation| Arc::new(installation.clone()))
    };
    let mut objects: Vec<_> = store.state().iter().filter_map(readable).collect();
    objects.sort_by_key(|i| (i.creation_timestamp().map(|time| time.0), i.name_any()));
    let mut known = Installations::default();
    for installation in &objects {
        let all = objects.iter().map(AsRef::as_ref);
        let config = || inject_config(installation, all, platform, native);
        known.inject.entry(installation.spec.revision.clone()).or_insert_with(config);
    }
    known.objects = objects;
    known
}

fn same_specs(a: &Installations, b: &Installations) -> bool {
    // One that is being deleted gives its names to others.
    let key = |i: &Arc<MeshInstallation>| {
        (i.name_any(), i.metadata.uid.clone(), is_leaving(i), i.spec.clone())
    };
    a.objects.iter().map(key).eq(b.objects.iter().map(key))
}

fn report(what: &str, error: Option<watcher::Error>) {
    if let Some(error) = error {
        tracing::warn!(%error, "cannot watch {what}");
    }
}

/// Registers the validation webhook now and whenever its CA changes. All replicas write the same.
pub(super) async fn register_validator(
    client: Client,
    platform: Platform,
    mut ca: watch::Receiver<String>,
) {
    loop {
        let trusted = ca.borrow_and_update().clone();
        let pause = match register(&client, &platform, &trusted).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "the validation webhook is not registered");
                Some(RETRY_INTERVAL)
            }
        };
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None if ca.changed().await.is_err() => std::future::pending().await,
            None => {}
        }
    }
}

async fn register(client: &Client, platform: &Platform, ca: &str) -> Result<(), apply::Error> {
    let owner = operator_role(client).await?;
    let wanted = webhook::validator(&platform.webhook, &platform.namespace, ca, owner);
    apply::one(client, wanted, &mut Changes::default()).await.map(drop)
}

/// The operator's own ClusterRole as an owner; none where the operator runs outside the cluster.
pub(super) async fn operator_role(client: &Client) -> Result<Option<OwnerReference>, apply::Error> {
    let role = Api::<ClusterRole>::all(client.clone()).get_metadata_opt(OPERATOR).await;
    let role = role.map_err(|error| {
        let object = Key { name: OPERATOR.to_owned(), ..Key::kind("ClusterRole") };
        apply::Error::api("get", object, error)
    })?;
    Ok(role.map(|role| OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: OPERATOR.to_owned(),
        uid: role.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }))
}
