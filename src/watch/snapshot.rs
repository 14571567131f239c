//! What the control plane knows of the cluster at one moment.
//!
//! Core kinds are trimmed to what later stages read, at the door: a pod of the API server weighs
//! kilobytes, one of these about a hundred bytes. Tables are shared (`Arc`), so a new snapshot
//! costs what changed.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use crate::api::{
    gateway as gateway_api,
    istio::{networking, security},
    meshwright::MeshInstallation,
};

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All objects of one kind, in the order of their keys.
pub type Table<T> = Arc<BTreeMap<Key, Arc<T>>>;
pub type Labels = BTreeMap<String, String>;

/// The cluster as last seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The installation whose revision this control plane serves; `None` outside a cluster.
    pub installation: Option<Arc<MeshInstallation>>,
    /// Namespace that holds mesh-wide policies and the control plane itself.
    pub system_namespace: Arc<str>,
    pub namespaces: Table<Namespace>,
    pub nodes: Table<Node>,
    pub services: Table<Service>,
    pub pods: Table<Pod>,
    pub endpoint_slices: Table<EndpointSlice>,
    /// Secrets of type `kubernetes.io/tls`.
    pub tls_secrets: Table<TlsSecret>,
    pub virtual_services: Table<networking::VirtualService>,
    pub destination_rules: Table<networking::DestinationRule>,
    pub istio_gateways: Table<networking::Gateway>,
    pub service_entries: Table<networking::ServiceEntry>,
    pub peer_authentications: Table<security::PeerAuthentication>,
    pub gateway_classes: Table<gateway_api::GatewayClass>,
    pub gateways: Table<gateway_api::Gateway>,
    pub http_routes: Table<gateway_api::HttpRoute>,
    pub reference_grants: Table<gateway_api::ReferenceGrant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Only the topology labels.
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type: ExternalName` with its target.
    pub external_name: Option<String>,
    /// Empty for headless and ExternalName services.
    pub cluster_ips: Vec<IpAddr>,
    pub headless: bool,
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    /// Annotations that Meshwright reads (`networking.istio.io/exportTo`, …), no others.
    pub annotations: Labels,
    pub labels: Labels,
    pub publish_not_ready: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the service has one unnamed port.
    pub name: String,
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    pub app_protocol: Option<String>,
    pub target: TargetPort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// Named port of the selected pods' containers.
    Name(String),
}

impl Default for TargetPort {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Pod {
    pub labels: Labels,
    pub ips: Vec<IpAddr>,
    pub node: Arc<str>,
    pub service_account: Arc<str>,
    pub host_network: bool,
    /// Whether it carries our sidecar (or is a gateway): its peers may use mutual TLS to it.
    pub meshed: bool,
    /// Name of the workload that owns it (Deployment, StatefulSet, …), or its own.
    pub workload: Arc<str>,
    /// Named container ports, for Services that target by name.
    pub named_ports: BTreeMap<String, u16>,
    pub ready: bool,
    /// Whether all containers but the proxy have ended and will not be started again.
    pub applications_finished: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name of the Service that it belongs to (label `kubernetes.io/service-name`).
    pub service: Arc<str>,
    /// Port name → number; an unnamed port has an empty name.
    pub ports: Vec<(String, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub addresses: Vec<IpAddr>,
    /// The pod behind it, where there is one.
    pub pod: Option<Arc<str>>,
    pub hostname: Option<Arc<str>>,
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// A server certificate for gateways.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSecret {
    /// PEM, leaf first.
    pub certificate: Vec<u8>,
    /// PEM.
    pub private_key: Vec<u8>,
    /// `ca.crt`, where the Secret has one.
    pub ca_certificate: Option<Vec<u8>>,
}

impl fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not reach a log.
        f.debug_struct("TlsSecret").finish_non_exhaustive()
    }
}
