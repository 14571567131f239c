//! The containers and volumes that make a pod part of the mesh, as typed structs. Sidecars and
//! gateways are built here alike.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        EnvVarSource, ExecAction, HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler,
        ObjectFieldSelector, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
        SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{decide::PROXY_UID, native::NativeSupport, options::Options};
use crate::{
    api::meshwright::{
        MeshInstallationSpec, RedirectionBackend, RedirectionBy, RedirectionMode, Resources,
        SidecarKind,
    },
    ca::CERTIFICATE_TTL,
};

pub const PROXY_CONTAINER: &str = "meshwright-proxy";
pub const REDIRECT_CONTAINER: &str = "meshwright-redirect";
pub const RUN_VOLUME: &str = "meshwright-run";
pub const IDENTITY_VOLUME: &str = "meshwright-identity";
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
const METRICS_PORT: i32 = 15090;
/// ConfigMap with the roots that the control plane's certificate is checked against.
pub const ROOT_CONFIG_MAP: &str = "meshwright-ca-root-cert";
const TOKEN_AUDIENCE: &str = "meshwright-ca";
const TOKEN_SECONDS: i64 = 43_200;
const BINARY: &str = "/usr/local/bin/meshwright";

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
    pub labels: BTreeMap<String, String>,
    /// JSON, as the agent reads it.
    pub app_probes: Option<String>,
    /// JSON, as the agent reads it.
    pub app_metrics: Option<String>,
}

/// How the kubelet learns that the sidecar has started and is ready. The application's containers
/// start after the hook or the startup probe, so the choice sets how much later a pod is Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Startup {
    /// A hook in the container that returns as soon as the agent is ready: no polling by the kubelet.
    PostStartHook,
    /// A probe by the kubelet, once a second at best.
    StartupProbe,
}

const SIDECAR_STARTUP: Startup = Startup::PostStartHook;

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

