//! Gateways that the installation lists.

use std::collections::BTreeMap;

use super::{Validated, labels};
use crate::{
    api::meshwright::{Gateway, GatewayKind, GatewayPort, ServiceType, labels::GATEWAY},
    operator::gateway_workload::{GatewayWorkload, Port},
};

pub(super) fn workload(valid: &Validated, gateway: &Gateway) -> GatewayWorkload {
    let selector: BTreeMap<_, _> = [(GATEWAY.to_owned(), gateway.name.clone())].into();
    let (brand, service_type) = match gateway.kind {
        GatewayKind::Ingress => ("ingressgateway", ServiceType::LoadBalancer),
        GatewayKind::Egress => ("egressgateway", ServiceType::ClusterIp),
    };
    let mut pod_labels: BTreeMap<_, _> =
        [("app".to_owned(), gateway.name.clone()), ("istio".to_owned(), brand.to_owned())].into();
    pod_labels.extend(gateway.labels.clone());
    pod_labels.extend(selector.clone());
    let mut labels = labels(valid);
    labels.extend(selector.clone());
    GatewayWorkload {
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        owner: valid.owner.clone(),
        labels,
        annotations: BTreeMap::new(),
        pod_labels,
        selector,
        replicas: gateway.replicas.unwrap_or(1),
        service_type: gateway.service_type.unwrap_or(service_type).as_str(),
        load_balancer_ip: None,
        ports: gateway.ports.iter().filter_map(port).collect(),
        proxy: valid.proxy.clone(),
    }
}

/// The schema holds ports between 1 and 65535.
fn port(port: &GatewayPort) -> Option<Port> {
    Some(Port {
        name: port.name.clone(),
        port: u16::try_from(port.port).ok()?,
        app_protocol: Some(port.protocol.app_protocol()),
    })
}
