//! What the operator knows of every proxy, as the status of the installation says it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    manifest::{self, Workload},
    resilience::{Outage, is_ready},
    testbed::{self, SYSTEM},
};
use crate::cluster::{Cluster, wait_for};

const NAMESPACE: &str = "fleet-tests";
const PROXY: &str = "meshwright-proxy";
/// Images are pulled, pods start, proxies look for their control plane at growing intervals, and the
/// status settles for a few seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// Counts follow pods, replicas of the control plane and its absence.
pub fn is_known(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let workload = Workload::server(NAMESPACE, "server", "v1", &["--http", "8080"]);
    let mut objects = vec![manifest::namespace(NAMESPACE, true)];
    objects.extend(workload.replicas(2).ready_on(8080).objects(cluster.testapp_image()));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server"])?;
    all_well(cluster, "two more proxies")?;
    certificates_end_later(cluster)?;
    outdated_image_counts(cluster)?;
    cluster.kubectl(&["scale", "--namespace", NAMESPACE, "deploy/server", "--replicas=1"])?;
    all_well(cluster, "one proxy less")?;
    two_control_planes(cluster)?;
    control_plane_away(cluster)?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// The proxy of a running pod gets an image that there is not; the next pod has the right one.
fn outdated_image_counts(cluster: &Cluster) -> Result<()> {
    let pods = cluster.kubectl_json(&["get", "pods", "--namespace", NAMESPACE])?;
    let pod = testbed::items(&pods).find(|pod| is_ready(pod)).context("no pod is ready")?;
    let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
    let container = json!({"name": PROXY, "image": "meshwright.dev/meshwright-proxy:0.0.1"});
    let patch = json!({"spec": {"initContainers": [container]}}).to_string();
    cluster.kubectl(&["patch", "pod", name, "--namespace", NAMESPACE, "--patch", &patch])?;
    wait_for("the outdated proxy counted", PATIENCE, || {
        let outdated = status(cluster)?["proxies"]["outdated"].as_u64();
        Ok((outdated == Some(1)).then_some(()))
    })?;
    cluster.kubectl(&["delete", "pod", name, "--namespace", NAMESPACE, "--wait=false"])?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server"])?;
    all_well(cluster, "no outdated proxy")
}

fn certificates_end_later(cluster: &Cluster) -> Result<()> {
    let status = status(cluster)?;
    let mut certificates = status["certificates"].as_array().into_iter().flatten();
    let proxies = certificates.find(|certificate| certificate["name"] == "proxies");
    let ends = proxies.and_then(|proxies| proxies["notAfter"].as_str());
    let ends = ends.with_context(|| format!("no certificate of proxies in {status}"))?;
    // Both in the same form and zone, in which the order of texts is that of times.
    let now = cluster.command("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    let now = String::from_utf8(now.stdout)?;
    ensure!(ends > now.trim(), "proxies' certificates ended at {ends}, it is {now}");
    Ok(())
}

/// Each replica knows its own share of the proxies.
fn two_control_planes(cluster: &Cluster) -> Result<()> {
    replicas(cluster, 2)?;
    cluster.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, "deploy/server"])?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server"])?;
    all_well(cluster, "all proxies with two control planes")?;
    replicas(cluster, 1)?;
    all_well(cluster, "all proxies with one control plane again")
}

fn replicas(cluster: &Cluster, count: u32) -> Result<()> {
    let patch = json!({"spec": {"controlPlane": {"replicas": count}}}).to_string();
    let arguments = ["patch", "meshinstallation", "default", "--type=merge", "--patch", &patch];
    cluster.kubectl(&arguments)?;
    wait_for(&format!("{count} control planes"), PATIENCE, || {
        let selector = "app=meshwright-control-plane";
        let arguments = ["get", "pods", "--namespace", SYSTEM, "--selector", selector];
        let pods = cluster.kubectl_json(&arguments)?;
        let running: Vec<_> = testbed::items(&pods).collect();
        let ready = running.iter().filter(|pod| is_ready(pod)).count();
        let expected = usize::try_from(count)?;
        Ok((ready == expected && running.len() == expected).then_some(()))
    })
}

/// Without a control plane nobody knows what proxies are configured with, and the status says so.
fn control_plane_away(cluster: &Cluster) -> Result<()> {
    let outage = Outage::begin(cluster)?;
    wait_for("the status to say that it does not know", PATIENCE, || {
        let status = status(cluster)?;
        let ready = condition(&status, "ProxiesReady")?;
        ensure!(ready["status"] == "Unknown", "ProxiesReady is {ready}");
        ensure!(ready["reason"] == "NotKnown", "ProxiesReady is {ready}");
        Ok(Some(()))
    })?;
    outage.end()?;
    all_well(cluster, "all proxies with the control plane back")
}

/// Waits until the status counts exactly the pods that have a proxy, and all is well with them.
fn all_well(cluster: &Cluster, what: &str) -> Result<()> {
    wait_for(what, PATIENCE, || {
        let selector = "meshwright.dev/revision=default";
        let list = ["get", "pods", "--all-namespaces", "--selector", selector];
        let pods = cluster.kubectl_json(&list)?;
        let expected = testbed::items(&pods).filter(|pod| runs_proxy(pod)).count();
        let status = status(cluster)?;
        let proxies = &status["proxies"];
        let count = |name: &str| proxies[name].as_u64().and_then(|n| usize::try_from(n).ok());
        ensure!(count("total") == Some(expected), "{expected} pods, counted: {proxies}");
        ensure!(count("current") == Some(expected), "not all are current: {proxies}");
        ensure!(count("outdated") == Some(0) && count("rejected") == Some(0), "{proxies}");
        for kind in ["ProxiesReady", "ProxiesSupported"] {
            let condition = condition(&status, kind)?;
            ensure!(condition["status"] == "True", "{kind} is {condition}");
        }
        Ok(Some(()))
    })
}

fn status(cluster: &Cluster) -> Result<Value> {
    let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    Ok(object["status"].clone())
}

fn condition<'a>(status: &'a Value, kind: &str) -> Result<&'a Value> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|c| c["type"] == kind).with_context(|| format!("no condition {kind}"))
}

/// Whether the operator counts a pod.
fn runs_proxy(pod: &Value) -> bool {
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let mut containers = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    !over && containers.any(|container| container["name"] == PROXY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_operator_counts() {
        let gateway = json!({"spec": {"containers": [{"name": PROXY}]}});
        let mut sidecar =
            json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": PROXY}]}});
        assert!(runs_proxy(&gateway) && runs_proxy(&sidecar));
        sidecar["status"]["phase"] = json!("Succeeded");
        assert!(!runs_proxy(&sidecar));
        assert!(!runs_proxy(&json!({"spec": {"containers": [{"name": "a"}]}})));
    }
}
