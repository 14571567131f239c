//! `meshwright.dev`: our own kinds.

mod control_plane;
mod defaults;
pub mod duration;
pub mod fleet;
mod gateway;
mod injection;
pub mod labels;
pub mod mesh;
mod profile;
mod proxy;
mod redirection;
pub mod status;
mod workload;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use control_plane::ControlPlane;
pub use fleet::{FleetPolicy, FleetStrategy};
pub use gateway::{
    ExternalTrafficPolicy, Gateway, GatewayKind, GatewayPort, GatewayProtocol, GatewayService,
    InternalTrafficPolicy, IpFamily, IpFamilyPolicy, ServiceType,
};
pub use injection::{Injection, InjectionPolicy, PartialObject, PodPatch};
pub use mesh::{LoadBalancing, MeshSettings, OutboundTrafficMode, OutboundTrafficPolicy};
pub use profile::Profile;
pub use proxy::{LogLevel, Proxy, Resources, SidecarKind};
pub use redirection::{Dns, Redirection, RedirectionBackend, RedirectionBy, RedirectionMode};
pub use status::{
    CertificateStatus, GatewayStatus, MeshInstallationStatus, ProxyCount, RolloutPhase,
    RolloutStatus,
};
pub use workload::{Autoscaling, DisruptionBudget, ObjectPatch, PatchedKind, Placement};

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
    printcolumn = r#"{"name":"Outdated","type":"integer","jsonPath":".status.proxies.outdated","description":"Proxies of another version than the one in force"}"#,
    printcolumn = r#"{"name":"Rollout","type":"string","jsonPath":".status.rollout.summary","description":"Proxies that run the image of this version, of all that there are, where spec.fleet asks for their renewal"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.revision","description":"Revision that namespaces and pods choose by label"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.rollout.phase","description":"What the renewal of proxies does: Waiting, Rolling, Stopped or Done","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready or not","priority":1}"#,
    printcolumn = r#"{"name":"Profile","type":"string","jsonPath":".spec.profile","description":"What holds where the spec says nothing","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.tags) || !(self.revision in self.tags)",
    "message": "the revision is a name of its own and must not be among the tags",
    "fieldPath": ".tags",
}]))]
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
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What holds where the rest says nothing: how much runs, and how much it tells.
    pub profile: Profile,
    /// First part of every identity: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`. Cannot
    /// be changed later: until the last certificate is renewed, proxies would refuse each other.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "cannot be changed: proxies of the old and of the new trust domain would refuse each other",
        }])
    )]
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
    /// How running proxies come to a new version.
    pub fleet: FleetPolicy,
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

/// How far Istio's conventions are followed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Compatibility {
    /// Whether `istio-injection`, `istio.io/rev` and `sidecar.istio.io/inject` mean what our own
    /// labels mean. Turn it off where another mesh owns them.
    pub istio_labels: bool,
}
