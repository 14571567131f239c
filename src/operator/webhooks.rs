//! What every replica does for the webhooks: mirrors installations and namespaces, and registers the
//! validation webhook.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::{
    api::{core::v1::Namespace, rbac::v1::ClusterRole},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    apply::{self, Changes},
    installation::{build::webhook, validate::inject_config},
    platform::{OPERATOR, Platform},
};
use crate::{
    api::meshwright::MeshInstallation,
    webhook::server::{Installations, Namespaces},
};

const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// For the first lists of namespaces and installations.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Keeps what the webhooks read up to date.
pub(super) struct Mirror;

impl Mirror {
    /// Starts to follow namespaces and installations; returns when both are known.
    pub(super) async fn start(
        client: Client,
        platform: Platform,
        installations: Arc<ArcSwap<Installations>>,
        changes: watch::Sender<()>,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Namespaces> {
        let (namespaces, namespace_writer) = reflector::store();
        let metadata = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
        let mut stream = watcher(metadata, watcher::Config::default())
            .default_backoff()
            .modify(|namespace| namespace.managed_fields_mut().clear())
            .reflect(namespace_writer)
            .boxed();
        tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                report("namespaces", event.err());
            }
            anyhow::bail!("the watch of namespaces ended")
        });

        let (store, writer) = reflector::store();
        let api = Api::<DeserializeGuard<MeshInstallation>>::all(client.clone());
        let mut stream =
            watcher(api, watcher::Config::default()).default_backoff().reflect(writer).boxed();
        let reader: Store<DeserializeGuard<MeshInstallation>> = store.clone();
        tasks.spawn(async move {
            while let Some(event) = stream.next().await {
                report("MeshInstallations", event.err());
                let known = known(&reader, &platform);
                let differ = !same_specs(&known, &installations.load());
                installations.store(Arc::new(known));
                if differ {
                    changes.send_replace(());
                }
            }
            anyhow::bail!("the watch of MeshInstallations ended")
        });

        let ready = async {
            namespaces.wait_until_ready().await?;
            store.wait_until_ready().await
        };
        tokio::time::timeout(START_TIMEOUT, ready)
            .await
            .context("the API server did not list namespaces and MeshInstallations in time: are the CustomResourceDefinitions installed, and may the operator read them?")?
            .context("a watch ended")?;
        Ok(Namespaces { cache: namespaces, client })
    }
}

/// The readable installations, the oldest of each revision first.
fn known(store: &Store<DeserializeGuard<MeshInstallation>>, platform: &Platform) -> Installations {
    let readable = |guard: &Arc<DeserializeGuard<MeshInstallation>>| {
        guard.0.as_ref().ok().map(|installation| Arc::new(installation.clone()))
    };
    let mut objects: Vec<_> = store.state().iter().filter_map(readable).collect();
    objects.sort_by_key(|i| (i.creation_timestamp().map(|time| time.0), i.name_any()));
    let mut known = Installations::default();
    for installation in &objects {
        let all = objects.iter().map(AsRef::as_ref);
        let config = || inject_config(installation, all, platform);
        known.inject.entry(installation.spec.revision.clone()).or_insert_with(config);
    }
    known.objects = objects;
    known
}

fn same_specs(a: &Installations, b: &Installations) -> bool {
    let key = |i: &Arc<MeshInstallation>| (i.name_any(), i.metadata.uid.clone(), i.spec.clone());
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
    let owner = operator_role(client).await.map_err(|source| apply::Error::Api {
        action: "read",
        object: format!("ClusterRole {OPERATOR}"),
        source: Box::new(source),
    })?;
    let wanted = webhook::validator(&platform.webhook, &platform.namespace, ca, owner);
    apply::one(client, wanted, &mut Changes::default()).await.map(drop)
}

/// The operator's own ClusterRole as an owner; none where the operator runs outside the cluster.
pub(super) async fn operator_role(client: &Client) -> Result<Option<OwnerReference>, kube::Error> {
    let role = Api::<ClusterRole>::all(client.clone()).get_metadata_opt(OPERATOR).await?;
    Ok(role.map(|role| OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: OPERATOR.to_owned(),
        uid: role.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }))
}
