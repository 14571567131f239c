//! What the daemon asks of the API server about itself and its node.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Taint of nodes whose pods could not be redirected yet. Nodes are made with it by whoever makes
/// nodes.
pub const TAINT: &str = "meshwright.dev/cni-not-ready";

/// Removes the taint from a node; one that does not have it stays as it is.
pub async fn remove_taint(client: &Client, node: &str) -> Result<(), kube::Error> {
    let patch = json!({"spec": {"taints": [{"$patch": "delete", "key": TAINT}]}});
    let nodes: Api<Node> = Api::all(client.clone());
    // Of a strategic patch, the API server takes out what has this key, and nothing else.
    nodes.patch(node, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
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
