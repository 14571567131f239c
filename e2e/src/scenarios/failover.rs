//! Two replicas of the operator: one leads, both inject, and neither is missed.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    manifest,
    resilience::is_ready,
    testbed::{self, SYSTEM, items},
    workloads::has_proxy,
};
use crate::{
    cluster::{Cluster, wait_for},
    process,
};

const OPERATOR: &str = "meshwright-operator";
const DEPLOYMENT: &str = "deployment/meshwright-operator";
const NAMESPACE: &str = "failover-tests";
/// From the leader's death to the other's work.
const FAILOVER: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_mins(2);
/// What the tests change and change back: a label of a child that the operator puts right.
const CHILD: &str = "service/meshwright-control-plane";

/// The leader stops dead, with the lease in its hands, and its pod is taken away: the other replica
/// does its work within 15 s.
pub fn leader_dies(cluster: &Cluster) -> Result<()> {
    manifest::rolled_out(cluster, SYSTEM, &[DEPLOYMENT])?;
    two_ready(cluster)?;
    let leader = leader(cluster)?;
    let process = process_of(&leader).context("the leader's process is not on this machine")?;
    // Frozen, it can release nothing when it is told to end; the kubelet kills it after a second.
    process::signal("STOP", &[process]);
    let began = Instant::now();
    let delete = ["delete", "pod", &leader, "--namespace", SYSTEM];
    cluster.kubectl(&[&delete[..], &["--grace-period=0", "--force", "--wait=false"]].concat())?;
    let generation = change_installation(cluster)?;
    wait_for("the change in force", FAILOVER.saturating_sub(began.elapsed()), || {
        let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let seen = object["status"]["observedGeneration"].as_i64().unwrap_or_default();
        Ok((seen >= generation).then_some(()))
    })?;
    ensure!(self::leader(cluster)? != leader, "the lease is still the dead one's");
    two_ready(cluster)
}

/// The leader's process is frozen for longer than its lease, as on a node that stalls: another leads,
/// and when it wakes up it finds that out before it writes anything.
pub fn frozen_leader_is_deposed(cluster: &Cluster) -> Result<()> {
    two_ready(cluster)?;
    let frozen = leader(cluster)?;
    let process = process_of(&frozen).context("the leader's process is not on this machine")?;
    process::signal("STOP", &[process]);
    let replaced = wait_for("another leader", FAILOVER, || {
        let now = leader(cluster)?;
        Ok((now != frozen).then_some(now))
    });
    process::signal("CONT", &[process]);
    let replaced = replaced?;
    wait_for("its own words that it does not lead", PATIENCE, || {
        let logs = cluster.kubectl(&["logs", "--namespace", SYSTEM, &frozen])?;
        let last = logs.lines().rev().find(|line| line.contains("leadership changed"));
        Ok(last.is_some_and(|line| line.contains("false")).then_some(()))
    })?;
    ensure!(leader(cluster)? == replaced, "it took the lease back");
    two_ready(cluster)
}

