//! `Gateway`: what gateway pods listen on.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Unsupported, istio::Status};

/// What the gateway pods that it selects listen on.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Gateway",
    plural = "gateways",
    shortname = "gw",
    category = "istio-io",
    category = "networking-istio-io",
    namespaced,
    status = "Status",
    printcolumn = r#"{"name":"Ready","type":"string","description":"Whether all of it takes effect","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Labels of the gateway pods that take it, in any namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// What they listen on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// One port and the hosts served there.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// A name for people; no two servers of a gateway share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port of the gateway's Service.
    pub port: Port,
    /// Hosts that routes can bind to: `HOST` or `NAMESPACE/HOST`, with `*`, `.` (the Gateway's own
    /// namespace) and wildcards such as `*.example.com`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How TLS is terminated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// A port of the gateway's Service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The number of the Service's port.
    pub number: u16,
    /// `HTTP` (also `HTTP2`, `GRPC`) or `HTTPS`.
    pub protocol: String,
    /// A name for people.
    pub name: String,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// TLS from the gateway's side.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// `SIMPLE`: the gateway shows a certificate and asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"]))]
    pub mode: Option<String>,
    /// The Secret of type `kubernetes.io/tls` with the certificate, in the gateway pods' namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_name: Option<String>,
    /// Answers every plaintext request with a redirect to https (on HTTP ports).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<bool>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}
