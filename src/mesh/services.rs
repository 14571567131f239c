//! Services and workloads.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    EndpointTable, Host, Key, MeshConfig, Port, Protocol, Service, ServiceKind, Workload, names,
    protocol,
};
use crate::{
    identity::SpiffeId,
    watch::{Snapshot, snapshot},
};

const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// All Services, by host.
pub fn build(
    snapshot: &Snapshot,
    config: &MeshConfig,
    endpoints: &EndpointTable,
) -> BTreeMap<Host, Arc<Service>> {
    let domain = &config.cluster_domain;
    snapshot
        .services
        .iter()
        .map(|(key, service)| {
            let host = names::service_host(key, domain);
            let shape = endpoints.get(&host).map(|e| e.shape.clone()).unwrap_or_default();
            let exports =
                service.annotations.get(EXPORT_TO).map(String::as_str).unwrap_or_default();
            let service = Service {
                key: key.clone(),
                host: host.clone(),
                kind: kind(service),
                ports: ports(service),
                visibility: names::export_to_or(
                    exports.split(','),
                    &config.default_exports.services,
                    &key.namespace,
                ),
                selector: service.selector.clone(),
                shape,
            };
            (host, Arc::new(service))
        })
        .collect()
}

fn kind(service: &snapshot::Service) -> ServiceKind {
    match &service.external_name {
        Some(target) => ServiceKind::ExternalName {
            target: target.trim_end_matches('.').to_ascii_lowercase().into(),
        },
        None if service.headless || service.cluster_ips.is_empty() => ServiceKind::Headless,
        None => ServiceKind::ClusterIp(service.cluster_ips.clone()),
    }
}

/// The ports by number, TCP before UDP where a number serves both.
fn ports(service: &snapshot::Service) -> Vec<Port> {
    let mut ports: Vec<Port> = service
        .ports
        .iter()
        .filter(|port| port.transport != "SCTP")
        .map(|port| Port {
            number: port.port,
            name: port.name.clone(),
            protocol: protocol::of(port),
            target: port.target.clone(),
        })
        .collect();
    ports.sort_by_key(|port| (port.number, port.protocol == Protocol::Udp));
    ports
}

/// The pods that run a proxy.
pub fn workloads(snapshot: &Snapshot, config: &MeshConfig) -> BTreeMap<Key, Arc<Workload>> {
    snapshot
        .pods
        .iter()
        .filter(|(_, pod)| pod.meshed)
        .map(|(key, pod)| {
            let workload = Workload {
                key: key.clone(),
                labels: pod.labels.clone(),
                name: pod.workload.clone(),
                identity: SpiffeId {
                    trust_domain: config.trust_domain.clone(),
                    namespace: key.namespace.to_string(),
                    service_account: pod.service_account.to_string(),
                },
                addresses: pod.ips.clone(),
                named_ports: pod.named_ports.clone(),
            };
            (key.clone(), Arc::new(workload))
        })
        .collect()
}
