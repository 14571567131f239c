//! The control plane's Deployment and what belongs to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaling, DisruptionBudget, ObjectPatch, Placement, Resources};

/// The control plane's Deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.replicas) || !has(self.autoscaling) || (self.replicas >= self.autoscaling.minReplicas && self.replicas <= self.autoscaling.maxReplicas)",
    "message": "replicas must be within what autoscaling may choose: remove one of the two",
    "fieldPath": ".replicas",
}]))]
pub struct ControlPlane {
    /// How many run. All of them serve; one of them writes status.
    /// The profile's number if not given; ignored by what autoscaling decides in between.
    #[schemars(range(min = 1, max = 50))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler decide how many run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How many must stay while nodes are drained. The profile's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// Where they run.
    pub placement: Placement,
    /// What each asks for and may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Laid over the objects of the control plane as strategic merge patches, in this order.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<ObjectPatch>,
}
