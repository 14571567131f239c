//! What one pod's proxy shall be like: the installation's defaults, and what the pod says otherwise.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Volume, VolumeMount};

use super::container;
use crate::api::meshwright::{
    MeshInstallationSpec, Redirection, RedirectionBackend, RedirectionBy, RedirectionMode,
    SidecarKind,
};

/// Everything about a proxy that an annotation can change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub image: String,
    pub image_pull_policy: String,
    pub image_pull_secrets: Vec<String>,
    pub resources: ResourceRequirements,
    /// Worker threads; 0: from the limit of CPUs, else one for each CPU.
    pub concurrency: i32,
    pub logs: Logs,
    /// Whether the proxy is an init container that stays.
    pub native: bool,
    /// Whether the application waits for the proxy, where that is not native.
    pub hold: bool,
    pub drain_seconds: i32,
    /// Whether the application's probes and lifecycle handlers go through the agent.
    pub rewrite_probes: bool,
    pub readiness: ReadinessOptions,
    /// Whether the agent's metrics include the application's.
    pub merge_metrics: bool,
    pub redirection: RedirectOptions,
    /// Whether the agent answers the application's DNS questions.
    pub dns_capture: bool,
    /// Environment variables of the proxy and of the container that redirects.
    pub metadata: BTreeMap<String, String>,
    /// The user's volumes for the proxy.
    pub volumes: Vec<Volume>,
    pub volume_mounts: Vec<VolumeMount>,
}

/// Log levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    pub proxy: String,
    /// `COMPONENT:LEVEL,…`
    pub components: String,
    pub agent: String,
}

/// How the kubelet asks whether the proxy is ready. `None`: what suits the role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadinessOptions {
    /// The kubelet does not ask at all.
    pub disabled: bool,
    pub initial_delay_seconds: Option<i32>,
    pub period_seconds: Option<i32>,
    pub failure_threshold: Option<i32>,
}

/// How the pod's traffic gets to the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectOptions {
    pub mode: RedirectionMode,
    pub by: RedirectionBy,
    pub backend: RedirectionBackend,
    /// `*`, or a list with commas; empty captures nothing.
    pub inbound_ports: String,
    pub exclude_inbound_ports: String,
    pub outbound_cidrs: String,
    pub exclude_outbound_cidrs: String,
    /// Captured wherever they lead, even if the range is not.
    pub outbound_ports: String,
    pub exclude_outbound_ports: String,
    pub exclude_interfaces: String,
    /// Virtual interfaces, of a virtual machine in the pod say: what comes from them is outbound.
    pub reroute_interfaces: String,
    pub drop_invalid: bool,
}

impl Options {
    /// What an installation says about all its proxies. `image`: of the installation's version;
    /// `native_supported`: every node has native sidecars.
    pub fn of_installation(
        spec: &MeshInstallationSpec,
        image: String,
        image_pull_policy: &str,
        native_supported: bool,
    ) -> Self {
        let proxy = &spec.proxy;
        Self {
            image: if proxy.image.is_empty() { image } else { proxy.image.clone() },
            image_pull_policy: image_pull_policy.to_owned(),
            image_pull_secrets: proxy.image_pull_secrets.clone(),
            resources: proxy
                .resources
                .as_ref()
                .map_or_else(container::default_resources, container::resources),
            concurrency: proxy.concurrency,
            logs: Logs {
                proxy: proxy.log_level.as_str().to_owned(),
                components: proxy.component_log_level.clone(),
                agent: String::new(),
            },
            native: match proxy.sidecar {
                SidecarKind::Auto => native_supported,
                SidecarKind::Native => true,
                SidecarKind::Classic => false,
            },
            hold: proxy.hold_application_until_proxy_starts,
            drain_seconds: proxy.drain_seconds,
            rewrite_probes: proxy.rewrite_app_probes,
            readiness: ReadinessOptions::default(),
            merge_metrics: proxy.merge_metrics,
            redirection: RedirectOptions::of_installation(&spec.redirection),
            dns_capture: spec.dns.capture,
            metadata: proxy.metadata.clone(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
        }
    }
}

impl RedirectOptions {
    fn of_installation(redirection: &Redirection) -> Self {
        let ports = |ports: &[i32]| ports.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        Self {
            mode: redirection.mode,
            by: redirection.by,
            backend: redirection.backend,
            inbound_ports: "*".to_owned(),
            exclude_inbound_ports: ports(&redirection.exclude_inbound_ports),
            outbound_cidrs: redirection
                .include_outbound_cidrs
                .as_ref()
                .map_or_else(|| "*".to_owned(), |cidrs| cidrs.join(",")),
            exclude_outbound_cidrs: redirection.exclude_outbound_cidrs.join(","),
            outbound_ports: String::new(),
            exclude_outbound_ports: ports(&redirection.exclude_outbound_ports),
            exclude_interfaces: String::new(),
            reroute_interfaces: String::new(),
            drop_invalid: redirection.drop_invalid,
        }
    }
}
