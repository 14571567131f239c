//! What control planes and gateways have in common: where they run, how many, and what is laid over
//! their objects.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::util::intstr::IntOrString,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PartialObject;

/// Where pods run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not keep the pods away.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Nodes and neighbours that are wanted or unwanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods are spread over nodes and zones. A constraint without a selector is about the pods of
    /// this workload. Over nodes, where there are several pods and nothing is said.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pods.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority_class_name: String,
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "minReplicas must not be more than maxReplicas",
}]))]
pub struct Autoscaling {
    /// How many run at least.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// How many run at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// CPU that pods use on average, in percent of what they ask for, at which more are started.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_cpu_percent: Option<i32>,
    /// The same for memory.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_memory_percent: Option<i32>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 5,
            target_cpu_percent: Some(80),
            target_memory_percent: None,
        }
    }
}

/// A PodDisruptionBudget: how many pods of a workload must stay while nodes are drained.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.minAvailable) != has(self.maxUnavailable)",
    "message": "give either minAvailable or maxUnavailable",
}]))]
pub struct DisruptionBudget {
    /// A number or a percentage of pods that stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// A number or a percentage of pods that may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// A strategic merge patch for one of a workload's objects.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPatch {
    /// Which of the workload's objects.
    pub kind: PatchedKind,
    /// Any part of it.
    pub patch: PartialObject,
}

/// Objects of a workload that can be patched.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum PatchedKind {
    Deployment,
    Service,
    ServiceAccount,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
}
