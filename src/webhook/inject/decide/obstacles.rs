//! What keeps a pod from having a proxy, whoever asks for it.

use k8s_openapi::api::core::v1::{Container, NodeSelectorTerm, Pod, PodSpec};

use super::{KUBERNETES_NAMESPACES, Pairs, Reason};
use crate::{
    api::meshwright::labels,
    webhook::inject::{InjectConfig, Namespace},
};

/// What other meshes write on the pods that they inject: annotation or label, its value where that
/// matters, the mesh.
const MARKS: [(&str, Option<&str>, &str); 5] = [
    ("sidecar.istio.io/status", None, "Istio"),
    ("linkerd.io/proxy-version", None, "Linkerd"),
    ("consul.hashicorp.com/connect-inject-status", Some("injected"), "Consul"),
    ("kuma.io/sidecar-injected", Some("true"), "Kuma"),
    ("openservicemesh.io/sidecar-injection-status", Some("injected"), "Open Service Mesh"),
];
const VIRTUAL_KUBELET: &str = "virtual-kubelet";
/// Names that providers of virtual nodes give them.
const VIRTUAL_NODES: [&str; 2] = ["virtual-kubelet", "virtual-node"];

pub(super) fn find(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Option<Reason> {
    if KUBERNETES_NAMESPACES.contains(&namespace.name.as_str()) {
        return Some(Reason::KubernetesNamespace);
    }
    if namespace.name == config.system_namespace {
        return Some(Reason::OwnNamespace);
    }
    let annotations = Pairs(pod.metadata.annotations.as_ref());
    if is_static(annotations) {
        return Some(Reason::StaticPod);
    }
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        return Some(Reason::HostNetwork);
    }
    if runs_on_windows(spec) {
        return Some(Reason::Windows);
    }
    if let Some(by) = virtual_node(spec) {
        return Some(Reason::VirtualNode(by));
    }
    if let Some(status) = annotations.get(labels::STATUS) {
        let revision = injected_revision(status);
        if revision != config.revision {
            return Some(Reason::AlreadyInjected(revision));
        }
    }
    other_mesh(annotations, Pairs(pod.metadata.labels.as_ref()), spec).map(Reason::OtherMesh)
}

/// The kubelet keeps the mirror of a static pod as it is in its file.
fn is_static(annotations: Pairs<'_>) -> bool {
    annotations.get("kubernetes.io/config.mirror").is_some()
        || annotations.get("kubernetes.io/config.source").is_some_and(|source| source != "api")
}

fn runs_on_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
        || ["kubernetes.io/os", "beta.kubernetes.io/os"]
            .iter()
            .any(|key| node_must_have(spec, key, "windows"))
}

/// By what one sees that the pod goes to a node that is not one: a container service of a cloud. A
/// toleration alone does not send it there.
fn virtual_node(spec: &PodSpec) -> Option<String> {
    if node_must_have(spec, "type", VIRTUAL_KUBELET) {
        return Some(format!("node label type={VIRTUAL_KUBELET}"));
    }
    let on_node = spec.node_name.as_deref().map(|name| ("nodeName", name));
    let hostname = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/hostname"));
    let on_host = hostname.map(|name| ("node label kubernetes.io/hostname", name.as_str()));
    on_node
        .into_iter()
        .chain(on_host)
        .find(|(_, name)| VIRTUAL_NODES.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(field, name)| format!("{field}={name}"))
}

/// Whether the pod goes only to nodes with this label, by its selector or by its affinity.
fn node_must_have(spec: &PodSpec, key: &str, value: &str) -> bool {
    let selected = spec.node_selector.as_ref().and_then(|selector| selector.get(key));
    if selected.is_some_and(|selected| selected == value) {
        return true;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let asks = |term: &NodeSelectorTerm| {
        term.match_expressions.iter().flatten().any(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            expression.key == key && expression.operator == "In" && values == [value]
        })
    };
    required.is_some_and(|required| {
        !required.node_selector_terms.is_empty() && required.node_selector_terms.iter().all(asks)
    })
}

fn injected_revision(status: &str) -> String {
    serde_json::from_str::<serde_json::Value>(status)
        .ok()
        .and_then(|status| status.get("revision")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn other_mesh(annotations: Pairs<'_>, labels: Pairs<'_>, spec: &PodSpec) -> Option<&'static str> {
    let marked = |(key, value, _): &&(&str, Option<&str>, &str)| {
        let found = annotations.get(key).or_else(|| labels.get(key));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    };
    if let Some((_, _, mesh)) = MARKS.iter().find(marked) {
        return Some(mesh);
    }
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).find_map(foreign_proxy)
}

/// The mesh whose proxy this is. A container `istio-proxy` may also be the user's own settings for
/// ours; Istio's runs its agent.
fn foreign_proxy(container: &Container) -> Option<&'static str> {
    let first = container.args.as_ref().and_then(|args| args.first());
    let runs_istio = first.is_some_and(|first| first == "proxy");
    match container.name.as_str() {
        "istio-proxy" if runs_istio && container.image.as_deref() != Some("auto") => Some("Istio"),
        "linkerd-proxy" => Some("Linkerd"),
        "consul-dataplane" => Some("Consul"),
        "kuma-sidecar" => Some("Kuma"),
        _ => None,
    }
}
