//! Where traffic goes: what a cluster is, before it is one of Envoy's.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    identity::SpiffeId,
    mesh::{BackendTarget, Collector, EdsName, Host, Key, LoadBalancing},
};

/// Names a cluster; `envoy::names` makes Envoy's name of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterId {
    /// A service's endpoints, or those of one of its subsets, load balanced.
    Service(BackendTarget),
    /// The endpoint of a headless service that the client has picked itself.
    Direct { host: Host, port: u16, meshed: bool },
    /// A service that the proxy itself sends something to.
    Collector(Collector),
    /// Wherever the client wanted to go.
    Passthrough,
    /// Nowhere: connections are closed, requests answered with 503.
    BlackHole,
    /// A backend that does not exist: requests are answered with 500.
    Missing,
}

impl ClusterId {
    pub fn service(host: &Host, port: u16) -> Self {
        Self::Service(BackendTarget { host: host.clone(), port, subset: None })
    }

    /// Whether every proxy has it, whatever its plan.
    pub fn is_well_known(&self) -> bool {
        matches!(self, Self::Passthrough | Self::BlackHole | Self::Missing)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    /// The service that it belongs to, for metrics.
    pub service: Key,
    pub host: Host,
    pub discovery: Discovery,
    pub load_balancing: LoadBalancing,
    pub tls: UpstreamTls,
    /// Who may answer; empty: anybody of the trust domain.
    pub identities: Arc<BTreeSet<SpiffeId>>,
    pub protocol: UpstreamProtocol,
    /// What its statistics are called; `None`: after the cluster.
    pub stat_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    Endpoints(EdsName),
    /// The connection's original destination.
    ClientsChoice,
    /// Names outside the mesh, which the proxy resolves. `first_only`: to one address at a time.
    Dns {
        endpoints: Vec<DnsTarget>,
        first_only: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTarget {
    pub host: Host,
    pub port: u16,
    /// Speaks mesh TLS.
    pub meshed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Mesh TLS to endpoints that speak it, plaintext to others.
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Tcp,
    Http1,
    Http2,
    /// The version that the client speaks.
    AsDownstream,
}
