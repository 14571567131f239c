//! What the operator reports about a MeshInstallation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is in force, and whether it works.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshInstallationStatus {
    /// Generation of the spec that the rest of the status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Image tag that is in force.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// `Ready`, `Progressing`, `Degraded`, `ControlPlaneReady`, `GatewaysReady`, `WebhookReady`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Proxies of this revision.
    pub proxies: ProxyCount,
    /// Gateways of this installation, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayStatus>,
}

/// How many proxies a revision has.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyCount {
    /// Pods that carry a proxy.
    pub total: i32,
    /// Those of them that are ready.
    pub ready: i32,
    /// `READY/TOTAL`, for the column of `kubectl get`.
    pub summary: String,
}

impl ProxyCount {
    pub fn new(ready: i32, total: i32) -> Self {
        Self { total, ready, summary: format!("{ready}/{total}") }
    }
}

impl Default for ProxyCount {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// A gateway of the installation.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Name of the gateway.
    pub name: String,
    /// Namespace that it runs in.
    pub namespace: String,
    /// Where it is reached: an IP address or a host name, empty until there is one.
    pub address: String,
}
