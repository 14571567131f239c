//! What the operator reports about a MeshInstallation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition that the control plane writes, under its own name.
pub const MESH_CONFIGURED: &str = "MeshConfigured";

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
    /// `Ready`, `Progressing`, `Degraded`, and one for each part: `ControlPlaneReady`,
    /// `GatewaysReady`, `WebhookReady`, `ProxiesReady`, `ProxiesSupported` (whether each proxy's version
    /// goes with its control plane's), `DefinitionsReady`, `SpecAccepted` (whether every field of the
    /// spec works), `CertificatesValid` (whether one ends soon), and `MeshConfigured`: whether all of
    /// `spec.mesh` takes effect.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Proxies of this revision.
    pub proxies: ProxyCount,
    /// Gateways of this installation, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayStatus>,
    /// How the renewal of proxies goes, where `spec.fleet` asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Certificates that the mesh cannot do without, by when they end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
}

/// How many proxies a revision has. Counts settle for a moment before they are written, and do not
/// change more often than every few seconds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyCount {
    /// Pods that carry a proxy.
    pub total: i32,
    /// Those of them that are ready.
    pub ready: i32,
    /// Those that run the image that they would get if they were injected now.
    pub current: i32,
    /// Those that run another.
    pub outdated: i32,
    /// Those that refuse a part of their configuration and keep the last one that they accepted.
    pub rejected: i32,
    /// `READY/TOTAL`, for the column of `kubectl get`.
    pub summary: String,
}

impl ProxyCount {
    /// The same with the column of `kubectl get`.
    #[must_use]
    pub fn summarized(self) -> Self {
        Self { summary: format!("{}/{}", self.ready, self.total), ..self }
    }
}

impl Default for ProxyCount {
    fn default() -> Self {
        let none = Self {
            total: 0,
            ready: 0,
            current: 0,
            outdated: 0,
            rejected: 0,
            summary: String::new(),
        };
        none.summarized()
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

/// How the renewal of proxies goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// Version that proxies are brought to.
    pub version: String,
    /// Image that proxies are brought to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// `Waiting`, `Rolling`, `Stopped` or `Done`.
    pub phase: RolloutPhase,
    /// The wave that runs or ran last, from 1.
    pub wave: i32,
    /// How many waves there are, as far as is known.
    pub waves: i32,
    /// `RENEWED/ALL`, for the column of `kubectl get`.
    pub summary: String,
    /// Workloads of the wave that runs, or of the one that failed: `Deployment NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// When the wave began, in RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wave_started: String,
    /// When all workloads of the wave were ready with new proxies, in RFC 3339; empty until then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wave_ended: String,
    /// How many per cent of the requests failed through the wave's proxies before they were renewed;
    /// empty where their metrics could not be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_percent_before: String,
    /// Proxies that are outdated and that nobody but you can renew.
    pub manual: i32,
    /// Why it waits or stopped, in words, with what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Generation of the spec with which it stopped. It goes on when the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at_generation: Option<i64>,
    /// Value of the annotation `meshwright.dev/resume-rollout` when it stopped. It goes on when that
    /// changes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stopped_at_resume: String,
}

/// What a rollout does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum RolloutPhase {
    /// Something must happen before the next wave begins: the message says what.
    #[default]
    Waiting,
    /// A wave runs.
    Rolling,
    /// A wave failed. Nothing more is touched until the spec, or the annotation
    /// `meshwright.dev/resume-rollout`, changes.
    Stopped,
    /// Every proxy that can be renewed is new.
    Done,
}

/// A certificate that the mesh cannot do without.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// `root`, `issuer`, `webhook`, or `proxies` for the first of all proxies' to end.
    pub name: String,
    /// When it ends, in RFC 3339; for `proxies` a twenty-fourth of a certificate's life earlier at most,
    /// because some certificate of a large fleet is always being renewed.
    pub not_after: String,
}
