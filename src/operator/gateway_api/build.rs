//! A Gateway API object as a gateway workload. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kube::{Resource, ResourceExt};
use xxhash_rust::xxh3::xxh3_64;

use super::parameters::Parameters;
use crate::{
    api::{
        gateway::{GATEWAY_NAME_LABEL, Gateway, listener::Listener, name_label},
        meshwright::{
            ObjectPatch, PatchedKind, Profile, ServiceType,
            labels::{GATEWAY, MANAGED_BY, MANAGER},
        },
    },
    operator::{
        gateway_workload::{
            GatewayWorkload, Port, RESERVED_PORTS, Scale, ServiceSettings, one_stays,
        },
        installation::build::gateway_defaults,
    },
    plan::gateway_target_port,
    webhook::inject::ProxySettings,
};

/// Annotation of `spec.infrastructure` (or of the Gateway) that sets the type of the Service, as
/// Istio reads it.
const SERVICE_TYPE: &str = "networking.istio.io/service-type";
const LONGEST_NAME: usize = 63;

/// A Gateway as it can be built, and what is wrong with the rest of it.
pub(super) struct Plan {
    pub(super) workload: GatewayWorkload,
    pub(super) problems: Vec<String>,
}

/// What a Gateway asks for.
pub(super) fn plan(
    gateway: &Gateway,
    proxy: ProxySettings,
    profile: Profile,
    parameters: &Parameters,
) -> Plan {
    let mut problems = Vec::new();
    let name = object_name(&gateway.name_any(), &gateway.spec.gateway_class_name);
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    let selector: BTreeMap<_, _> =
        [(GATEWAY_NAME_LABEL.to_owned(), name_label(&gateway.name_any()))].into();
    let mut labels = infrastructure.labels;
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(GATEWAY.to_owned(), name.clone());
    labels.extend(selector.clone());
    let service = ServiceSettings {
        kind: service_type(gateway, &mut problems),
        ports: ports(&gateway.spec.listeners, &mut problems),
        addresses: addresses(gateway, &mut problems),
        ..ServiceSettings::default()
    };
    if service.ports.is_empty() {
        problems.push("spec.listeners: there is no port that can be served".to_owned());
    }
    let workload = GatewayWorkload {
        name,
        namespace: gateway.namespace().unwrap_or_default(),
        owner: gateway.controller_owner_ref(&()).unwrap_or_default(),
        labels,
        annotations: infrastructure.annotations,
        selector,
        scale: scale(&parameters.patches, profile),
        service,
        proxy,
        patches: parameters.patches.clone(),
        ..GatewayWorkload::default()
    };
    Plan { workload, problems }
}

/// A part of an autoscaler or of a budget asks for one; replicas in a Deployment ask for none.
fn scale(patches: &[ObjectPatch], profile: Profile) -> Scale {
    let asks = |kind| patches.iter().any(|patch| patch.kind == kind);
    let replicas = |patch: &ObjectPatch| {
        let given = patch.kind == PatchedKind::Deployment;
        let replicas = patch.patch.0.get("spec").and_then(|spec| spec["replicas"].as_i64());
        replicas.filter(|_| given).and_then(|replicas| i32::try_from(replicas).ok())
    };
    let mut defaults = gateway_defaults(profile);
    let autoscaling = asks(PatchedKind::HorizontalPodAutoscaler).then(|| {
        let mut autoscaling = defaults.autoscaling.take().unwrap_or_default();
        // Whether there is a budget by default depends on how many there are at least.
        autoscaling.min_replicas = least(patches).unwrap_or(autoscaling.min_replicas);
        autoscaling
    });
    let budget = asks(PatchedKind::PodDisruptionBudget)
        .then(|| defaults.budget.take().unwrap_or_else(one_stays));
    let replicas = patches.iter().filter_map(replicas).next_back();
    Scale::resolve(replicas, autoscaling, budget, defaults)
}

