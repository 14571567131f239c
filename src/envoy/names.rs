//! The one place that makes Envoy's names. They are part of our interface: metrics, logs and people
//! see them.

use std::net::IpAddr;

use crate::{
    mesh::{Collector, Key},
    plan::{ClusterId, TableName},
};

pub const PASSTHROUGH: &str = "PassthroughCluster";
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Never exists: what Envoy says to a route that names it, the route chooses.
pub const MISSING: &str = "MissingBackend";
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// What every mesh SNI ends in: inbound listeners know mesh TLS by it.
pub const MESH_SNI_SUFFIX: &str = ".mesh.internal";

/// Stands where a subset's name would: endpoints that the client has picked itself. Subsets are DNS
/// labels, so none can be called like this.
const DIRECT_MESHED: &str = "~direct-tls";
const DIRECT_PLAIN: &str = "~direct";
/// The same for services that the proxy itself sends something to, which may be others' as well.
const COLLECTOR: &str = "~collector";
const GRPC_COLLECTOR: &str = "~collector-grpc";

pub fn cluster(id: &ClusterId) -> String {
    match id {
        ClusterId::Service(target) => {
            let subset = target.subset.as_deref().unwrap_or_default();
            format!("outbound|{}|{subset}|{}", target.port, target.host)
        }
        ClusterId::Direct { host, port, meshed } => {
            let variant = if *meshed { DIRECT_MESHED } else { DIRECT_PLAIN };
            format!("outbound|{port}|{variant}|{host}")
        }
        ClusterId::Collector(collector) => self::collector(collector),
        ClusterId::Passthrough => PASSTHROUGH.to_owned(),
        ClusterId::BlackHole => BLACK_HOLE.to_owned(),
        ClusterId::Missing => MISSING.to_owned(),
    }
}

/// The cluster of a service that the proxy itself sends something to.
pub fn collector(collector: &Collector) -> String {
    let variant = if collector.grpc { GRPC_COLLECTOR } else { COLLECTOR };
    format!("outbound|{}|{variant}|{}", collector.port, collector.host)
}

/// The server name in mesh TLS to a cluster.
pub fn sni(id: &ClusterId) -> String {
    let (port, subset, host) = match id {
        ClusterId::Service(target) => {
            (target.port, target.subset.as_deref().unwrap_or_default(), &*target.host)
        }
        ClusterId::Direct { host, port, .. }
        | ClusterId::Collector(Collector { host, port, .. }) => (*port, "", &**host),
        other => return format!("{}{MESH_SNI_SUFFIX}", cluster(other)),
    };
    format!("outbound_.{port}_.{subset}_.{host}{MESH_SNI_SUFFIX}")
}

pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

pub fn table(name: &TableName) -> String {
    match name {
        TableName::Port(port) => port.to_string(),
        TableName::Service { host, port } => format!("{host}:{port}"),
        TableName::PlainService { host, port } => format!("{host}:{port}~direct"),
        TableName::GatewayHttp { port } => format!("http.{port}"),
        TableName::GatewayHttps { port, server, gateway, namespace } => {
            format!("https.{port}.{server}.{gateway}.{namespace}")
        }
    }
}

/// The listener of an address and port; `None` for every address.
pub fn listener(address: Option<&IpAddr>, port: u16) -> String {
    match address {
        Some(IpAddr::V6(address)) => format!("[{address}]_{port}"),
        Some(address) => format!("{address}_{port}"),
        None => format!("0.0.0.0_{port}"),
    }
}

/// A TLS Secret of the API server, as gateways ask for it.
pub fn secret(key: &Key) -> String {
    format!("kubernetes://{}/{}", key.namespace, key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::BackendTarget;

    #[test]
    fn names_are_istios() {
        let target = |subset: Option<&str>| {
            ClusterId::Service(BackendTarget {
                host: "cart.shop.svc.cluster.local".into(),
                port: 80,
                subset: subset.map(str::to_owned),
            })
        };
        assert_eq!(cluster(&target(None)), "outbound|80||cart.shop.svc.cluster.local");
        assert_eq!(cluster(&target(Some("v1"))), "outbound|80|v1|cart.shop.svc.cluster.local");
        assert_eq!(
            sni(&target(Some("v1"))),
            "outbound_.80_.v1_.cart.shop.svc.cluster.local.mesh.internal"
        );
        assert_eq!(inbound_cluster(8080), "inbound|8080||");
        assert_eq!(listener(Some(&"10.0.0.1".parse().unwrap()), 80), "10.0.0.1_80");
        assert_eq!(listener(Some(&"fd00::1".parse().unwrap()), 80), "[fd00::1]_80");
    }
}
