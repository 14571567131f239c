//! The API server's core kinds → what the snapshot keeps of them. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1 as core,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::snapshot::{self, Labels, ServicePort, SliceEndpoint, TargetPort};

/// Annotations of Services that Meshwright reads.
const SERVICE_ANNOTATIONS: [&str; 3] =
    ["networking.istio.io/", "meshwright.dev/", "service.kubernetes.io/topology-mode"];
/// Labels of Nodes that say where they are.
const NODE_LABELS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];
/// Annotations that only injected pods carry, ours and Istio's.
const INJECTED: [&str; 2] = ["meshwright.dev/status", "sidecar.istio.io/status"];
/// Containers that are there for the others: ours and Istio's.
const PROXIES: [&str; 2] = ["meshwright-proxy", "istio-proxy"];
const GATEWAY_LABEL: &str = "meshwright.dev/gateway";
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl From<core::Namespace> for snapshot::Namespace {
    fn from(namespace: core::Namespace) -> Self {
        Self { labels: namespace.metadata.labels.unwrap_or_default() }
    }
}

impl From<core::Node> for snapshot::Node {
    fn from(node: core::Node) -> Self {
        let mut labels = node.metadata.labels.unwrap_or_default();
        labels.retain(|name, _| NODE_LABELS.contains(&name.as_str()));
        Self { labels }
    }
}

impl From<core::Service> for snapshot::Service {
    fn from(service: core::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let mut annotations = service.metadata.annotations.unwrap_or_default();
        annotations.retain(|name, _| SERVICE_ANNOTATIONS.iter().any(|p| name.starts_with(p)));
        let external = spec.type_.as_deref() == Some("ExternalName");
        let addresses = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip]));
        let addresses = addresses.unwrap_or_default();
        Self {
            external_name: spec.external_name.filter(|_| external),
            headless: !external && addresses.iter().any(|ip| ip == "None"),
            cluster_ips: parse_addresses(&addresses),
            selector: spec.selector.unwrap_or_default(),
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(service_port).collect(),
            annotations,
            labels: service.metadata.labels.unwrap_or_default(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        }
    }
}

fn service_port(port: core::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    let target = match port.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(target).ok()?),
        Some(IntOrString::String(name)) => TargetPort::Name(name),
    };
    Some(ServicePort {
        name: port.name.unwrap_or_default(),
        port: number,
        transport: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol,
        target,
    })
}

impl From<core::Pod> for snapshot::Pod {
    fn from(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let finished = applications_finished(&spec, &status);
        let addresses: Vec<String> = match status.pod_ips {
            Some(ips) => ips.into_iter().map(|ip| ip.ip).collect(),
            None => status.pod_ip.into_iter().collect(),
        };
        let ready = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Self {
            meshed: is_meshed(&pod.metadata),
            applications_finished: finished,
            workload: workload(&pod.metadata).into(),
            named_ports: named_ports(&spec),
            labels: pod.metadata.labels.unwrap_or_default(),
            ips: parse_addresses(&addresses),
            node: spec.node_name.unwrap_or_default().into(),
            service_account: spec.service_account_name.unwrap_or_else(|| "default".into()).into(),
            host_network: spec.host_network.unwrap_or_default(),
            ready,
        }
    }
}

/// Whether the pod's own containers have ended for good. Init containers ended before these began,
/// and containers for debugging come and go without counting.
fn applications_finished(spec: &core::PodSpec, status: &core::PodStatus) -> bool {
    let own = |name: &str| !PROXIES.contains(&name);
    let code = |name: &str| {
        let statuses = status.container_statuses.iter().flatten();
        let state = statuses.filter(|s| s.name == name).find_map(|s| s.state.as_ref())?;
        Some(state.terminated.as_ref()?.exit_code)
    };
    let ended = |container: &core::Container| {
        let policy = container.restart_policy.as_ref().or(spec.restart_policy.as_ref());
        match policy.map(String::as_str) {
            Some("Never") => code(&container.name).is_some(),
            Some("OnFailure") => code(&container.name) == Some(0),
            _ => false,
        }
    };
    let mut applications = spec.containers.iter().filter(|c| own(&c.name)).peekable();
    applications.peek().is_some() && applications.all(ended)
}