/// What the parts of an autoscaler say of `minReplicas`.
fn least(patches: &[ObjectPatch]) -> Option<i32> {
    let scalers = patches.iter().filter(|p| p.kind == PatchedKind::HorizontalPodAutoscaler);
    let mut given = scalers.filter_map(|patch| patch.patch.0.get("spec")?["minReplicas"].as_i64());
    given.next_back().and_then(|least| i32::try_from(least).ok())
}

/// `GATEWAY-CLASS`, as the Gateway API recommends, shortened where that is too long for a Service.
pub(super) fn object_name(gateway: &str, class: &str) -> String {
    let name = format!("{gateway}-{class}").replace('.', "-");
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = format!("{:016x}", xxh3_64(name.as_bytes()));
    let kept: String = name.chars().take(LONGEST_NAME - 9).collect();
    format!("{}-{}", kept.trim_end_matches('-'), &hash[..8])
}

fn service_type(gateway: &Gateway, problems: &mut Vec<String>) -> ServiceType {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let asked =
        infrastructure.and_then(|infrastructure| infrastructure.annotations.get(SERVICE_TYPE));
    match asked.or_else(|| gateway.annotations().get(SERVICE_TYPE)).map(String::as_str) {
        None | Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some(other) => {
            problems.push(format!(
                "annotation {SERVICE_TYPE}: {other:?} is none of LoadBalancer, NodePort and ClusterIP"
            ));
            ServiceType::LoadBalancer
        }
    }
}

/// The addresses that are asked for. An empty one leaves the choice to the load balancer.
fn addresses(gateway: &Gateway, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (index, address) in gateway.spec.addresses.iter().enumerate() {
        let Some(value) = address.value.as_deref().filter(|value| !value.is_empty()) else {
            continue;
        };
        match value.parse() {
            Ok(ip) => found.push(ip),
            Err(_) => {
                problems.push(format!("spec.addresses[{index}].value: {value:?} is no IP address"));
            }
        }
    }
    found
}

/// One port for all listeners that share its number.
fn ports(listeners: &[Listener], problems: &mut Vec<String>) -> Vec<Port> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let number = listener.port;
        if RESERVED_PORTS.contains(&number) || number == 0 {
            problems.push(format!(
                "spec.listeners[{index}].port: listener {} cannot have {number}, which the proxy \
                 needs itself: choose one outside {} to {}",
                listener.name,
                RESERVED_PORTS.start(),
                RESERVED_PORTS.end(),
            ));
            continue;
        }
        let app_protocol = match listener.protocol.as_str() {
            "HTTP" => Some("http"),
            "HTTPS" => Some("https"),
            "TLS" => Some("tls"),
            "TCP" => Some("tcp"),
            // The control plane says so in the listener's status.
            "UDP" => continue,
            _ => None,
        };
        // Of two that lead to the same port of the pods the control plane serves the first, and says
        // so: nobody is to reach it by the number of the second.
        if !seen.insert(gateway_target_port(number)) {
            continue;
        }
        let name = format!("{}-{number}", app_protocol.unwrap_or("port"));
        ports.push(Port { name, port: number, node_port: None, app_protocol });
    }
    ports
}

/// How `spec.addresses` wants a Gateway to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deployed {
    /// By the operator.
    Automatically,
    /// Behind this Service of its own namespace, which somebody else runs.
    Behind(String),
    /// Not at all.
    Refused(String),
}

