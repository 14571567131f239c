//! Gateways that the installation lists.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{Validated, labels};
use crate::{
    api::meshwright::{
        Gateway, GatewayKind, GatewayPort, Profile,
        labels::{GATEWAY, MANAGED_BY, MANAGER},
    },
    operator::{
        gateway_workload::{GatewayWorkload, Port, Scale, ServiceSettings},
        patches::PatchError,
    },
    webhook::inject::{ProxySettings, container},
};

/// What a gateway takes from its installation.
#[derive(Clone, Debug, Default)]
struct Basis {
    owner: OwnerReference,
    /// Labels of all objects.
    labels: BTreeMap<String, String>,
    profile: Profile,
    proxy: ProxySettings,
}

pub(super) fn workload(valid: &Validated, gateway: &Gateway) -> GatewayWorkload {
    let basis = Basis {
        owner: valid.owner.clone(),
        labels: labels(valid),
        profile: valid.profile,
        proxy: valid.proxy.clone(),
    };
    build(basis, gateway)
}

/// What is wrong with a gateway's patches, in whatever installation.
pub fn patch_problem(gateway: &Gateway, profile: Profile) -> Option<PatchError> {
    let labels = [(MANAGED_BY.to_owned(), MANAGER.to_owned())].into();
    build(Basis { labels, profile, ..Basis::default() }, gateway).problem()
}

/// How many pods a gateway has where nothing is said.
pub fn gateway_defaults(profile: Profile) -> Scale {
    let mut gateway = Gateway::default();
    profile.complete(&mut gateway);
    Scale {
        replicas: gateway.replicas,
        autoscaling: gateway.autoscaling,
        budget: gateway.disruption_budget,
    }
}

fn build(basis: Basis, gateway: &Gateway) -> GatewayWorkload {
    let Basis { owner, mut labels, profile, mut proxy } = basis;
    let selector: BTreeMap<_, _> = [(GATEWAY.to_owned(), gateway.name.clone())].into();
    let brand = match gateway.kind {
        GatewayKind::Ingress => "ingressgateway",
        GatewayKind::Egress => "egressgateway",
    };
    let mut pod_labels: BTreeMap<_, _> =
        [("app".to_owned(), gateway.name.clone()), ("istio".to_owned(), brand.to_owned())].into();
    pod_labels.extend(gateway.labels.clone());
    pod_labels.extend(selector.clone());
    labels.extend(selector.clone());
    if let Some(resources) = &gateway.resources {
        proxy.defaults.resources = container::resources(resources);
    }
    proxy.defaults.drain_seconds = gateway.drain_seconds.unwrap_or(proxy.defaults.drain_seconds);
    GatewayWorkload {
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        owner,
        labels,
        annotations: BTreeMap::new(),
        pod_labels,
        pod_annotations: gateway.annotations.clone(),
        selector,
        scale: Scale::resolve(
            gateway.replicas,
            gateway.autoscaling.clone(),
            gateway.disruption_budget.clone(),
            gateway_defaults(profile),
        ),
        placement: gateway.placement.clone(),
        service: ServiceSettings {
            kind: gateway.service_type(),
            ports: gateway.ports.iter().filter_map(port).collect(),
            // Validation refuses what is no address.
            addresses: gateway.addresses.iter().filter_map(|ip| ip.parse().ok()).collect(),
            more: gateway.service.clone(),
        },
        proxy,
        patches: gateway.patches.clone(),
    }
}

/// The schema holds ports between 1 and 65535.
fn port(port: &GatewayPort) -> Option<Port> {
    Some(Port {
        name: port.name.clone(),
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port,
        app_protocol: Some(port.protocol.app_protocol()),
    })
}
