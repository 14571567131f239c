//! What the operator made for Gateways, as the watches tell it: enough to see drift, orphans and
//! readiness without asking the API server. A few hundred bytes for each object, where the objects
//! themselves would be tens of thousands.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    core::v1::Service,
};
use kube::{Resource, ResourceExt, core::DeserializeGuard, runtime::reflector::ObjectRef};
use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    api::{
        gateway::{GROUP, Gateway},
        meshwright::PatchedKind,
    },
    operator::{apply::Applicable, gateway_workload::addresses},
};

/// A Gateway, as the controller handles it.
pub(super) type GatewayRef = ObjectRef<DeserializeGuard<Gateway>>;

/// An object that can be made for a Gateway.
pub trait Child: Applicable {
    const KIND: PatchedKind;

    /// What the Gateway's status depends on.
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

impl Child for k8s_openapi::api::core::v1::ServiceAccount {
    const KIND: PatchedKind = PatchedKind::ServiceAccount;
}

impl Child for k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler {
    const KIND: PatchedKind = PatchedKind::HorizontalPodAutoscaler;
}

impl Child for k8s_openapi::api::policy::v1::PodDisruptionBudget {
    const KIND: PatchedKind = PatchedKind::PodDisruptionBudget;
}

impl Child for Service {
    const KIND: PatchedKind = PatchedKind::Service;

    fn facts(&self) -> Facts {
        Facts { addresses: addresses(self), ..Facts::default() }
    }
}

impl Child for Deployment {
    const KIND: PatchedKind = PatchedKind::Deployment;

    fn facts(&self) -> Facts {
        let nothing = DeploymentStatus::default();
        let status = self.status.as_ref().unwrap_or(&nothing);
        let failing = |condition: &&DeploymentCondition| {
            (condition.type_ == "Progressing" && condition.status == "False")
                || (condition.type_ == "ReplicaFailure" && condition.status == "True")
        };
        let failure = status.conditions.iter().flatten().find(failing);
        Facts {
            wanted: self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            available: status.available_replicas.unwrap_or(0),
            failure: failure.map(|found| found.message.clone().unwrap_or_default()),
            ..Facts::default()
        }
    }
}

/// What the status of a Gateway depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub(super) addresses: Vec<String>,
    pub(super) wanted: i32,
    pub(super) available: i32,
    /// Why no pods come, if none can be made.
    pub(super) failure: Option<String>,
}

/// Kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChildKey {
    pub(super) kind: PatchedKind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ChildKey {
    pub(super) fn of<K: Child>(object: &K) -> Self {
        Self {
            kind: K::KIND,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

#[derive(Clone, Debug)]
struct Record {
    /// Name of the Gateway.
    gateway: String,
    /// Of all that others than the object's own controllers change.
    digest: u64,
    /// What was applied last, and the digest of what that led to.
    settled: Option<(u64, u64)>,
    version: Option<u64>,
    /// The round of its watch in which it was last seen.
    round: u32,
    facts: Facts,
}

/// The objects, by the uid of their Gateway.
#[derive(Debug, Default)]
pub(super) struct Children(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_gateway: HashMap<String, HashMap<ChildKey, Record>>,
    rounds: HashMap<PatchedKind, u32>,
}

impl Children {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch begins to list everything anew.
    pub(super) fn begin(&self, kind: PatchedKind) {
        *self.inner().rounds.entry(kind).or_default() += 1;
    }

    /// A watch has listed everything: what it did not name is gone. The Gateways that it was for.
    pub(super) fn end(&self, kind: PatchedKind) -> Vec<GatewayRef> {
        let mut inner = self.inner();
        let round = inner.rounds.get(&kind).copied().unwrap_or_default();
        let mut gone = Vec::new();
        for records in inner.by_gateway.values_mut() {
            records.retain(|key, record| {
                let stays = key.kind != kind || record.round == round;
                if !stays {
                    gone.push(reference(&record.gateway, &key.namespace));
                }
                stays
            });
        }
        inner.by_gateway.retain(|_, records| !records.is_empty());
        gone
    }

    /// A watch showed an object. The Gateway that it was made for, if that is what it is.
    pub(super) fn observe<K: Child>(&self, object: &K) -> Option<GatewayRef> {
        let (gateway, uid) = owner(object)?;
        let key = ChildKey::of(object);
        let found = reference(&gateway, &key.namespace);
        let mut inner = self.inner();
        let round = inner.rounds.get(&K::KIND).copied().unwrap_or_default();
        let records = inner.by_gateway.entry(uid).or_default();
        let settled = records.get(&key).and_then(|record| record.settled);
        records.insert(key, record(object, gateway, settled, round));
        Some(found)
    }

    /// A watch told of the end of an object.
    pub(super) fn forget<K: Child>(&self, object: &K) -> Option<GatewayRef> {
        let (gateway, uid) = owner(object)?;
        let key = ChildKey::of(object);
        let found = reference(&gateway, &key.namespace);
        self.take_out(&uid, &key);
        Some(found)
    }

    pub(super) fn take_out(&self, uid: &str, key: &ChildKey) {
        let mut inner = self.inner();
        if let Some(records) = inner.by_gateway.get_mut(uid) {
            records.remove(key);
            if records.is_empty() {
                inner.by_gateway.remove(uid);
            }
        }
    }

    /// An object was applied, or found to be as it should be; `live` is what the API server has.
    pub(super) fn settle<K: Child>(&self, live: &K, applied: u64) {
        let Some((gateway, uid)) = owner(live) else { return };
        let key = ChildKey::of(live);
        let mut inner = self.inner();
        let round = inner.rounds.get(&K::KIND).copied().unwrap_or_default();
        let mut fresh = record(live, gateway, None, round);
        fresh.settled = Some((applied, fresh.digest));
        let records = inner.by_gateway.entry(uid).or_default();
        match records.get_mut(&key) {
            // The watch was quicker: it has seen what came after.
            Some(seen) if seen.version > fresh.version => seen.settled = fresh.settled,
            _ => drop(records.insert(key, fresh)),
        }
    }

    /// Whether this is what was applied last and nobody has changed it since.
    pub(super) fn is_settled(&self, uid: &str, key: &ChildKey, applied: u64) -> bool {
        let inner = self.inner();
        let record = inner.by_gateway.get(uid).and_then(|records| records.get(key));
        record.is_some_and(|record| record.settled == Some((applied, record.digest)))
    }

    /// Whether the object is there and was made for the Gateway.
    pub(super) fn knows(&self, uid: &str, key: &ChildKey) -> bool {
        self.inner().by_gateway.get(uid).is_some_and(|records| records.contains_key(key))
    }

    /// All that there is of a Gateway.
    pub(super) fn of(&self, uid: &str) -> Vec<ChildKey> {
        let inner = self.inner();
        inner.by_gateway.get(uid).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// What is known about one.
    pub(super) fn facts(&self, uid: &str, kind: PatchedKind) -> Facts {
        let inner = self.inner();
        let mut records = inner.by_gateway.get(uid).into_iter().flatten();
        let found = records.find(|(key, _)| key.kind == kind);
        found.map(|(_, record)| record.facts.clone()).unwrap_or_default()
    }
}

fn record<K: Child>(
    object: &K,
    gateway: String,
    settled: Option<(u64, u64)>,
    round: u32,
) -> Record {
    Record {
        gateway,
        digest: digest(object),
        settled,
        version: object.resource_version().and_then(|version| version.parse().ok()),
        round,
        facts: object.facts(),
    }
}

fn reference(gateway: &str, namespace: &str) -> GatewayRef {
    ObjectRef::new(gateway).within(namespace)
}

/// Name and uid of the Gateway that the object was made for.
pub(super) fn owner<K: Resource>(object: &K) -> Option<(String, String)> {
    let ours = |reference: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        reference.kind == "Gateway"
            && reference.controller == Some(true)
            && reference.api_version.split('/').next() == Some(GROUP)
    };
    let owner = object.owner_references().iter().find(ours)?;
    Some((owner.name.clone(), owner.uid.clone()))
}

/// Of everything in the object that is not reported by the cluster.
fn digest<K: Serialize>(object: &K) -> u64 {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
    }
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    xxh3_64(value.to_string().as_bytes())
}

/// Of what is wanted.
pub(super) fn applied<K: Serialize>(object: &K) -> u64 {
    let value = serde_json::to_value(object).unwrap_or_default();
    xxh3_64(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(version: &str, replicas: i32, available: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-meshwright", "namespace": "shop", "resourceVersion": version,
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                    "name": "web", "uid": "u", "controller": true,
                }],
            },
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": {"availableReplicas": available},
        }))
        .unwrap()
    }

    #[test]
    fn status_is_no_drift_and_the_spec_is() {
        let children = Children::default();
        let key = ChildKey::of(&deployment("1", 1, 0));
        assert!(!children.is_settled("u", &key, 7));
        children.settle(&deployment("1", 1, 0), 7);
        assert!(children.is_settled("u", &key, 7) && !children.is_settled("u", &key, 8));
        children.observe(&deployment("2", 1, 1));
        assert!(children.is_settled("u", &key, 7));
        assert_eq!(children.facts("u", PatchedKind::Deployment).available, 1);
        children.observe(&deployment("3", 5, 1));
        assert!(!children.is_settled("u", &key, 7), "somebody scaled it");
        // An answer that the watch has overtaken.
        children.settle(&deployment("2", 1, 0), 7);
        assert!(!children.is_settled("u", &key, 7));
        assert_eq!(children.facts("u", PatchedKind::Deployment).available, 1);
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone() {
        let children = Children::default();
        children.begin(PatchedKind::Deployment);
        children.observe(&deployment("1", 1, 0));
        assert!(children.end(PatchedKind::Deployment).is_empty());
        children.begin(PatchedKind::Deployment);
        let gone = children.end(PatchedKind::Deployment);
        assert_eq!((gone[0].name.as_str(), gone.len()), ("web", 1));
        assert!(children.of("u").is_empty());
    }

    #[test]
    fn only_what_a_gateway_owns_counts() {
        let children = Children::default();
        let mut other = deployment("1", 1, 0);
        other.metadata.owner_references = None;
        assert!(children.observe(&other).is_none() && children.of("u").is_empty());
        let found = children.observe(&deployment("1", 1, 0)).unwrap();
        assert_eq!(found.namespace.as_deref(), Some("shop"));
        assert!(children.forget(&deployment("1", 1, 0)).is_some() && children.of("u").is_empty());
    }
}
