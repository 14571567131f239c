//! Where a gateway is reached.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

/// Addresses and host names at which a Service is reached from outside; those within the cluster
/// where that is all it is for.
pub fn addresses(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let external = spec.external_ips.iter().flatten().cloned();
    let mut found: Vec<String> = if spec.type_.as_deref() == Some("LoadBalancer") {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
        let reached =
            |ingress: &LoadBalancerIngress| ingress.ip.clone().or_else(|| ingress.hostname.clone());
        ingress.filter_map(reached).chain(external).collect()
    } else {
        external.collect()
    };
    if found.is_empty() && spec.type_.as_deref() != Some("LoadBalancer") {
        let first = spec.cluster_ip.iter().cloned();
        let all = spec.cluster_ips.clone().unwrap_or_else(|| first.collect());
        found = all.into_iter().filter(|ip| !ip.is_empty() && ip != "None").collect();
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|address| seen.insert(address.clone()));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(service: Value) -> Vec<String> {
        addresses(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn all_of_a_load_balancer() {
        let service = json!({
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.9"]},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}, {"hostname": "lb.example"}, {"ip": "192.0.2.9"},
            ]}},
        });
        assert_eq!(of(service), ["192.0.2.1", "2001:db8::1", "lb.example", "192.0.2.9"]);
        let waiting = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}});
        assert!(of(waiting).is_empty());
    }

    #[test]
    fn those_of_the_cluster_where_there_are_no_others() {
        let dual = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]});
        assert_eq!(of(json!({"spec": dual})), ["10.0.0.1", "fd00::1"]);
        assert!(of(json!({"spec": {"clusterIP": "None"}})).is_empty());
        let external =
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1"]});
        assert_eq!(of(json!({"spec": external})), ["192.0.2.1"]);
    }
}
