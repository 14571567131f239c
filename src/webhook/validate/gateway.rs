//! What a gateway of a MeshInstallation must be beyond its schema.

use std::net::IpAddr;

use crate::{
    api::meshwright::{Gateway, IpFamilyPolicy, Profile, ServiceType},
    diagnostic::{Diagnostic, ObjectRef},
    operator::installation::build::gateway_patch_problem,
    webhook::inject::options::form,
};

/// Its Service, its addresses and its patches. `path` is the gateway's own.
pub(super) fn check(
    about: &ObjectRef,
    path: &str,
    gateway: &Gateway,
    profile: Profile,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut error = |field: String, reason, message: String| {
        found.push(Diagnostic::error(about, format!("{path}.{field}"), reason, message));
    };
    for (index, address) in gateway.addresses.iter().enumerate() {
        if address.parse::<IpAddr>().is_err() {
            let message = format!("{address:?} is no IP address");
            error(format!("addresses[{index}]"), "InvalidAddress", message);
        }
    }
    for (index, range) in gateway.service.load_balancer_source_ranges.iter().enumerate() {
        if let Err(because) = form::cidr(range) {
            error(format!("service.loadBalancerSourceRanges[{index}]"), "InvalidCidr", because);
        }
    }
    // The schema's rules, for objects that were there before it had them.
    for (field, message) in contradictions(gateway) {
        error(field, "Contradiction", message.to_owned());
    }
    if let Some(problem) = gateway_patch_problem(gateway, profile) {
        error(problem.path(), "InvalidPatch", problem.message);
    }
    found
}

fn contradictions(gateway: &Gateway) -> Vec<(String, &'static str)> {
    let service = &gateway.service;
    let kind = gateway.service_type();
    let mut found = Vec::new();
    let mut check = |wrong: bool, field: &str, message| {
        if wrong {
            found.push((field.to_owned(), message));
        }
    };
    check(
        gateway.replicas.is_some() && gateway.autoscaling.is_some(),
        "replicas",
        "the autoscaler decides how many run: give either replicas or autoscaling",
    );
    let balanced = "is for the serviceType LoadBalancer";
    let differs = kind != ServiceType::LoadBalancer;
    check(differs && service.load_balancer_class.is_some(), "service.loadBalancerClass", balanced);
    check(
        differs && !service.load_balancer_source_ranges.is_empty(),
        "service.loadBalancerSourceRanges",
        balanced,
    );
    check(
        differs && service.allocate_load_balancer_node_ports.is_some(),
        "service.allocateLoadBalancerNodePorts",
        balanced,
    );
    let internal = kind == ServiceType::ClusterIp;
    check(
        internal && service.external_traffic_policy.is_some(),
        "service.externalTrafficPolicy",
        "is for the serviceTypes LoadBalancer and NodePort",
    );
    let dual = matches!(
        service.ip_family_policy,
        Some(IpFamilyPolicy::PreferDualStack | IpFamilyPolicy::RequireDualStack)
    );
    check(
        service.ip_families.len() > 1 && !dual,
        "service.ipFamilies",
        "two families need the ipFamilyPolicy PreferDualStack or RequireDualStack",
    );
    for (index, port) in gateway.ports.iter().enumerate() {
        check(
            internal && port.node_port.is_some(),
            &format!("ports[{index}].nodePort"),
            "a Service of type ClusterIP has no node ports",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(gateway: &Value) -> Vec<String> {
        let about = ObjectRef {
            api_version: "meshwright.dev/v1alpha1",
            kind: "MeshInstallation",
            namespace: String::new(),
            name: "mesh".to_owned(),
            generation: 1,
        };
        let gateway: Gateway = serde_json::from_value(gateway.clone()).unwrap();
        let found = check(&about, "spec.gateways[0]", &gateway, Profile::Default);
        found.into_iter().map(|found| format!("{} {}", found.path, found.reason)).collect()
    }

    #[test]
    fn names_the_field_and_the_reason() {
        let cases = [
            (json!({"addresses": ["192.0.2.1", "here"]}), "addresses[1] InvalidAddress"),
            (
                json!({"service": {"loadBalancerSourceRanges": ["10.0.0.0/40"]}}),
                "service.loadBalancerSourceRanges[0] InvalidCidr",
            ),
            (json!({"replicas": 2, "autoscaling": {}}), "replicas Contradiction"),
            (
                json!({"kind": "Egress", "service": {"externalTrafficPolicy": "Local"}}),
                "service.externalTrafficPolicy Contradiction",
            ),
            (
                json!({"serviceType": "NodePort", "service": {"loadBalancerClass": "x"}}),
                "service.loadBalancerClass Contradiction",
            ),
            (
                json!({"serviceType": "ClusterIP", "ports": [{"name": "a", "port": 80, "nodePort": 30080}]}),
                "ports[0].nodePort Contradiction",
            ),
            (
                json!({"service": {"ipFamilies": ["IPv4", "IPv6"]}}),
                "service.ipFamilies Contradiction",
            ),
            (
                json!({"patches": [{"kind": "Service", "patch": {"spec": {"selector": {"a": "b"}}}}]}),
                "patches[0].patch.spec.selector InvalidPatch",
            ),
            (
                json!({"patches": [{"kind": "PodDisruptionBudget", "patch": {}}]}),
                "patches[0].patch InvalidPatch",
            ),
        ];
        for (mut gateway, expected) in cases {
            gateway["name"] = json!("in");
            assert_eq!(problems(&gateway), [format!("spec.gateways[0].{expected}")], "{gateway}");
        }
    }

    #[test]
    fn what_works_is_not_complained_about() {
        let gateway = json!({
            "name": "in", "addresses": ["192.0.2.1", "2001:db8::1"],
            "service": {
                "loadBalancerClass": "metal", "loadBalancerSourceRanges": ["10.0.0.0/8"],
                "externalTrafficPolicy": "Local", "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "PreferDualStack",
            },
            "ports": [{"name": "a", "port": 80, "nodePort": 30080}],
            "autoscaling": {"minReplicas": 2, "maxReplicas": 4}, "disruptionBudget": {"maxUnavailable": 1},
            "patches": [{"kind": "HorizontalPodAutoscaler", "patch": {"spec": {"maxReplicas": 9}}}],
        });
        assert!(problems(&gateway).is_empty());
    }
}
