//! What the daemon asks of the API server about itself and its node.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// Taint of nodes whose pods could not be redirected yet. Nodes are made with it by whoever makes
/// nodes.
pub const TAINT: &str = "meshwright.dev/cni-not-ready";

/// Removes the taint from a node; one that does not have it stays as it is.
pub async fn remove_taint(client: &Client, node: &str) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get(node).await?;
    let Some(patch) = without_taint(&found) else { return Ok(()) };
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// The patch that takes our taint out, if it is there. Taints are replaced as a whole (their list is
/// atomic), so it holds for this version of the node alone.
fn without_taint(node: &Node) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_deref()?;
    let others: Vec<_> = taints.iter().filter(|taint| taint.key != TAINT).collect();
    let version = &node.metadata.resource_version;
    (others.len() < taints.len())
        .then(|| json!({"metadata": {"resourceVersion": version}, "spec": {"taints": others}}))
}

/// Whether the daemon ends because it is uninstalled, not because a new one takes its place.
pub async fn is_uninstalled(client: &Client, namespace: &str, daemonset: &str) -> bool {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    match sets.get_opt(daemonset).await {
        Ok(found) => found.is_none_or(|set| set.metadata.deletion_timestamp.is_some()),
        // Its rights went with it: `helm uninstall` deletes them in the same breath.
        Err(kube::Error::Api(status)) => matches!(status.code, 401 | 403),
        Err(error) => {
            tracing::warn!(%error, "cannot tell an upgrade from an uninstallation: the plugin stays");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_taint_is_taken_out_and_only_of_the_node_that_was_read() {
        let node = |taints: Value| -> Node {
            let node = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}});
            serde_json::from_value(node).unwrap()
        };
        let ours = json!({"key": TAINT, "effect": "NoSchedule"});
        let other = json!({"key": "gpu", "effect": "NoExecute"});
        assert_eq!(
            without_taint(&node(json!([ours, other]))),
            Some(json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}}))
        );
        let alone = without_taint(&node(json!([ours]))).unwrap();
        assert_eq!(alone["spec"]["taints"], json!([]));
        assert_eq!(without_taint(&node(json!([other]))), None);
        assert_eq!(without_taint(&node(Value::Null)), None);
    }
}
