//! The mesh in its own words: what the rest of the pipeline may know.
//!
//! Over 500 lines, because it is one vocabulary and holds hardly any code.

mod config;
mod entry;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

pub use self::config::{
    AccessLog, Collector, DefaultExports, InboundTraffic, Keepalive, LogFormat, LogStream,
    MeshConfig, OutboundTraffic, PathNormalization, TagValue, TlsVersions, Tracer, Tracing,
};
pub use self::entry::{AddressRange, DnsEndpoint, Entry, Resolution};
pub use crate::watch::snapshot::{Key, Labels};
use crate::{diagnostic::ObjectRef, identity::SpiffeId};

/// A fully qualified host name, lower case: `cart.shop.svc.cluster.local`.
pub type Host = Arc<str>;

/// Everything that proxies' configuration is made from. Immutable; rebuilt, never changed.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    pub config: MeshConfig,
    pub services: BTreeMap<Host, Arc<Service>>,
    /// Labels, identity and accepted TLS of the pods that run a proxy, by namespace/pod.
    pub workloads: BTreeMap<Key, Arc<Workload>>,
    /// HTTP routing for hosts, from VirtualServices and HTTPRoutes alike, in order of precedence.
    pub routes: Vec<Arc<HttpRouting>>,
    /// What DestinationRules say, by host; several where visibility differs.
    pub destinations: BTreeMap<Host, Vec<Arc<DestinationPolicy>>>,
    /// What gateways listen on, from Istio's and the Gateway API's Gateways alike.
    pub gateways: Vec<Arc<GatewayServers>>,
    /// What workloads accept: from PeerAuthentications, most specific first.
    pub peer_authentication: Vec<Arc<PeerPolicy>>,
}

/// Who may see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Visibility {
    #[default]
    Everyone,
    Namespaces(BTreeSet<Arc<str>>),
    Nobody,
}

impl Visibility {
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Namespaces(names) => names.contains(namespace),
            Self::Nobody => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What metrics call it: for a host of a ServiceEntry the entry's namespace and the host.
    pub key: Key,
    pub host: Host,
    pub kind: ServiceKind,
    pub ports: Vec<Port>,
    pub visibility: Visibility,
    pub selector: Labels,
    /// What of its endpoints its proxies' listeners and clusters depend on.
    pub shape: EndpointShape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reached at these addresses.
    ClusterIp(Vec<IpAddr>),
    /// Clients resolve and pick endpoints themselves.
    Headless,
    /// An alias: of another service of the mesh where `target` names one, else an outside name.
    ExternalName { target: Host },
    /// Described by a ServiceEntry.
    Entry(Entry),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    /// Empty where the service has one unnamed port.
    pub name: String,
    pub protocol: Protocol,
    /// Fixed number, or name of the pods' container port.
    pub target: crate::watch::snapshot::TargetPort,
}

/// What is spoken on a port, from appProtocol, else the port's name, else found out by looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    /// TLS of the application itself (also `https`): routed by address, never terminated.
    Tls,
    /// The client speaks first, or nobody knows: `tcp`, `mongo`, `redis`, ….
    Tcp,
    /// The server speaks first (`mysql`, `smtp`, …): nothing may wait for the client's first byte.
    ServerFirst,
    /// Not declared: HTTP if the first bytes look like it, else TCP.
    Detect,
    /// Not proxied.
    Udp,
}

impl Protocol {
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }
}

/// The part of a service's endpoints that clusters and listeners depend on. As long as it stays
/// the same, an endpoint change is EDS alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointShape {
    /// Identities that may answer for the service (secure naming).
    pub identities: BTreeSet<SpiffeId>,
    /// Headless services only: each endpoint address with its target port by service port, and
    /// whether it speaks mesh TLS.
    pub headless: Vec<HeadlessEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadlessEndpoint {
    pub address: IpAddr,
    /// The service port that it stands behind, and the port it listens on.
    pub service_port: u16,
    pub port: u16,
    pub meshed: bool,
    /// `spec.hostname` of the pod, for `pod-0.service.namespace` names.
    pub hostname: Option<Arc<str>>,
}

