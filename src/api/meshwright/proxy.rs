//! The proxies of pods and gateways: the defaults of what an annotation can set for one pod.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// The proxies of pods and gateways.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Image of the proxies; the one of the installation's version if empty.
    #[schemars(length(max = 512))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Secrets that pods with a proxy get to pull its image with. They must exist in each namespace.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// What each asks for and may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What Envoy and its agent write to standard error.
    pub log_level: LogLevel,
    /// Log levels of parts of Envoy, such as `upstream:debug,connection:trace`.
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^([a-z0-9_]+:[a-z]+(,[a-z0-9_]+:[a-z]+)*)?$")
    )]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub component_log_level: String,
    /// Worker threads of Envoy; 0: as many as its limit of CPUs allows, or one for each CPU of the
    /// node where it has no limit.
    #[schemars(range(min = 0, max = 256))]
    pub concurrency: i32,
    /// How the proxy runs beside the application.
    pub sidecar: SidecarKind,
    /// Whether the application of a `Classic` sidecar starts only when the proxy is ready. That of a
    /// `Native` one always does.
    pub hold_application_until_proxy_starts: bool,
    /// Whether the application's HTTP, TCP and gRPC probes and lifecycle handlers go through the
    /// agent. Without it, probes fail where mutual TLS is required.
    pub rewrite_app_probes: bool,
    /// Whether the agent's metrics include the application's, so that one scrape gets both.
    pub merge_metrics: bool,
    /// How long a proxy that is told to stop lets open connections finish.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i32,
    /// How long a certificate is valid: hours, minutes and seconds, such as `24h` or `1h30m`. It is
    /// renewed at half of it.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+[hms])+$"))]
    pub certificate_ttl: String,
    /// Environment variables of the proxies, as Istio's `proxyMetadata`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Proxy {
    /// The lifetime of certificates; `None` where the text does not say one.
    pub fn certificate_lifetime(&self) -> Option<Duration> {
        duration::parse(&self.certificate_ttl)
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            image: String::new(),
            image_pull_secrets: Vec::new(),
            resources: None,
            log_level: LogLevel::default(),
            component_log_level: String::new(),
            concurrency: 2,
            sidecar: SidecarKind::default(),
            hold_application_until_proxy_starts: true,
            rewrite_app_probes: true,
            merge_metrics: true,
            drain_seconds: 5,
            certificate_ttl: "24h".to_owned(),
            metadata: BTreeMap::new(),
        }
    }
}

/// How a proxy runs beside the application.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum SidecarKind {
    /// Native where every node's Kubernetes has native sidecars by default (1.29 and later), classic
    /// otherwise.
    #[default]
    Auto,
    /// An init container that stays: it starts before the application and ends after it.
    Native,
    /// An ordinary container.
    Classic,
}

/// Compute resources as in a container, by resource name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What is set aside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What may be used at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// Envoy's log levels.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[default]
    Warning,
    Error,
    Critical,
    Off,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }
}
