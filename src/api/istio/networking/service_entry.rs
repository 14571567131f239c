//! `ServiceEntry`: services that Kubernetes does not know of.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Unsupported, istio::Status};

/// Hosts that clients of the mesh may use besides the cluster's Services.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "ServiceEntry",
    plural = "serviceentries",
    shortname = "se",
    category = "istio-io",
    category = "networking-istio-io",
    namespaced,
    status = "ServiceEntryStatus",
    printcolumn = r#"{"name":"Hosts","type":"string","description":"The hosts that it describes","jsonPath":".spec.hosts"}"#,
    printcolumn = r#"{"name":"Location","type":"string","description":"Whether they are part of the mesh","jsonPath":".spec.location"}"#,
    printcolumn = r#"{"name":"Resolution","type":"string","description":"How their addresses are found","jsonPath":".spec.resolution"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","description":"Whether all of it takes effect","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Full names, or wildcards such as `*.example.com`. HTTP is told apart by its Host header, TLS
    /// by its server name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Addresses, or ranges such as `10.1.0.0/16`, that clients connect to. By these TCP services on
    /// one port are told apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The ports that clients use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// `MESH_EXTERNAL` (also without this field): outside the mesh, which its mutual TLS is not for.
    /// `MESH_INTERNAL`: part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["MESH_EXTERNAL", "MESH_INTERNAL"]))]
    pub location: Option<String>,
    /// Where connections go: `NONE` (also without this field) where the client wanted to, `STATIC` to
    /// `endpoints` or the pods that `workloadSelector` selects, `DNS` to all addresses of the
    /// endpoints' names or, without endpoints, of the host, `DNS_ROUND_ROBIN` to the address that DNS
    /// names first at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]))]
    pub resolution: Option<String>,
    /// What is behind the hosts; either these or `workloadSelector`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<WorkloadEntry>,
    /// Pods of the object's own namespace that are behind the hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// The namespaces whose clients see it: names, `.` (its own) or `*` (all, also without this
    /// field).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Identities (`spiffe://…`) that may answer for the hosts in mutual TLS of the mesh.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// A port that clients use.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The port, 1 to 65535.
    pub number: u32,
    /// A name for it; endpoints refer to it.
    pub name: String,
    /// `HTTP`, `HTTP2`, `GRPC`, `GRPC-WEB`, `HTTPS`, `TLS`, `TCP`, `MONGO`, `MYSQL`, `REDIS` or `UDP`;
    /// without it the port's name says it, as a Service's does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port of the endpoints, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u32>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// Something that serves the hosts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// An IP address; with resolution by DNS, a name as well.
    pub address: String,
    /// Its ports by the names of the entry's, where they are others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u32>,
    /// Labels, by which subsets of DestinationRules select it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where it is: `REGION/ZONE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// The service account that it runs as in the mesh, in the entry's namespace. It is taken to
    /// speak mutual TLS of the mesh then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// Selects pods.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that they all carry.
    pub labels: BTreeMap<String, String>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unsupported: Unsupported,
}

/// What became of a ServiceEntry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryStatus {
    #[serde(flatten)]
    pub common: Status,
    /// Addresses that hosts without any were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AllocatedAddress>,
}

/// The address that a host was given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocatedAddress {
    pub value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}