fn is_meshed(metadata: &ObjectMeta) -> bool {
    let has = |map: &Option<Labels>, name: &str| map.as_ref().is_some_and(|m| m.contains_key(name));
    INJECTED.iter().any(|name| has(&metadata.annotations, name))
        || has(&metadata.labels, GATEWAY_LABEL)
}

/// The workload that people know: the Deployment rather than its ReplicaSet of the day.
fn workload(metadata: &ObjectMeta) -> String {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|o| o.controller == Some(true)).or_else(|| owners.first());
    let Some(owner) = owner else { return metadata.name.clone().unwrap_or_default() };
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    match hash {
        Some(hash) if owner.kind == "ReplicaSet" => owner
            .name
            .strip_suffix(hash.as_str())
            .and_then(|name| name.strip_suffix('-'))
            .unwrap_or(&owner.name)
            .to_owned(),
        _ => owner.name.clone(),
    }
}

fn named_ports(spec: &core::PodSpec) -> BTreeMap<String, u16> {
    // Native sidecars are init containers, and their ports count.
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

impl From<EndpointSlice> for snapshot::EndpointSlice {
    fn from(slice: EndpointSlice) -> Self {
        let labels = slice.metadata.labels.unwrap_or_default();
        let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| {
            Some((port.name.unwrap_or_default(), u16::try_from(port.port?).ok()?))
        });
        // Endpoints of type FQDN name hosts that a proxy would have to resolve; nothing makes them.
        Self {
            service: labels.get(SERVICE_NAME).map_or_else(|| Arc::from(""), |s| s.as_str().into()),
            ports: ports.collect(),
            endpoints: slice.endpoints.into_iter().map(slice_endpoint).collect(),
        }
    }
}

fn slice_endpoint(endpoint: Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    // The API: an unknown `ready` means ready, and an unknown `serving` means as `ready` says.
    let ready = conditions.ready.unwrap_or(true);
    let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
    SliceEndpoint {
        addresses: parse_addresses(&endpoint.addresses),
        pod: pod.and_then(|target| target.name).map(Into::into),
        hostname: endpoint.hostname.map(Into::into),
        node: endpoint.node_name.map(Into::into),
        zone: endpoint.zone.map(Into::into),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
    }
}

impl From<core::Secret> for snapshot::TlsSecret {
    fn from(secret: core::Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let mut text = secret.string_data.unwrap_or_default();
        let mut take = |name: &str| {
            let written = text.remove(name).map(String::into_bytes);
            written.or_else(|| data.remove(name).map(|bytes| bytes.0))
        };
        Self {
            certificate: take("tls.crt").unwrap_or_default(),
            private_key: take("tls.key").unwrap_or_default(),
            ca_certificate: take("ca.crt"),
        }
    }
}