/// All endpoints, by service host.
pub type EndpointTable = BTreeMap<Host, Arc<ServiceEndpoints>>;

/// One service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// By service port.
    pub ports: BTreeMap<u16, Vec<Endpoint>>,
    pub shape: EndpointShape,
    /// Services without an address of their own only: what their names stand for.
    pub resolved: BTreeSet<ResolvedAddress>,
}

/// An address that DNS gives for a service's name, whatever its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvedAddress {
    pub address: IpAddr,
    /// `spec.hostname` of the pod, for `pod-0.service.namespace` names.
    pub hostname: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    pub labels: Arc<Labels>,
    /// Speaks mesh TLS.
    pub meshed: bool,
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    pub locality: Option<Locality>,
    pub state: EndpointState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    Ready,
    /// Still serves, takes no new load while others are ready.
    Draining,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
}

/// Names a set of endpoints by what selects it and nothing else, so that every proxy can share it:
/// `PORT|HOST` or `PORT|HOST|k=v,k2=v2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdsName {
    pub port: u16,
    pub host: Host,
    /// Labels of a subset; empty for all endpoints.
    pub labels: Labels,
}

impl fmt::Display for EdsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.port, self.host)?;
        for (i, (key, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { '|' } else { ',' })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for EdsName {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let mut parts = s.splitn(3, '|');
        let port = parts.next().and_then(|p| p.parse().ok()).ok_or(())?;
        let host = parts.next().filter(|h| !h.is_empty()).ok_or(())?.into();
        let labels = match parts.next() {
            None => Labels::new(),
            Some(text) => text
                .split(',')
                .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
                .collect::<Option<_>>()
                .ok_or(())?,
        };
        Ok(Self { port, host, labels })
    }
}

/// A pod that runs a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub key: Key,
    pub labels: Labels,
    pub name: Arc<str>,
    pub identity: SpiffeId,
    pub addresses: Vec<IpAddr>,
    pub named_ports: BTreeMap<String, u16>,
}

/// HTTP rules for some hosts on the mesh and on gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouting {
    /// Where it was written; for tie-breaks, metrics and status.
    pub origin: ObjectRef,
    /// Full host names or wildcards (`*.example.com`, `*`).
    pub hosts: Vec<Host>,
    /// Whether sidecars apply it, and which namespaces see it.
    pub mesh: Option<Visibility>,
    /// Gateways (by the key of their Gateway object) that apply it.
    pub gateways: Vec<GatewayRef>,
    /// The first rule that matches is taken.
    pub rules: Vec<HttpRule>,
}

