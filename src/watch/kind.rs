//! Which kinds are watched, which table of the snapshot each fills, and when a changed object of it
//! is a change at all.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::de::DeserializeOwned;

use super::{
    changes::Changes,
    snapshot::{self, Key, Snapshot, Table},
};
use crate::api::{
    gateway as gateway_api,
    istio::{networking, security},
};

/// A kind of object that the snapshot has a table of.
pub trait Kind:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    type Trimmed: Send + Sync + 'static;

    fn trim(self) -> Self::Trimmed;
    fn table(snapshot: &mut Snapshot) -> &mut Table<Self::Trimmed>;
    /// Whether the table need not even be touched.
    fn is_same(old: Option<&Self::Trimmed>, new: Option<&Self::Trimmed>) -> bool;
    /// What the replacement of `old` by `new` means; nothing, if what is read of it is the same.
    fn changes(
        key: &Key,
        old: Option<&Self::Trimmed>,
        new: Option<&Self::Trimmed>,
        snapshot: &Snapshot,
    ) -> Changes;
}

/// Where an object's trimmed form goes.
pub fn key_of<K: Resource>(object: &K) -> Key {
    let metadata = object.meta();
    Key::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Drops what nobody reads and what changes without meaning.
pub fn trim_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Whether two versions of an object's metadata mean the same to every stage.
fn same_metadata(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.generation == b.generation
        && a.labels == b.labels
        && a.annotations == b.annotations
        && a.creation_timestamp == b.creation_timestamp
        && a.deletion_timestamp == b.deletion_timestamp
        && a.uid == b.uid
}

fn config_if(changed: bool) -> Changes {
    Changes { config: changed, ..Changes::default() }
}

/// Core kinds whose trimmed form is compared whole, and which configuration is made from.
macro_rules! trimmed_kinds {
    ($($kind:ty => $trimmed:ty, $table:ident;)*) => {$(
        impl Kind for $kind {
            type Trimmed = $trimmed;
            fn trim(self) -> Self::Trimmed {
                self.into()
            }
            fn table(snapshot: &mut Snapshot) -> &mut Table<Self::Trimmed> {
                &mut snapshot.$table
            }
            fn is_same(old: Option<&Self::Trimmed>, new: Option<&Self::Trimmed>) -> bool {
                old == new
            }
            fn changes(
                _: &Key,
                old: Option<&Self::Trimmed>,
                new: Option<&Self::Trimmed>,
                _: &Snapshot,
            ) -> Changes {
                config_if(old != new)
            }
        }
    )*};
}

trimmed_kinds! {
    core::Namespace => snapshot::Namespace, namespaces;
    core::Node => snapshot::Node, nodes;
    core::Service => snapshot::Service, services;
    core::Secret => snapshot::TlsSecret, tls_secrets;
}

/// Users' configuration: kept whole; only the specification and meaningful metadata are compared,
/// so that our own writing of a status changes nothing.
macro_rules! configuration_kinds {
    ($($kind:ty => $table:ident;)*) => {$(
        impl Kind for $kind {
            type Trimmed = Self;
            fn trim(mut self) -> Self {
                trim_metadata(&mut self.metadata);
                self
            }
            fn table(snapshot: &mut Snapshot) -> &mut Table<Self> {
                &mut snapshot.$table
            }
            fn is_same(old: Option<&Self>, new: Option<&Self>) -> bool {
                // A new version is kept even if only its status differs: who writes status must
                // know what is there.
                let version = |o: &Self| o.metadata.resource_version.clone();
                old.map(version) == new.map(version)
            }
            fn changes(
                _: &Key,
                old: Option<&Self>,
                new: Option<&Self>,
                _: &Snapshot,
            ) -> Changes {
                config_if(match (old, new) {
                    (Some(old), Some(new)) => {
                        old.spec != new.spec || !same_metadata(&old.metadata, &new.metadata)
                    }
                    (old, new) => old.is_some() || new.is_some(),
                })
            }
        }
    )*};
}

configuration_kinds! {
    networking::VirtualService => virtual_services;
    networking::DestinationRule => destination_rules;
    networking::Gateway => istio_gateways;
    networking::ServiceEntry => service_entries;
    security::PeerAuthentication => peer_authentications;
    gateway_api::GatewayClass => gateway_classes;
    gateway_api::Gateway => gateways;
    gateway_api::HttpRoute => http_routes;
    gateway_api::ReferenceGrant => reference_grants;
}

impl Kind for EndpointSlice {
    type Trimmed = snapshot::EndpointSlice;

    fn trim(self) -> Self::Trimmed {
        self.into()
    }

    fn table(snapshot: &mut Snapshot) -> &mut Table<Self::Trimmed> {
        &mut snapshot.endpoint_slices
    }

    fn is_same(old: Option<&Self::Trimmed>, new: Option<&Self::Trimmed>) -> bool {
        old == new
    }

    fn changes(
        key: &Key,
        old: Option<&Self::Trimmed>,
        new: Option<&Self::Trimmed>,
        _: &Snapshot,
    ) -> Changes {
        if old == new {
            return Changes::default();
        }
        let services = old.into_iter().chain(new).filter(|slice| !slice.service.is_empty());
        let keys = services
            .map(|slice| Key { namespace: key.namespace.clone(), name: slice.service.clone() });
        Changes { endpoints_of: keys.collect(), ..Changes::default() }
    }
}

impl Kind for core::Pod {
    type Trimmed = snapshot::Pod;

    fn trim(self) -> Self::Trimmed {
        self.into()
    }

    fn table(snapshot: &mut Snapshot) -> &mut Table<Self::Trimmed> {
        &mut snapshot.pods
    }

    fn is_same(old: Option<&Self::Trimmed>, new: Option<&Self::Trimmed>) -> bool {
        old == new
    }

    fn changes(
        key: &Key,
        old: Option<&Self::Trimmed>,
        new: Option<&Self::Trimmed>,
        snapshot: &Snapshot,
    ) -> Changes {
        if old == new {
            return Changes::default();
        }
        let finished = |pod: Option<&snapshot::Pod>| pod.is_some_and(|p| p.applications_finished);
        let mut changes = Changes {
            entries: entries_of_pod(key, old, new, snapshot),
            finished: (finished(old) != finished(new)).then(|| key.clone()).into_iter().collect(),
            ..Changes::default()
        };
        // Readiness reaches the endpoints of Services by their EndpointSlice; here it would only make
        // noise.
        let comparable = |pod: &snapshot::Pod| snapshot::Pod {
            ready: false,
            applications_finished: false,
            ..pod.clone()
        };
        if old.map(comparable) != new.map(comparable) {
            changes.endpoints_of = services_of_pod(key, snapshot);
            // Only pods with a proxy are part of what configuration is made from.
            changes.config = old.into_iter().chain(new).any(|pod| pod.meshed);
        }
        changes
    }
}

/// ServiceEntries that select the pod, or did.
fn entries_of_pod(
    key: &Key,
    old: Option<&snapshot::Pod>,
    new: Option<&snapshot::Pod>,
    snapshot: &Snapshot,
) -> BTreeSet<Key> {
    let first = Key { namespace: key.namespace.clone(), name: Arc::from("") };
    let there = snapshot.service_entries.range(first..);
    let there = there.take_while(|(entry, _)| entry.namespace == key.namespace);
    let selecting = there.filter(|(_, entry)| {
        let Some(selector) = &entry.spec.workload_selector else { return false };
        let has = |pod: &snapshot::Pod| {
            selector.labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
        };
        old.into_iter().chain(new).any(has)
    });
    selecting.map(|(entry, _)| entry.clone()).collect()
}

/// Services that have an endpoint on this pod: their endpoints carry its labels and identity.
fn services_of_pod(key: &Key, snapshot: &Snapshot) -> BTreeSet<Key> {
    let first = Key { namespace: key.namespace.clone(), name: Arc::from("") };
    let slices = snapshot
        .endpoint_slices
        .range(first..)
        .take_while(|(slice, _)| slice.namespace == key.namespace);
    let on_pod = slices
        .filter(|(_, slice)| slice.endpoints.iter().any(|e| e.pod.as_deref() == Some(&*key.name)));
    on_pod
        .map(|(_, slice)| Key { namespace: key.namespace.clone(), name: slice.service.clone() })
        .collect()
}
