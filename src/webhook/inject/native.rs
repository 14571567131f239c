//! Where native sidecars (init containers that stay) work.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;

use super::{container::ProxySettings, options::Options};
use crate::api::meshwright::SidecarKind;

/// The first Kubernetes whose kubelet has native sidecars without being asked.
const FIRST: (u32, u32) = (1, 29);

/// Which nodes have native sidecars: all but those that are known not to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeSupport {
    without: Arc<BTreeSet<String>>,
}

impl NativeSupport {
    /// By the versions of the nodes' kubelets.
    pub fn of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let is_old = |node: &&Node| version(kubelet_version(node)).is_some_and(|v| v < FIRST);
        let old = nodes.into_iter().filter(is_old).map(ResourceExt::name_any);
        Self { without: Arc::new(old.collect()) }
    }

    /// Whether a pod may go to any node.
    pub fn everywhere(&self) -> bool {
        self.without.is_empty()
    }

    /// Whether this node has them.
    pub fn on(&self, node: &str) -> bool {
        !self.without.contains(node)
    }
}

impl ProxySettings {
    /// The defaults for a pod, by the node that it is bound to where it is bound to one.
    pub(super) fn defaults_for(&self, pod: &Pod) -> Cow<'_, Options> {
        let node = pod.spec.as_ref().and_then(bound_to);
        match node.map(|node| self.native.on(node)) {
            Some(native) if self.sidecar == SidecarKind::Auto && native != self.defaults.native => {
                Cow::Owned(Options { native, ..self.defaults.clone() })
            }
            _ => Cow::Borrowed(&self.defaults),
        }
    }
}

/// The version of a node's kubelet, empty where the node does not say.
pub fn kubelet_version(node: &Node) -> &str {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.map_or("", |info| &info.kubelet_version)
}

/// `v1.30.2-eks-0a1b2c3` → (1, 30).
fn version(kubelet: &str) -> Option<(u32, u32)> {
    let (major, rest) = kubelet.trim_start_matches('v').split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The node that the pod can run on. A DaemonSet names it by a field selector.
fn bound_to(spec: &PodSpec) -> Option<&str> {
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let field = term.match_fields.iter().flatten().find(|f| f.key == "metadata.name")?;
    match field.values.as_deref() {
        Some([node]) if field.operator == "In" => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes(versions: &[(&str, &str)]) -> NativeSupport {
        let node = |(name, version): &(&str, &str)| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": name},
                "status": {"nodeInfo": {"kubeletVersion": version}},
            }))
            .unwrap()
        };
        NativeSupport::of_nodes(&versions.iter().map(node).collect::<Vec<_>>())
    }

    #[test]
    fn one_old_kubelet_is_enough_to_be_careful() {
        let mixed = nodes(&[("a", "v1.30.2-eks-0a1b2c3"), ("b", "v1.28.15+k3s1")]);
        assert!(!mixed.everywhere());
        assert!(mixed.on("a") && !mixed.on("b"));
        assert!(mixed.on("joined-a-moment-ago"));
        assert!(nodes(&[("a", "v1.29.0-rc.1"), ("b", "v2.0.0")]).everywhere());
    }

    #[test]
    fn a_version_that_cannot_be_read_is_taken_for_a_new_one() {
        assert!(nodes(&[("a", ""), ("b", "unknown")]).everywhere());
    }

    #[test]
    fn a_bound_pod_is_judged_by_its_node() {
        let settings = ProxySettings {
            native: nodes(&[("old", "v1.28.0"), ("new", "v1.33.0")]),
            ..ProxySettings::default()
        };
        let native = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            settings.defaults_for(&pod).native
        };
        assert!(!native(json!({"containers": []})));
        assert!(native(json!({"containers": [], "nodeName": "new"})));
        assert!(!native(json!({"containers": [], "nodeName": "old"})));
        let on = json!([{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["new"]}]}]);
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": on}}});
        assert!(native(json!({"containers": [], "affinity": affinity})));
    }

    #[test]
    fn what_the_installation_says_beats_what_the_nodes_have() {
        let settings = ProxySettings { sidecar: SidecarKind::Classic, ..ProxySettings::default() };
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "nodeName": "n"}})).unwrap();
        assert!(!settings.defaults_for(&pod).native);
    }
}