/// A Gateway object of either API; `listener` restricts to one listener (Gateway API sectionName).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayRef {
    pub api: GatewayApi,
    pub key: Key,
    pub listener: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayApi {
    Istio,
    Kubernetes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// Shown in access logs and metrics.
    pub name: String,
    /// Alternatives; empty matches everything.
    pub matches: Vec<HttpMatch>,
    pub action: HttpAction,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    pub timeout: Option<std::time::Duration>,
    /// `None`: the mesh's default retries.
    pub retries: Option<Retries>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    pub path: Option<PathMatch>,
    pub ignore_path_case: bool,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    /// Header → match; all must hold. Names in lower case.
    pub headers: Vec<(String, StringMatch)>,
    pub query: Vec<(String, StringMatch)>,
    pub port: Option<u16>,
    /// Empty: all of the routing's gateways and, where `mesh` is set there, the mesh.
    pub gateways: Vec<MatchGateway>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchGateway {
    Mesh,
    Gateway(GatewayRef),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// Any path that begins with it, letter by letter (Istio).
    Prefix(String),
    /// Whole path elements (Gateway API): `/a` matches `/a` and `/a/b`, not `/ab`.
    ElementPrefix(String),
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Regex(String),
    Present,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAction {
    Forward { backends: Vec<Backend>, rewrite: Option<Rewrite> },
    Redirect(Redirect),
    Respond { status: u16, body: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `None` where the destination does not exist: its share is answered with this status (500
    /// for the Gateway API, 503 for Istio's kinds).
    pub target: Result<BackendTarget, u16>,
    pub weight: u32,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendTarget {
    pub host: Host,
    pub port: u16,
    /// Name of a DestinationRule subset.
    pub subset: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub path: Option<PathRewrite>,
    pub authority: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces what the prefix match matched.
    Prefix(String),
    /// Replaces the whole path.
    Full(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub authority: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// 0 turns retries off.
    pub attempts: u32,
    pub per_try_timeout: Option<std::time::Duration>,
    /// Envoy's conditions, comma-separated; empty means the mesh's default ones.
    pub retry_on: String,
}

/// What one DestinationRule says about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationPolicy {
    pub origin: ObjectRef,
    pub namespace: Arc<str>,
    pub visibility: Visibility,
    pub policy: TrafficPolicy,
    /// By name; each inherits the whole policy above and overrides it.
    pub subsets: BTreeMap<String, Subset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    pub labels: Labels,
    pub policy: TrafficPolicy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficPolicy {
    /// `None`: the mesh's default.
    pub load_balancing: Option<LoadBalancing>,
    /// `None`: mutual TLS to endpoints that can, plaintext to others.
    pub tls: Option<ClientTls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadBalancing {
    RoundRobin,
    LeastRequest,
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTls {
    Disable,
    /// Mesh mutual TLS, always.
    Mesh,
}

/// What one Gateway object asks of the gateway pods that take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayServers {
    pub origin: ObjectRef,
    pub api: GatewayApi,
    pub key: Key,
    /// Labels of the pods that take it.
    pub selector: Labels,
    /// Restricts the pods to the Gateway's own namespace (Gateway API).
    pub own_namespace_only: bool,
    pub servers: Vec<GatewayServer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayServer {
    /// Its place in the object's list, where servers may be missing that cannot be served.
    pub index: usize,
    /// Listener name (Gateway API) or port name (Istio).
    pub name: String,
    /// The Service's port; pods listen on `target`.
    pub port: u16,
    /// Hosts with the namespaces whose routes may bind to them (`*` everyone).
    pub hosts: Vec<(Visibility, Host)>,
    pub protocol: GatewayProtocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayProtocol {
    Http {
        redirect_to_https: bool,
    },
    /// TLS terminated with these Secrets; empty where none is usable (then connections are refused).
    /// A key without a namespace means the namespace of the gateway pod: an Istio Gateway selects
    /// pods of any namespace, so only a gateway's own plan can tell.
    Https {
        credentials: Vec<Key>,
    },
}

/// What a PeerAuthentication says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    pub origin: ObjectRef,
    /// The namespace it holds in; `None` for the whole mesh.
    pub namespace: Option<Arc<str>>,
    /// Empty: all pods there.
    pub selector: Labels,
    /// `None`: as the next wider policy says.
    pub mode: Option<PeerTls>,
    pub ports: BTreeMap<u16, Option<PeerTls>>,
}

/// What a workload accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerTls {
    Disabled,
    #[default]
    Permissive,
    Strict,
}

/// A connected proxy, as far as its configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyNode {
    pub role: ProxyRole,
    /// Namespace and pod name.
    pub key: Key,
    pub addresses: Vec<IpAddr>,
    /// As the API server knows them, else as the proxy says.
    pub labels: Labels,
    pub service_account: Arc<str>,
    pub workload: Arc<str>,
    pub interception: Interception,
}

/// How inbound connections come to a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interception {
    /// By address translation: the proxy goes on to the application from an address of its own.
    #[default]
    Redirect,
    /// By a transparent socket: the proxy goes on in its client's name.
    Tproxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyRole {
    Sidecar,
    /// A gateway.
    Router,
}
