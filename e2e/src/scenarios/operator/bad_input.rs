//! What goes wrong at run time is said, the rest goes on, and it heals when the cause is gone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{GATEWAY, NAMESPACE, PATIENCE, apply, install, ready, says, spec};
use crate::{
    cluster::{Cluster, wait_for},
    scenarios::{manifest, testbed},
};

const ROLE: &str = "meshwright-operator";
const QUOTA: &str = "no-more-pods";

/// A quota keeps the gateway's new pods from being made.
pub fn quota_that_is_reached(cluster: &Cluster) -> Result<()> {
    install(cluster)?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": QUOTA, "namespace": NAMESPACE},
        "spec": {"hard": {"pods": "1"}},
    });
    manifest::apply(cluster, &[quota])?;
    wait_for("the quota to count", PATIENCE, || {
        let get = ["get", "resourcequota", QUOTA, "--namespace", NAMESPACE];
        let used = cluster.kubectl_json(&get)?["status"]["used"]["pods"].clone();
        Ok((used == "1").then_some(()))
    })?;
    let mut more = spec();
    more["gateways"][0]["labels"] = json!({"example.test/renewed": "true"});
    apply(cluster, &more)?;
    let words = ["exceeded quota", &format!("{NAMESPACE}/{GATEWAY}")];
    says(cluster, "Degraded", "True", "QuotaExceeded", &words)?;
    // The old pod goes on serving.
    says(cluster, "ControlPlaneReady", "True", "Available", &[])?;
    testbed::delete(cluster, NAMESPACE, "resourcequota", QUOTA)?;
    ready(cluster)
}

/// A version whose images nobody has.
pub fn image_that_does_not_pull(cluster: &Cluster) -> Result<()> {
    install(cluster)?;
    let mut missing = spec();
    missing["version"] = json!("0.0.0-missing");
    apply(cluster, &missing)?;
    says(cluster, "Degraded", "True", "ImagePullFailed", &["0.0.0-missing"])?;
    // The pods of the version before go on serving.
    says(cluster, "ControlPlaneReady", "True", "Available", &[])?;
    says(cluster, "GatewaysReady", "True", "Available", &[])?;
    apply(cluster, &spec())?;
    ready(cluster)
}

/// The operator loses a right: it names it, and does what it still may.
pub fn right_taken_away(cluster: &Cluster) -> Result<()> {
    install(cluster)?;
    let role = cluster.kubectl_json(&["get", "clusterrole", ROLE])?;
    replace(cluster, without_deployments(role.clone())?)?;
    let outcome = right_is_missed(cluster);
    // Whatever was seen, the mesh of the other tests needs its operator.
    replace(cluster, role)?;
    outcome?;
    ready(cluster)
}

fn right_is_missed(cluster: &Cluster) -> Result<()> {
    testbed::delete(cluster, NAMESPACE, "deployment", GATEWAY)?;
    let words = ["patch", "deployments", NAMESPACE];
    says(cluster, "GatewaysReady", "False", "Forbidden", &words)?;
    says(cluster, "ControlPlaneReady", "True", "Available", &[])?;
    testbed::delete(cluster, NAMESPACE, "service", GATEWAY)?;
    wait_for("the Service to come back all the same", PATIENCE, || {
        cluster.kubectl(&["get", "service", GATEWAY, "--namespace", NAMESPACE])?;
        Ok(Some(()))
    })
}

fn without_deployments(mut role: Value) -> Result<Value> {
    let rules = role["rules"].as_array_mut().context("the role has no rules")?;
    let mut found = false;
    for rule in rules {
        let names = |list: &Value, name: &str| {
            list.as_array().is_some_and(|items| items.iter().any(|item| item == name))
        };
        if names(&rule["resources"], "deployments") && names(&rule["verbs"], "patch") {
            rule["verbs"] = json!(["get", "list", "watch"]);
            found = true;
        }
    }
    ensure!(found, "no rule lets the operator patch Deployments");
    Ok(role)
}

fn replace(cluster: &Cluster, mut role: Value) -> Result<()> {
    let metadata = role["metadata"].as_object_mut().context("an object has metadata")?;
    metadata.remove("resourceVersion");
    metadata.remove("managedFields");
    cluster.kubectl_with_input(&["replace", "--filename", "-"], &role.to_string()).map(drop)
}
