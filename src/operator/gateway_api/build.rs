//! A Gateway API object as a gateway workload. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource, ResourceExt};
use xxhash_rust::xxh3::xxh3_64;

use super::CLASS;
use crate::{
    api::{
        gateway::{GATEWAY_NAME_LABEL, Gateway},
        meshwright::labels::{GATEWAY, MANAGED_BY, MANAGER},
    },
    operator::gateway_workload::{GatewayWorkload, Port},
    webhook::inject::ProxySettings,
};

/// Annotation of `spec.infrastructure` (or of the Gateway) that sets the type of the Service, as
/// Istio reads it.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";
const LONGEST_NAME: usize = 63;

pub(super) fn workload(gateway: &Gateway, proxy: ProxySettings) -> GatewayWorkload {
    let name = object_name(&gateway.name_any());
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    let selector: BTreeMap<_, _> =
        [(GATEWAY_NAME_LABEL.to_owned(), label_value(&gateway.name_any()))].into();
    let mut labels = infrastructure.labels;
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(GATEWAY.to_owned(), name.clone());
    labels.extend(selector.clone());
    let asked = infrastructure.annotations.get(SERVICE_TYPE);
    let service_type = match asked.or_else(|| gateway.annotations().get(SERVICE_TYPE)) {
        Some(asked) if asked == "ClusterIP" => "ClusterIP",
        Some(asked) if asked == "NodePort" => "NodePort",
        _ => "LoadBalancer",
    };
    GatewayWorkload {
        name,
        namespace: gateway.namespace().unwrap_or_default(),
        owner: gateway.controller_owner_ref(&()).unwrap_or_default(),
        labels,
        annotations: infrastructure.annotations,
        pod_labels: BTreeMap::new(),
        selector,
        replicas: 1,
        service_type,
        load_balancer_ip: asked_address(gateway),
        ports: ports(gateway),
        proxy,
    }
}

/// `GATEWAY-CLASS`, as the Gateway API recommends, shortened where that is too long for a Service.
pub(super) fn object_name(gateway: &str) -> String {
    let name = format!("{gateway}-{CLASS}").replace('.', "-");
    if name.len() <= LONGEST_NAME { name } else { shortened(&name) }
}

fn label_value(gateway: &str) -> String {
    if gateway.len() <= LONGEST_NAME { gateway.to_owned() } else { shortened(gateway) }
}

fn shortened(name: &str) -> String {
    let hash = format!("{:016x}", xxh3_64(name.as_bytes()));
    let kept: String = name.chars().take(LONGEST_NAME - 9).collect();
    format!("{}-{}", kept.trim_end_matches(['-', '.']), &hash[..8])
}

fn asked_address(gateway: &Gateway) -> Option<String> {
    let is_ip = |kind: Option<&str>| kind.is_none_or(|kind| kind == "IPAddress");
    let first = gateway.spec.addresses.iter().find(|address| is_ip(address.kind.as_deref()))?;
    first.value.clone()
}

/// One port for all listeners that share its number.
fn ports(gateway: &Gateway) -> Vec<Port> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for listener in &gateway.spec.listeners {
        if !seen.insert(listener.port) {
            continue;
        }
        let app_protocol = match listener.protocol.as_str() {
            "HTTP" => Some("http"),
            "HTTPS" => Some("https"),
            "TLS" => Some("tls"),
            "TCP" => Some("tcp"),
            _ => None,
        };
        let name = format!("{}-{}", app_protocol.unwrap_or("port"), listener.port);
        ports.push(Port { name, port: listener.port, app_protocol });
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        assert_eq!(object_name("web"), "web-meshwright");
        let long = object_name(&"a".repeat(100));
        assert!(long.len() <= LONGEST_NAME && long != object_name(&"a".repeat(101)));
    }
}
