//! Mesh × proxy → what that proxy must do, in the mesh's words. Pure: no Envoy here, no I/O.
//!
//! Three plans: [`outbound`] is shared by all sidecars of a [`ScopeKey`], [`inbound`] is a workload's
//! own, [`gateway`] a gateway pod's. Each is made of parts that can be made alone for one asked name
//! ([`View::virtual_host`], [`View::cluster`], [`View::service_listeners`]): the plans here are loops
//! over those.

pub mod cluster;
mod collector;
mod domains;
mod entry;
pub mod gateway;
pub mod inbound;
pub mod outbound;
pub mod route;
mod stat_name;
mod view;

use std::{net::IpAddr, sync::Arc};

pub use self::{
    cluster::{Cluster, ClusterId, Discovery, DnsTarget, UpstreamProtocol, UpstreamTls},
    gateway::{GatewayListener, GatewayPlan, GatewayServes, TlsChain, gateway},
    inbound::{InboundPlan, InboundPort, inbound},
    outbound::{Claim, OutboundListener, OutboundPlan, Serves, outbound},
    route::{Action, Fallback, Route, RouteTable, Share, TableName, VirtualHost},
    view::View,
};
use crate::mesh::{Mesh, ProxyNode, Tracer};

/// What makes two sidecars share an outbound plan: everything that [`outbound`] reads besides the
/// mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    pub namespace: Arc<str>,
    pub families: Families,
    /// Only where listeners say whose they are: traces of OpenTelemetry carry it.
    pub workload: Option<Arc<str>>,
}

/// Address families that a proxy can use. Envoy refuses a listener on a family that its kernel does
/// not have, so we name only those of the pod's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub fn of(addresses: &[IpAddr]) -> Self {
        let v6 = addresses.iter().any(IpAddr::is_ipv6);
        // A proxy that names no address is taken for IPv4.
        Self { v4: addresses.iter().any(IpAddr::is_ipv4) || !v6, v6 }
    }

    pub fn includes(self, address: &IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

pub fn scope(mesh: &Mesh, node: &ProxyNode) -> ScopeKey {
    let tracer = mesh.config.tracing.as_ref().map(|tracing| &tracing.tracer);
    let named = matches!(tracer, Some(Tracer::OpenTelemetry { .. }));
    ScopeKey {
        namespace: node.key.namespace.clone(),
        families: Families::of(&node.addresses),
        workload: named.then(|| node.workload.clone()),
    }
}

/// What traces call a workload, as its proxy's bootstrap does.
fn traced_as(workload: &str, namespace: &str) -> String {
    format!("{workload}.{namespace}")
}

/// The port that gateway pods listen on for a port of their Service. Pods run without privileges,
/// so ports under 1024 are moved up: 80 → 8080, 443 → 8443.
pub fn gateway_target_port(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_ports_move_up() {
        let moved: Vec<u16> = [80, 443, 1023, 1024, 8080, 65535].map(gateway_target_port).into();
        assert_eq!(moved, [8080, 8443, 9023, 1024, 8080, 65535]);
    }
}
