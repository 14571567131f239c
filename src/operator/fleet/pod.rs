//! A pod as far as the fleet looks at it. The API server's answer is read straight into this: a whole
//! pod is tens of kilobytes in memory, and ten thousand of them come at once when the operator starts.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::proxy::ProxyKind;
use crate::webhook::inject::{self, container::PROXY_CONTAINER};

/// A pod, of which most is not read.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = "Pod")]
#[serde(default)]
pub struct InjectedPod {
    #[serde(deserialize_with = "read_metadata")]
    pub metadata: ObjectMeta,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub init_containers: Vec<ProxyContainer>,
    pub containers: Vec<ProxyContainer>,
}

/// A container of any kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyContainer {
    pub name: String,
    pub image: String,
    pub restart_policy: Option<String>,
    pub env: Vec<Variable>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub phase: String,
    pub conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodCondition {
    pub r#type: String,
    pub status: String,
}

/// The part of the metadata that anybody here reads; managed fields are the largest of the rest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<OwnerReference>,
}

fn read_metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let read = Metadata::deserialize(from)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        labels: Some(read.labels),
        annotations: Some(read.annotations),
        owner_references: Some(read.owner_references),
        ..ObjectMeta::default()
    })
}

impl InjectedPod {
    /// The proxy's container, and how it runs.
    pub fn proxy(&self) -> Option<(&ProxyContainer, ProxyKind)> {
        let find = |containers: &'_ [ProxyContainer]| {
            containers.iter().position(|container| container.name == PROXY_CONTAINER)
        };
        if let Some(at) = find(&self.spec.init_containers) {
            return Some((&self.spec.init_containers[at], ProxyKind::NativeSidecar));
        }
        let proxy = &self.spec.containers[find(&self.spec.containers)?];
        let mut env = proxy.env.iter();
        let router = env.any(|v| v.name == "MESHWRIGHT_ROLE" && v.value == "router");
        let kind = if router { ProxyKind::Gateway } else { ProxyKind::ClassicSidecar };
        Some((proxy, kind))
    }

    /// Whether nothing runs in it any more.
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
    }

    /// What somebody broke in it after injection, in words.
    pub fn damage(&self) -> Option<String> {
        let containers = |of: &[ProxyContainer]| {
            let container = |c: &ProxyContainer| Container {
                name: c.name.clone(),
                restart_policy: c.restart_policy.clone(),
                ..Container::default()
            };
            of.iter().map(container).collect::<Vec<_>>()
        };
        inject::damage(&Pod {
            metadata: ObjectMeta {
                annotations: self.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                init_containers: Some(containers(&self.spec.init_containers)),
                containers: containers(&self.spec.containers),
                ..PodSpec::default()
            }),
            status: None,
        })
    }
}

/// Kind and name of whoever would make the pod anew.
pub fn workload(pod: &ObjectMeta) -> Option<(&str, &str)> {
    let owners = pod.owner_references.iter().flatten();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
    // A ReplicaSet of a Deployment is named after it and the hash of its template.
    let deployment = || {
        let hash = pod.labels.as_ref()?.get("pod-template-hash")?;
        owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')
    };
    match owner.kind.as_str() {
        "ReplicaSet" => match deployment() {
            Some(name) => Some(("Deployment", name)),
            None => Some(("ReplicaSet", &owner.name)),
        },
        kind => Some((kind, &owner.name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> InjectedPod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn tells_the_three_kinds_of_proxies_apart() {
        let proxy = json!({"name": PROXY_CONTAINER, "image": "proxy:1"});
        let mut router = proxy.clone();
        router["env"] = json!([
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "MESHWRIGHT_ROLE", "value": "router"},
        ]);
        let kind = |spec: Value| pod(json!({"spec": spec})).proxy().map(|(_, kind)| kind);
        let native = json!({"containers": [{"name": "web"}], "initContainers": [proxy]});
        assert_eq!(kind(native), Some(ProxyKind::NativeSidecar));
        let classic = json!({"containers": [{"name": "web"}, proxy]});
        assert_eq!(kind(classic), Some(ProxyKind::ClassicSidecar));
        assert_eq!(kind(json!({"containers": [router]})), Some(ProxyKind::Gateway));
        assert_eq!(kind(json!({"containers": [{"name": "web"}]})), None);
    }

    #[test]
    fn finds_who_would_make_a_pod_anew() {
        let owned = |kind: &str, name: &str, hash: &str| {
            pod(json!({"metadata": {
                "labels": {"pod-template-hash": hash},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                    {"apiVersion": "v1", "kind": kind, "name": name, "uid": "2", "controller": true},
                ],
            }}))
            .metadata
        };
        for (kind, name, expected) in [
            ("ReplicaSet", "web-5d4f", ("Deployment", "web")),
            ("ReplicaSet", "alone", ("ReplicaSet", "alone")),
            ("StatefulSet", "db", ("StatefulSet", "db")),
            ("DaemonSet", "log", ("DaemonSet", "log")),
            ("Job", "backup-29261510", ("Job", "backup-29261510")),
            ("ReplicationController", "old-3", ("ReplicationController", "old-3")),
        ] {
            assert_eq!(workload(&owned(kind, name, "5d4f")), Some(expected));
        }
        assert_eq!(workload(&pod(json!({"metadata": {"name": "bare"}})).metadata), None);
    }

    #[test]
    fn names_what_somebody_broke() {
        let mut broken = json!({
            "metadata": {"annotations": {"meshwright.dev/status": "{}"}},
            "spec": {"containers": [{"name": "web"}], "initContainers": [{"name": PROXY_CONTAINER}]},
        });
        let damage = pod(broken.clone()).damage().unwrap();
        assert!(damage.contains("restartPolicy: Always"), "{damage}");
        broken["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
        assert_eq!(pod(broken).damage(), None);
    }
}