/// The container with agent and Envoy. For a sidecar it is native: an init container that stays.
pub fn proxy(settings: &ProxySettings, options: &Options, identity: &ProxyIdentity) -> Container {
    let sidecar = identity.role == Role::Sidecar;
    Container {
        name: PROXY_CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(options.image_pull_policy.clone()),
        args: Some(vec!["agent".to_owned()]),
        env: Some(environment(settings, options, identity)),
        ports: Some(vec![ContainerPort {
            name: Some("http-envoy-prom".to_owned()),
            container_port: METRICS_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(options.resources.clone()),
        restart_policy: (sidecar && options.native).then(|| "Always".to_owned()),
        security_context: Some(proxy_security()),
        volume_mounts: Some(mounts()),
        lifecycle: (sidecar
            && (options.native || options.hold)
            && SIDECAR_STARTUP == Startup::PostStartHook)
            .then(post_start),
        startup_probe: (sidecar && SIDECAR_STARTUP == Startup::StartupProbe)
            .then(|| health_probe(1, 600)),
        readiness_probe: Some(health_probe(if sidecar { 5 } else { 2 }, 4)),
        ..Container::default()
    }
}

/// The init container that redirects the pod's traffic to the proxy, or waits until the node's CNI
/// plugin has; `None` where nothing is redirected.
pub fn redirect(options: &Options) -> Option<Container> {
    let mut args = vec!["redirect".to_owned()];
    let security = match (options.redirection.mode, options.redirection.by) {
        (RedirectionMode::None, _) => return None,
        (_, RedirectionBy::InitContainer) => redirect_security(),
        (_, RedirectionBy::Cni) => {
            args.push("--check".to_owned());
            proxy_security()
        }
    };
    args.extend(redirect_arguments(options));
    Some(Container {
        name: REDIRECT_CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(options.image_pull_policy.clone()),
        args: Some(args),
        resources: Some(options.resources.clone()),
        security_context: Some(security),
        ..Container::default()
    })
}

/// What `meshwright redirect` is told, where it differs from what that does by itself.
pub fn redirect_arguments(options: &Options) -> Vec<String> {
    let redirection = &options.redirection;
    let mode = if redirection.mode == RedirectionMode::Tproxy { "tproxy" } else { "redirect" };
    let backend = match redirection.backend {
        RedirectionBackend::Auto => "auto",
        RedirectionBackend::Nftables => "nftables",
        RedirectionBackend::Iptables => "iptables",
    };
    let flags = [
        ("mode", mode, "redirect"),
        ("exclude-inbound-ports", &redirection.exclude_inbound_ports, ""),
        ("exclude-outbound-ports", &redirection.exclude_outbound_ports, ""),
        ("outbound-cidrs", &redirection.outbound_cidrs, "*"),
        ("backend", backend, "auto"),
    ];
    let given = flags.into_iter().filter(|(_, value, default)| value != default);
    given.map(|(flag, value, _)| format!("--{flag}={value}")).collect()
}

fn redirect_security() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        // iptables keeps a lock file under /run.
        read_only_root_filesystem: Some(false),
        capabilities: Some(Capabilities {
            add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

/// The volumes that [`proxy`] mounts.
pub fn volumes(options: &Options) -> Vec<Volume> {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(TOKEN_AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let root = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ROOT_CONFIG_MAP.to_owned(),
            items: Some(vec![KeyToPath {
                key: "root-cert.pem".to_owned(),
                path: "root-cert.pem".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let mut volumes = vec![
        Volume {
            name: RUN_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: IDENTITY_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(0o644),
                sources: Some(vec![token, root]),
            }),
            ..Volume::default()
        },
    ];
    volumes.extend(options.volumes.iter().cloned());
    volumes
}

/// What the proxy may do: nothing that an ordinary program may not.
fn proxy_security() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(PROXY_UID),
        run_as_group: Some(PROXY_UID),
        run_as_non_root: Some(true),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn mounts() -> Vec<VolumeMount> {
    vec![
        VolumeMount {
            name: RUN_VOLUME.to_owned(),
            mount_path: "/var/run/meshwright".to_owned(),
            ..VolumeMount::default()
        },
        VolumeMount {
            name: IDENTITY_VOLUME.to_owned(),
            mount_path: "/var/run/secrets/meshwright".to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    ]
}

fn post_start() -> Lifecycle {
    let command = [BINARY, "agent", "--wait"].map(str::to_owned).to_vec();
    Lifecycle {
        post_start: Some(LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

fn health_probe(period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(HEALTH_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn environment(
    settings: &ProxySettings,
    options: &Options,
    identity: &ProxyIdentity,
) -> Vec<EnvVar> {
    let role = match identity.role {
        Role::Sidecar => "sidecar",
        Role::Router => "router",
    };
    // A map of strings always has a JSON form.
    let labels = serde_json::to_string(&identity.labels).unwrap_or_default();
    let mut env = vec![
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_NAMESPACE", "metadata.namespace"),
        from_field("POD_IP", "status.podIP"),
        from_field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        from_field("NODE_NAME", "spec.nodeName"),
        value("MESHWRIGHT_ROLE", role),
        value("MESHWRIGHT_DISCOVERY_ADDRESS", &settings.discovery_address),
        value("MESHWRIGHT_TRUST_DOMAIN", &settings.trust_domain),
        value("MESHWRIGHT_CLUSTER_DOMAIN", &settings.cluster_domain),
        value("MESHWRIGHT_REVISION", &settings.revision),
        value("MESHWRIGHT_LABELS", &labels),
        value("MESHWRIGHT_WORKLOAD", &identity.workload),
        value("MESHWRIGHT_PROXY_LOG_LEVEL", &options.logs.proxy),
        value("MESHWRIGHT_DRAIN_SECONDS", &options.drain_seconds.to_string()),
        value(
            "MESHWRIGHT_CERTIFICATE_SECONDS",
            &settings.certificate_lifetime.as_secs().to_string(),
        ),
        value("MESHWRIGHT_CONCURRENCY", &options.concurrency.to_string()),
    ];
    env.extend(identity.app_probes.as_deref().map(|probes| value(APP_PROBES_ENV, probes)));
    env.extend(identity.app_metrics.as_deref().map(|metrics| value(APP_METRICS_ENV, metrics)));
    env
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(escaped(value)), value_from: None }
}

/// The kubelet expands `$(NAME)` in values; what we write is meant literally.
fn escaped(value: &str) -> String {
    value.replace("$(", "$$(")
}

/// A variable that the kubelet fills from a field of the pod.
pub fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
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
