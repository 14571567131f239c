//! Kubernetes Gateway API kinds (`gateway.networking.k8s.io`), trimmed to what we act on and
//! lenient: what an implementation does not know must become a status condition, not a parse error.
//!
//! The CustomResourceDefinitions are the upstream project's, which every implementation shares; these
//! types only read the objects and write their status.

pub mod class;
pub mod http_route;
pub mod listener;
pub mod reference_grant;

pub use class::{GatewayClass, GatewayClassSpec, GatewayClassStatus};
pub use http_route::{HttpRoute, HttpRouteSpec, HttpRouteStatus, RouteParentStatus};
pub use listener::{Gateway, GatewaySpec, GatewayStatus, ListenerStatus};
pub use reference_grant::{ReferenceGrant, ReferenceGrantSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group of all these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// What a GatewayClass names to have its Gateways served by Meshwright.
pub const CONTROLLER_NAME: &str = "meshwright.dev/gateway-controller";
/// Label of the pods that serve a Gateway of the Gateway API.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// Reasons of the condition `Accepted` of a Gateway that the operator writes, which reads what the
/// control plane does not. The control plane leaves them standing.
pub const OPERATOR_REASONS: [&str; 2] = ["InvalidParameters", "UnsupportedAddress"];

/// The value of [`GATEWAY_NAME_LABEL`] for a Gateway, whose name may be longer than a label's value.
pub fn name_label(gateway: &str) -> String {
    const LONGEST: usize = 63;
    if gateway.len() <= LONGEST {
        return gateway.to_owned();
    }
    let hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(gateway.as_bytes()));
    let kept: String = gateway.chars().take(LONGEST - 9).collect();
    format!("{}-{}", kept.trim_end_matches(['-', '.']), &hash[..8])
}

/// The Service of this namespace that a host name stands for: `NAME`, `NAME.NAMESPACE` or
/// `NAME.NAMESPACE.svc.DOMAIN`.
pub fn service_of_host(host: &str, namespace: &str) -> Option<String> {
    let mut parts = host.split('.');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let same = parts.next().is_none_or(|given| given == namespace);
    let service = parts.next().is_none_or(|given| given == "svc");
    (same && service).then(|| name.to_owned())
}

/// What a route attaches to: a Gateway, one of its listeners, or a Service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ParentReference {
    /// Whether it names an object of this group and kind; a Gateway is meant where nothing is said.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group.as_deref().unwrap_or(GROUP) == group
            && self.kind.as_deref().unwrap_or("Gateway") == kind
    }
}

/// A Secret that a listener takes its certificate from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

/// A kind of route.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteGroupKind {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub kind: String,
}
