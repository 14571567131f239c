//! `meshwright.dev`: our own kinds.

mod defaults;
pub mod duration;
mod injection;
pub mod labels;
mod proxy;
mod redirection;
pub mod status;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use injection::{Injection, InjectionPolicy, PartialPod, PodPatch};
pub use proxy::{LogLevel, Proxy, Resources, SidecarKind};
pub use redirection::{Dns, Redirection, RedirectionBackend, RedirectionBy, RedirectionMode};
pub use status::{GatewayStatus, MeshInstallationStatus, ProxyCount};

/// One control plane of the mesh with its gateways and settings. Everything is optional: an empty
/// spec is a working mesh without gateways.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[kube(
    group = "meshwright.dev",
    version = "v1alpha1",
    kind = "MeshInstallation",
    plural = "meshinstallations",
    shortname = "mi",
    category = "mesh",
    status = "MeshInstallationStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One control plane of the mesh, with its gateways and mesh-wide settings",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether the control plane, its gateways and its webhooks work"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version","description":"Version that is in force"}"#,
    printcolumn = r#"{"name":"Proxies","type":"string","jsonPath":".status.proxies.summary","description":"Proxies that are ready, of all of this revision"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.revision","description":"Revision that namespaces and pods choose by label","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshInstallationSpec {
    /// Tag of the images of the control plane and the proxies. The operator's own version if empty.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*$"))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Name under which namespaces and pods choose this control plane. `default` serves all that
    /// choose none. Cannot be changed later.
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "cannot be changed: make a second MeshInstallation and move namespaces to it",
        }])
    )]
    pub revision: String,
    /// Other names of this revision, such as `stable`: what chooses one of them chooses it. `default`
    /// stands for all that choose none. A name that an older MeshInstallation has comes into force
    /// here when that one gives it up: add it here first, then take it out there.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// First part of every identity: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$"))]
    pub trust_domain: String,
    /// DNS suffix of Services in this cluster.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub cluster_domain: String,
    /// The control plane's Deployment.
    pub control_plane: ControlPlane,
    /// The proxies of pods and gateways.
    pub proxy: Proxy,
    /// Which pods get a proxy beyond what their labels say, and what is laid over them.
    pub injection: Injection,
    /// How a pod's traffic gets to its proxy.
    pub redirection: Redirection,
    /// The agent's DNS.
    pub dns: Dns,
    /// Proxies at the edge of the mesh, each a Deployment with a Service.
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name", "namespace"])
    )]
    pub gateways: Vec<Gateway>,
    /// Settings of the whole mesh.
    pub mesh: MeshSettings,
    /// How far Istio's conventions are followed.
    pub compatibility: Compatibility,
}

/// The control plane's Deployment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlane {
    /// How many run. All of them serve; one of them writes status.
    #[schemars(range(min = 1, max = 50))]
    pub replicas: i32,
    /// What each asks for and may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// A proxy at the edge of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the Deployment, the Service and the ServiceAccount.
    #[schemars(length(min = 1, max = 50), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the gateway; the operator's own if empty.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"))]
    pub namespace: String,
    /// Whether traffic enters or leaves the mesh through it.
    #[serde(default)]
    pub kind: GatewayKind,
    /// How many run.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Type of its Service; `LoadBalancer` for ingress and `ClusterIP` for egress if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// Ports of its Service.
    #[serde(default = "defaults::gateway_ports")]
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"])
    )]
    pub ports: Vec<GatewayPort>,
    /// Labels of its pods, which the `selector` of Istio's Gateways matches. They come on top of
    /// `app: NAME`, `istio: ingressgateway` (or `egressgateway`) and `meshwright.dev/gateway: NAME`,
    /// and replace the first two where they have the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Which way traffic goes through a gateway.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum GatewayKind {
    #[default]
    Ingress,
    Egress,
}

/// Types of Services that gateways may have.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum ServiceType {
    LoadBalancer,
    NodePort,
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

impl ServiceType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// A port of a gateway's Service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPort {
    /// Name of the port, unique in the gateway.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Number that clients connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// What clients of the mesh speak to it.
    #[serde(default)]
    pub protocol: GatewayProtocol,
}

/// What is spoken on a gateway's port.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "UPPERCASE")]
pub enum GatewayProtocol {
    Http,
    Http2,
    Grpc,
    Https,
    Tls,
    #[default]
    Tcp,
}

impl GatewayProtocol {
    /// The value of a Service port's `appProtocol`.
    pub fn app_protocol(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// Settings of the whole mesh.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshSettings {
    /// What happens to traffic for destinations that the mesh does not know.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Whether proxies write a line of JSON for each request to standard output.
    pub access_log: bool,
    /// How an endpoint is chosen where no DestinationRule says.
    pub load_balancing: LoadBalancing,
}

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// `ALLOW_ANY` passes it through as it is, `REGISTRY_ONLY` refuses it.
    pub mode: OutboundTrafficMode,
}

/// Modes of [`OutboundTrafficPolicy`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// Ways of choosing an endpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadBalancing {
    RoundRobin,
    #[default]
    LeastRequest,
    Random,
}

/// How far Istio's conventions are followed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Compatibility {
    /// Whether `istio-injection`, `istio.io/rev` and `sidecar.istio.io/inject` mean what our own
    /// labels mean. Turn it off where another mesh owns them.
    pub istio_labels: bool,
}