/// All replicas are replaced while pods are made without a pause: each is made, and has a proxy.
pub fn rolling_restart_misses_no_pod(cluster: &Cluster) -> Result<()> {
    two_ready(cluster)?;
    manifest::apply(cluster, &[manifest::namespace(NAMESPACE, true)])?;
    let pods = pods(cluster).to_string();
    let old = names(&operators(cluster)?);
    cluster.kubectl(&["rollout", "restart", "--namespace", SYSTEM, DEPLOYMENT])?;
    let (mut made, mut missed) = (0, None);
    wait_for("new replicas, and no old one", PATIENCE, || {
        match create(cluster, &pods) {
            Ok(count) => made += count,
            // Asking again would hide it.
            Err(error) => missed = missed.take().or(Some(error)),
        }
        let left = names(&operators(cluster)?);
        Ok((left.len() == 2 && !left.iter().any(|name| old.contains(name))).then_some(()))
    })?;
    if let Some(error) = missed {
        return Err(error.context(format!("after {made} pods")));
    }
    made += create(cluster, &pods)?;
    ensure!(made >= 100, "only {made} pods were made meanwhile");
    two_ready(cluster)?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// Two operators that both believe they lead: what they make is the same, so they come to rest.
pub fn two_at_once_converge(cluster: &Cluster) -> Result<()> {
    let alone = "--no-leader-election";
    let add =
        json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": alone}]);
    patch(cluster, &add)?;
    let outcome = both_reconcile(cluster);
    let deployment = cluster.kubectl_json(&["get", DEPLOYMENT, "--namespace", SYSTEM])?;
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    let index = args.and_then(|args| args.iter().position(|arg| arg == alone));
    let index = index.context("the argument is gone by itself")?;
    let path = format!("/spec/template/spec/containers/0/args/{index}");
    patch(cluster, &json!([{"op": "remove", "path": path}]))?;
    outcome
}

fn patch(cluster: &Cluster, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let arguments = ["patch", DEPLOYMENT, "--namespace", SYSTEM, "--type=json", "--patch", &patch];
    cluster.kubectl(&arguments)?;
    manifest::rolled_out(cluster, SYSTEM, &[DEPLOYMENT])?;
    two_ready(cluster)
}

fn both_reconcile(cluster: &Cluster) -> Result<()> {
    let generation = change_installation(cluster)?;
    wait_for("the change in force", PATIENCE, || {
        let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let seen = object["status"]["observedGeneration"].as_i64().unwrap_or_default();
        Ok((seen >= generation).then_some(()))
    })?;
    cluster.kubectl(&[
        "label",
        CHILD,
        "--namespace",
        SYSTEM,
        "app.kubernetes.io/part-of=other",
        "--overwrite",
    ])?;
    wait_for("the child put right", PATIENCE, || {
        let child = cluster.kubectl_json(&["get", CHILD, "--namespace", SYSTEM])?;
        let label = &child["metadata"]["labels"]["app.kubernetes.io/part-of"];
        Ok((label == "meshwright").then_some(()))
    })?;
    // At rest: several looks in a row that see the same versions of everything.
    let mut last = (String::new(), 0);
    wait_for("no more writes", PATIENCE, || {
        let now = versions(cluster)?;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        Ok((last.1 >= 20).then_some(()))
    })
}

/// Versions of the installation and of what was made for it.
fn versions(cluster: &Cluster) -> Result<String> {
    let path = "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion} {end}";
    let made = ["get", "services,serviceaccounts,roles,rolebindings", "--namespace", SYSTEM];
    let selector = ["--selector", "meshwright.dev/installation=default", path];
    let made = cluster.kubectl(&[&made[..], &selector].concat())?;
    Ok(made + &cluster.kubectl(&["get", "meshinstallations", path])?)
}

/// A change of the spec that the mesh does not feel; its generation.
fn change_installation(cluster: &Cluster) -> Result<i64> {
    let get = ["get", "meshinstallation", "default"];
    let before = cluster.kubectl_json(&get)?;
    let level = if before["spec"]["proxy"]["logLevel"] == "error" { "warning" } else { "error" };
    let patch = json!({"spec": {"proxy": {"logLevel": level}}}).to_string();
    cluster.kubectl(&[
        "patch",
        "meshinstallation",
        "default",
        "--type=merge",
        "--patch",
        &patch,
    ])?;
    cluster.kubectl_json(&get)?["metadata"]["generation"].as_i64().context("no generation")
}

/// The pod that holds the lease.
fn leader(cluster: &Cluster) -> Result<String> {
    wait_for("a leader", PATIENCE, || {
        let lease = cluster.kubectl_json(&["get", "lease", OPERATOR, "--namespace", SYSTEM])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok((!holder.is_empty()).then(|| holder.to_owned()))
    })
}

fn operators(cluster: &Cluster) -> Result<Vec<Value>> {
    let selector = "app=meshwright-operator";
    let pods =
        cluster.kubectl_json(&["get", "pods", "--namespace", SYSTEM, "--selector", selector])?;
    Ok(items(&pods).cloned().collect())
}

fn names(pods: &[Value]) -> Vec<String> {
    pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

fn two_ready(cluster: &Cluster) -> Result<()> {
    wait_for("two ready operators", PATIENCE, || {
        let pods = operators(cluster)?;
        Ok((pods.len() == 2 && pods.iter().all(is_ready)).then_some(()))
    })
}

/// Pods that are only asked for: the webhook sees them, and no node is any the worse for it.
fn pods(cluster: &Cluster) -> Value {
    let container = manifest::container("app", cluster.testapp_image(), &["pause".to_owned()]);
    let pod = |index: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": format!("pod-{index}")},
            "spec": {"containers": [container]},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": (0..10).map(pod).collect::<Vec<_>>()})
}

/// Makes them; how many. Every one has a proxy.
fn create(cluster: &Cluster, pods: &str) -> Result<usize> {
    let arguments = ["create", "--dry-run=server", "--output=json", "--filename", "-"];
    let made = cluster.kubectl_with_input(&arguments, pods).context("a pod cannot be made")?;
    // One document after the other.
    let mut count = 0;
    for pod in serde_json::Deserializer::from_str(&made).into_iter::<Value>() {
        let pod = pod?;
        ensure!(has_proxy(&pod), "{} has no proxy", pod["metadata"]["name"]);
        count += 1;
    }
    Ok(count)
}

/// The operator's process in a pod, by its environment: pods run on this machine.
fn process_of(pod: &str) -> Option<u32> {
    let wanted = format!("POD_NAME={pod}");
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|process| process.path());
    processes.into_iter().find_map(|process| {
        let is_operator =
            words_of(&process.join("cmdline")).get(1).is_some_and(|w| w == "operator");
        let ours = is_operator && words_of(&process.join("environ")).contains(&wanted);
        ours.then(|| process.file_name()?.to_str()?.parse().ok())?
    })
}

fn words_of(file: &Path) -> Vec<String> {
    let text = fs::read(file).unwrap_or_default();
    let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
