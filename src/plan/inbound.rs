//! What a workload's sidecar does with connections to its application.

use std::{collections::BTreeMap, sync::Arc};

use super::{Cluster, ClusterId, Families, View, outbound::OWN_PORTS, stat_name, traced_as};
use crate::{
    diagnostic::{Diagnostic, ObjectRef},
    mesh::{
        self, Host, Interception, Key, Mesh, MeshConfig, PeerTls, Protocol, ProxyNode, Service,
        ServiceKind,
    },
    watch::snapshot::TargetPort,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPlan {
    pub config: MeshConfig,
    /// What traces call the workload.
    pub traced_as: String,
    /// What the proxy itself sends something to.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    pub families: Families,
    pub interception: Interception,
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
    /// Ports of services that select the workload, and those that a policy names.
    pub ports: BTreeMap<u16, InboundPort>,
    /// What holds for all other ports.
    pub other_ports: PeerTls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    pub protocol: Protocol,
    pub tls: PeerTls,
    /// The service that the port is reached by, for metrics.
    pub service: Option<(Host, Key)>,
    /// What the statistics of its cluster are called; `None`: after the cluster.
    pub stat_name: Option<String>,
}

impl InboundPlan {
    /// Whether a plaintext client may be waiting for the application to speak first.
    pub fn has_waiting_clients(&self) -> bool {
        self.ports
            .values()
            .any(|p| p.protocol == Protocol::ServerFirst && p.tls == PeerTls::Permissive)
    }
}

pub fn inbound(mesh: &Mesh, node: &ProxyNode) -> (InboundPlan, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let namespace = &node.key.namespace;
    let mut ports = BTreeMap::new();
    let selecting = mesh.services.values().filter(|s| {
        s.key.namespace == *namespace
            && !s.selector.is_empty()
            && mesh::selects(&s.selector, &node.labels)
    });
    for service in selecting {
        add_service(mesh, node, service, &mut ports, &mut diagnostics);
    }
    let policies = mesh.peer_policies(&node.labels, namespace);
    for number in policies.flat_map(|p| p.ports.keys().copied()) {
        if !OWN_PORTS.contains(&number) {
            let tls = mesh.peer_tls(&node.labels, namespace, Some(number));
            let port =
                InboundPort { protocol: Protocol::Detect, tls, service: None, stat_name: None };
            ports.entry(number).or_insert(port);
        }
    }
    let families = Families::of(&node.addresses);
    let plan = InboundPlan {
        config: mesh.config.clone(),
        traced_as: traced_as(&node.workload, namespace),
        clusters: View::of_gateway(mesh, namespace, families).collectors(),
        families,
        interception: node.interception,
        namespace: namespace.clone(),
        workload: node.workload.clone(),
        ports,
        other_ports: mesh.peer_tls(&node.labels, namespace, None),
    };
    (plan, diagnostics)
}

/// The ports that `service` adds. Of two services that share a port the first keeps it.
fn add_service(
    mesh: &Mesh,
    node: &ProxyNode,
    service: &Service,
    ports: &mut BTreeMap<u16, InboundPort>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (index, port) in service.ports.iter().enumerate() {
        let number = match &port.target {
            TargetPort::Number(0) => Some(port.number),
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => {
                mesh.workloads.get(&node.key).and_then(|w| w.named_ports.get(name)).copied()
            }
        };
        let Some(number) = number.filter(|n| !OWN_PORTS.contains(n)) else { continue };
        if port.protocol == Protocol::Udp {
            continue;
        }
        if let Some(existing) = ports.get(&number) {
            if existing.protocol != port.protocol {
                diagnostics.push(conflict(service, index, number, existing));
            }
            continue;
        }
        let tls = mesh.peer_tls(&node.labels, &node.key.namespace, Some(number));
        let stat_name = mesh.config.inbound_stat_name.as_ref().map(|template| {
            let (number, target) = (port.number, Some(number));
            let named = stat_name::Named { service, port: Some(port), number, target, subset: "" };
            stat_name::of(template, &named)
        });
        let service = Some((service.host.clone(), service.key.clone()));
        let port = InboundPort { protocol: port.protocol, tls, service, stat_name };
        ports.insert(number, port);
    }
}

fn conflict(service: &Service, index: usize, number: u16, existing: &InboundPort) -> Diagnostic {
    let object = match &service.kind {
        ServiceKind::Entry(entry) => entry.origin.clone(),
        _ => ObjectRef {
            api_version: "v1",
            kind: "Service",
            namespace: service.key.namespace.to_string(),
            name: service.key.name.to_string(),
            generation: 0,
        },
    };
    let other = existing.service.as_ref().map_or_else(String::new, |(_, key)| key.to_string());
    Diagnostic::warning(
        &object,
        format!("spec.ports[{index}]"),
        "PortConflict",
        format!(
            "port {number} of its pods is also that of Service {other}, which declares another \
             protocol; the protocol of {other} is used. Declare the same protocol in both"
        ),
    )
}