/// Reads the types of `spec.addresses`.
pub(super) fn deployed(gateway: &Gateway) -> Deployed {
    let namespace = gateway.namespace().unwrap_or_default();
    let mut service: Option<String> = None;
    for (index, address) in gateway.spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        match address.kind.as_deref() {
            None | Some("IPAddress") => {}
            Some("Hostname") => {
                let host = address.value.as_deref().unwrap_or_default();
                match crate::api::gateway::service_of_host(host, &namespace) {
                    Some(name) if service.as_ref().is_none_or(|known| *known == name) => {
                        service = Some(name);
                    }
                    Some(_) => {
                        let message = "a Gateway can stand behind one Service only";
                        return Deployed::Refused(format!("{field}.value: {message}"));
                    }
                    None => {
                        return Deployed::Refused(format!(
                            "{field}.value: {host:?} is no Service of namespace {namespace}: write \
                             NAME or NAME.{namespace}.svc.DOMAIN"
                        ));
                    }
                }
            }
            Some(other) => {
                return Deployed::Refused(format!(
                    "{field}.type: {other} is not supported: use IPAddress or Hostname"
                ));
            }
        }
    }
    service.map_or(Deployed::Automatically, Deployed::Behind)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::meshwright::{Autoscaling, PartialObject};

    fn gateway(spec: &Value) -> Gateway {
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec,
        }))
        .unwrap()
    }

    fn listener(name: &str, port: u16, protocol: &str) -> Value {
        json!({"name": name, "port": port, "protocol": protocol})
    }

    fn planned(spec: &Value) -> Plan {
        plan(&gateway(spec), ProxySettings::default(), Profile::Default, &Parameters::default())
    }

    #[test]
    fn names_fit() {
        assert_eq!(object_name("web", "meshwright"), "web-meshwright");
        let long = object_name(&"a".repeat(100), "meshwright");
        assert!(long.len() <= LONGEST_NAME && long != object_name(&"a".repeat(101), "meshwright"));
    }

    #[test]
    fn what_cannot_be_served_is_said_and_the_rest_is_served() {
        let plan = planned(&json!({
            "listeners": [
                listener("a", 80, "HTTP"), listener("b", 15021, "HTTP"), listener("c", 8080, "HTTP"),
                listener("d", 53, "UDP"), listener("e", 443, "HTTPS"), listener("f", 443, "HTTPS"),
            ],
            "addresses": [{"value": "nowhere"}, {"value": "192.0.2.1"}],
            "infrastructure": {"annotations": {SERVICE_TYPE: "External"}},
        }));
        let ports: Vec<_> = plan.workload.service.ports.iter().map(|port| port.port).collect();
        assert_eq!(ports, [80, 443]);
        assert_eq!(plan.problems.len(), 3, "{:?}", plan.problems);
        assert!(
            plan.problems[1].starts_with("spec.listeners[1].port: listener b cannot have 15021")
        );
        assert!(plan.problems[2].starts_with("spec.addresses[0].value: \"nowhere\""));
    }

    #[test]
    fn parameters_ask_for_an_autoscaler_a_budget_or_a_number() {
        let patch = |kind, patch: Value| {
            let Value::Object(patch) = patch else { panic!("a patch is an object") };
            ObjectPatch { kind, patch: PartialObject(patch) }
        };
        let two = [patch(PatchedKind::Deployment, json!({"spec": {"replicas": 2}}))];
        let asked = scale(&two, Profile::Ha);
        assert_eq!((asked.replicas, asked.autoscaling), (Some(2), None));
        assert_eq!(asked.budget, Some(one_stays()));
        let scaled = [patch(PatchedKind::HorizontalPodAutoscaler, json!({}))];
        assert_eq!(scale(&scaled, Profile::Default).autoscaling, Some(Autoscaling::default()));
        assert_eq!(scale(&scaled, Profile::Ha).autoscaling.unwrap().max_replicas, 10);
        let kept = [patch(PatchedKind::PodDisruptionBudget, json!({}))];
        assert_eq!(scale(&kept, Profile::Default).budget, Some(one_stays()));
        assert_eq!(scale(&[], Profile::Default).budget, None);
    }

    #[test]
    fn a_host_name_is_a_service_that_somebody_else_runs() {
        let with = |addresses: Value| deployed(&gateway(&json!({ "addresses": addresses })));
        assert_eq!(with(json!([{"value": "192.0.2.1"}])), Deployed::Automatically);
        let host = |name: &str| json!([{"type": "Hostname", "value": name}]);
        let behind = Deployed::Behind("edge".to_owned());
        for name in ["edge", "edge.shop", "edge.shop.svc", "edge.shop.svc.cluster.local"] {
            assert_eq!(with(host(name)), behind, "{name}");
        }
        assert!(matches!(with(host("edge.other.svc")), Deployed::Refused(_)));
        let named = json!([{"type": "NamedAddress", "value": "x"}]);
        assert!(matches!(with(named), Deployed::Refused(_)));
    }
}