fn parse_addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(metadata: &serde_json::Value) -> snapshot::Pod {
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {
                "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
                "initContainers": [{"name": "p", "ports": [{"name": "m", "containerPort": 15090}]}],
            },
            "status": {
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap();
        pod.into()
    }

    #[test]
    fn a_pod_keeps_what_is_read() {
        let got = pod(&json!({"name": "cart-0", "labels": {"app": "cart"}}));
        assert!(got.ready && !got.meshed);
        assert_eq!(got.ips.len(), 2);
        assert_eq!(&*got.service_account, "default");
        assert_eq!(got.named_ports["http"], 8080);
        assert_eq!(got.named_ports["m"], 15090);
        assert_eq!(&*got.workload, "cart-0");
    }

    /// `NAME=CODE` for a container that has ended, `NAME` for one that runs.
    fn finished(restart_policy: &str, containers: &[&str]) -> bool {
        let name = |text: &str| text.split('=').next().unwrap().to_owned();
        let status = |text: &&str| match text.split_once('=') {
            Some((name, code)) => {
                let code: i32 = code.parse().unwrap();
                json!({"name": name, "state": {"terminated": {"exitCode": code}}})
            }
            None => json!({"name": text, "state": {"running": {}}}),
        };
        let sidecar = json!({"name": "native", "restartPolicy": "Always"});
        let debugger = json!({"name": "debug", "state": {"running": {}}});
        let pod: core::Pod = serde_json::from_value(json!({
            "spec": {
                "restartPolicy": restart_policy,
                "initContainers": [sidecar],
                "containers":
                    containers.iter().map(|text| json!({"name": name(text)})).collect::<Vec<_>>(),
            },
            "status": {
                "containerStatuses": containers.iter().map(status).collect::<Vec<_>>(),
                "ephemeralContainerStatuses": [debugger],
            },
        }))
        .unwrap();
        snapshot::Pod::from(pod).applications_finished
    }

    #[test]
    fn a_job_has_finished_when_all_but_the_proxy_have_ended_for_good() {
        assert!(finished("Never", &["meshwright-proxy", "work=1"]));
        assert!(finished("Never", &["work=0", "istio-proxy", "upload=3"]));
        assert!(!finished("Never", &["meshwright-proxy", "work=0", "upload"]));
        assert!(finished("OnFailure", &["meshwright-proxy", "work=0"]));
        assert!(!finished("OnFailure", &["meshwright-proxy", "work=1"]));
        assert!(!finished("Always", &["meshwright-proxy", "work=0"]));
        assert!(!finished("Never", &["meshwright-proxy"]), "a gateway works itself");
    }

    #[test]
    fn injected_pods_and_gateways_are_meshed() {
        for metadata in [
            json!({"annotations": {"meshwright.dev/status": "{}"}}),
            json!({"annotations": {"sidecar.istio.io/status": "{}"}}),
            json!({"labels": {"meshwright.dev/gateway": "ingress"}}),
        ] {
            assert!(pod(&metadata).meshed, "{metadata}");
        }
    }

    #[test]
    fn the_workload_is_the_deployment_not_its_replica_set() {
        let owned = |kind: &str, name: &str| {
            let owner = json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "", "controller": true});
            let labels = json!({"pod-template-hash": "7d9f"});
            pod(&json!({"name": "x", "labels": labels, "ownerReferences": [owner]})).workload
        };
        assert_eq!(&*owned("ReplicaSet", "cart-7d9f"), "cart");
        assert_eq!(&*owned("ReplicaSet", "cart-other"), "cart-other");
        assert_eq!(&*owned("StatefulSet", "db"), "db");
    }

    #[test]
    fn services_are_headless_external_or_have_addresses() {
        let service = |spec: serde_json::Value| {
            let service: core::Service = serde_json::from_value(json!({"spec": spec})).unwrap();
            snapshot::Service::from(service)
        };
        assert!(service(json!({"clusterIP": "None"})).headless);
        let external = service(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(external.external_name.as_deref(), Some("a.b"));
        let plain = service(json!({"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}));
        assert_eq!(plain.cluster_ips.len(), 1);
        assert_eq!(plain.ports[0].target, TargetPort::Number(80));
        assert_eq!(plain.ports[0].transport, "TCP");
    }

    #[test]
    fn endpoints_without_conditions_are_ready() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {"labels": {"kubernetes.io/service-name": "cart"}},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "cart-0"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true,
                    "terminating": true}},
            ],
            "ports": [{"name": "http", "port": 8080}],
        }))
        .unwrap();
        let slice = snapshot::EndpointSlice::from(slice);
        assert_eq!(&*slice.service, "cart");
        assert!(slice.endpoints[0].ready && slice.endpoints[0].serving);
        assert_eq!(slice.endpoints[0].pod.as_deref(), Some("cart-0"));
        let draining = &slice.endpoints[1];
        assert!(!draining.ready && draining.serving && draining.terminating);
    }
}
