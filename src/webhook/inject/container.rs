//! The containers and volumes that make a pod part of the mesh, as typed structs. Sidecars and
//! gateways are built here alike.

mod environment;
mod proxy;
mod redirect;
mod security;
mod volumes;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{encoded::Memo, native::NativeSupport, options::Options};
use crate::{
    api::meshwright::{MeshInstallationSpec, Resources, SidecarKind},
    ca::CERTIFICATE_TTL,
};

pub use environment::{WORKLOAD_ENV, escaped, from_field, is_reserved, unescaped, value};
pub use proxy::proxy;
pub use redirect::{redirect, redirect_arguments};
pub use volumes::{is_reserved_path, is_reserved_volume, volumes};

pub const PROXY_CONTAINER: &str = "meshwright-proxy";
pub const REDIRECT_CONTAINER: &str = "meshwright-redirect";
pub const RUN_VOLUME: &str = "meshwright-run";
pub const IDENTITY_VOLUME: &str = "meshwright-identity";
/// The pod's own labels and annotations.
pub const POD_INFO_VOLUME: &str = "meshwright-podinfo";
/// The ConfigMap of the annotation `bootstrap-override`.
pub const BOOTSTRAP_VOLUME: &str = "meshwright-bootstrap";
/// Env of the proxy: the application's own probes by the path under which the agent answers them.
pub const APP_PROBES_ENV: &str = "MESHWRIGHT_APP_PROBES";
/// Env of the proxy: where the application's own metrics are.
pub const APP_METRICS_ENV: &str = "MESHWRIGHT_APP_METRICS";
/// Where the agent answers probes and serves merged metrics.
pub const AGENT_PORT: i32 = 15020;
/// Where the agent says whether the proxy is ready.
pub const HEALTH_PORT: i32 = 15021;
/// Where the agent serves the proxy's metrics with the application's.
pub const MERGED_METRICS_PATH: &str = "/stats/prometheus";
/// ConfigMap with the roots that the control plane's certificate is checked against.
pub const ROOT_CONFIG_MAP: &str = "meshwright-ca-root-cert";

/// What all proxies of a revision have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxySettings {
    /// `HOST:PORT` of the control plane.
    pub discovery_address: String,
    pub trust_domain: String,
    pub cluster_domain: String,
    pub revision: String,
    /// How long certificates are valid.
    pub certificate_lifetime: Duration,
    /// What the installation says about native sidecars, and which nodes have them.
    pub sidecar: SidecarKind,
    pub native: NativeSupport,
    /// Of pods that say nothing else.
    pub defaults: Options,
    /// What was made of all this for the last pod.
    pub memo: Memo,
}

impl ProxySettings {
    /// The settings of an installation, for images and a control plane at these places.
    /// `native_supported`: every node has native sidecars.
    pub fn new(
        spec: &MeshInstallationSpec,
        image: String,
        image_pull_policy: &str,
        discovery_address: String,
        native_supported: bool,
    ) -> Self {
        Self {
            discovery_address,
            trust_domain: spec.trust_domain.clone(),
            cluster_domain: spec.cluster_domain.clone(),
            revision: spec.revision.clone(),
            sidecar: spec.proxy.sidecar,
            native: NativeSupport::default(),
            // What admission let in parses.
            certificate_lifetime: spec.proxy.certificate_lifetime().unwrap_or(CERTIFICATE_TTL),
            defaults: Options::of_installation(spec, image, image_pull_policy, native_supported),
            memo: Memo::default(),
        }
    }
}

/// What a proxy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    /// A gateway.
    Router,
}

/// What is particular to one proxy.
#[derive(Clone, Debug)]
pub struct ProxyIdentity {
    pub role: Role,
    /// Name of the Deployment, StatefulSet, … behind the pod.
    pub workload: String,
}

/// Compute resources of the API's form as Kubernetes' own.
pub fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, IntOrString>| {
        let quantity = |amount: &IntOrString| match amount {
            IntOrString::Int(amount) => Quantity(amount.to_string()),
            IntOrString::String(amount) => Quantity(amount.clone()),
        };
        (!map.is_empty()).then(|| map.iter().map(|(k, v)| (k.clone(), quantity(v))).collect())
    };
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        ..ResourceRequirements::default()
    }
}

pub(super) fn default_resources() -> ResourceRequirements {
    requests("20m", "64Mi")
}

/// Requests without limits: a limit on CPU throttles, one on memory kills.
pub fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let quantity = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", cpu), quantity("memory", memory)].into()),
        ..ResourceRequirements::default()
    }
}

/// Annotations that lead Prometheus to the agent's merged metrics.
pub fn scrape_annotations() -> [(String, String); 3] {
    [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", AGENT_PORT.to_string()),
        ("prometheus.io/path", MERGED_METRICS_PATH.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}
