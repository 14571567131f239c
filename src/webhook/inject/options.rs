//! What one pod's proxy shall be like: the installation's defaults, and what the pod says otherwise.

pub mod amounts;
mod bad;
pub mod document;
pub mod form;
pub mod metadata;
mod pod;
mod proxy_config;
pub mod table;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Volume, VolumeMount};

use super::container;
use crate::{
    agent::stats::StatsOptions,
    api::meshwright::{
        MeshInstallationSpec, Redirection, RedirectionBackend, RedirectionBy, RedirectionMode,
        SidecarKind,
    },
};

pub use bad::BadOption;
pub use pod::Chosen;

/// Everything about a proxy that an annotation can change.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a choice of its own, as annotations are"
)]
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
    /// How long a drain takes at least, where that is not left to the proxy's role.
    pub min_drain_seconds: Option<i32>,
    /// How long Envoy lets connections of a listener that has changed finish; as long as the drain
    /// if not given.
    pub listener_drain_seconds: Option<i32>,
    /// Whether the agent ends when the application has: classic sidecars of Jobs.
    pub watch_completion: bool,
    /// Whether the application's probes and lifecycle handlers go through the agent.
    pub rewrite_probes: bool,
    pub readiness: ReadinessOptions,
    /// Whether the agent's metrics include the application's.
    pub merge_metrics: bool,
    pub redirection: RedirectOptions,
    /// Whether the agent answers the application's DNS questions.
    pub dns_capture: bool,
    /// Whether the proxy may listen on ports below 1024 by a capability.
    pub net_bind_service: bool,
    /// `HOST:PORT` of another control plane than the revision's.
    pub discovery_address: Option<String>,
    /// The network that the pod is in, of meshes with several.
    pub network: Option<String>,
    /// ConfigMap with a part of Envoy's bootstrap.
    pub bootstrap_override: Option<String>,
    /// Envoy's runtime flags.
    pub runtime: BTreeMap<String, String>,
    pub stats: StatsOptions,
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
    /// Where the agent answers instead of on port 15021.
    pub port: Option<u16>,
    pub initial_delay_seconds: Option<i32>,
    pub period_seconds: Option<i32>,
    pub failure_threshold: Option<i32>,
}

/// How the pod's traffic gets to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub interfaces: String,
    pub exclude_interfaces: String,
    /// Virtual interfaces, of a virtual machine in the pod say: what comes from them is outbound.
    pub reroute_interfaces: String,
    /// Users and groups of the application whose outbound traffic is captured.
    pub outbound_uids: String,
    pub exclude_outbound_uids: String,
    pub outbound_gids: String,
    pub exclude_outbound_gids: String,
    pub drop_invalid: bool,
}

/// Everything is captured.
impl Default for RedirectOptions {
    fn default() -> Self {
        let all = || "*".to_owned();
        Self {
            mode: RedirectionMode::default(),
            by: RedirectionBy::default(),
            backend: RedirectionBackend::default(),
            inbound_ports: all(),
            exclude_inbound_ports: String::new(),
            outbound_cidrs: all(),
            exclude_outbound_cidrs: String::new(),
            outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            interfaces: all(),
            exclude_interfaces: String::new(),
            reroute_interfaces: String::new(),
            outbound_uids: all(),
            exclude_outbound_uids: String::new(),
            outbound_gids: all(),
            exclude_outbound_gids: String::new(),
            drop_invalid: false,
        }
    }
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
        let mut options = Self {
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
            merge_metrics: proxy.merge_metrics,
            redirection: RedirectOptions::of_installation(&spec.redirection),
            dns_capture: spec.dns.capture,
            ..Self::default()
        };
        for (name, value) in &proxy.metadata {
            // What admission let in is accepted; what it would not let in is no more than a variable.
            let _ = metadata::apply(&mut options, name, value);
        }
        options
    }

    /// The part of [`Self::metadata`] that Envoy's node carries, by Istio's convention for names.
    pub fn node_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.metadata.iter();
        named.filter_map(|(name, value)| Some((name.strip_prefix("ISTIO_META_")?, value.as_str())))
    }
}

impl RedirectOptions {
    fn of_installation(redirection: &Redirection) -> Self {
        let ports = |ports: &[i32]| ports.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        Self {
            mode: redirection.mode,
            by: redirection.by,
            backend: redirection.backend,
            exclude_inbound_ports: ports(&redirection.exclude_inbound_ports),
            outbound_cidrs: redirection
                .include_outbound_cidrs
                .as_ref()
                .map_or_else(|| "*".to_owned(), |cidrs| cidrs.join(",")),
            exclude_outbound_cidrs: redirection.exclude_outbound_cidrs.join(","),
            exclude_outbound_ports: ports(&redirection.exclude_outbound_ports),
            drop_invalid: redirection.drop_invalid,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
