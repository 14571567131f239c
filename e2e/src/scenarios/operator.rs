//! The operator keeps an installation as its spec says, says what keeps it from that, and is quiet
//! otherwise. All with an installation of its own, so that the mesh of the other tests is left alone.

mod bad_input;
mod cluster_state;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub use self::bad_input::{image_that_does_not_pull, quota_that_is_reached, right_taken_away};
use super::{
    collector::Collector,
    manifest,
    testbed::{self, SYSTEM},
};
use crate::{
    cluster::{Cluster, wait_for},
    steps,
};
use cluster_state::{Child, children, operator_writes};

/// Of the installation and its revision.
const NAME: &str = "operator-tests";
/// Of its gateway.
const NAMESPACE: &str = "operator-tests";
const GATEWAY: &str = "edge";
/// For pods to come up.
const PATIENCE: Duration = Duration::from_mins(3);

/// Whatever is deleted comes back, a changed field of ours is put back, and what others add stays.
pub fn drift_is_undone(cluster: &Cluster) -> Result<()> {
    install(cluster)?;
    let mut collector = Collector::default();
    let mut slowest = Duration::ZERO;
    for child in children(cluster, NAME)? {
        collector.case(&child.to_string(), || {
            let took = comes_back(cluster, &child)?;
            slowest = slowest.max(took);
            Ok(())
        });
    }
    steps::print(&format!("        the slowest child was back after {slowest:.1?}"));
    collector.case("a changed field and a foreign one", || owned_and_foreign(cluster));
    collector.verdict()?;
    ready(cluster)
}

fn comes_back(cluster: &Cluster, child: &Child) -> Result<Duration> {
    let begin = Instant::now();
    let mut delete = vec!["delete", child.kind.as_str(), child.name.as_str(), "--wait=false"];
    delete.extend(child.in_namespace());
    cluster.kubectl(&delete)?;
    wait_for(&format!("{child} to come back"), Duration::from_secs(30), || {
        let live = child.get(cluster)?;
        let metadata = &live["metadata"];
        let is_new = metadata["uid"] != json!(child.uid) && metadata["deletionTimestamp"].is_null();
        Ok(is_new.then_some(()))
    })?;
    Ok(begin.elapsed())
}

fn owned_and_foreign(cluster: &Cluster) -> Result<()> {
    let service = || cluster.kubectl_json(&["get", "service", GATEWAY, "--namespace", NAMESPACE]);
    let change = json!({
        "metadata": {"annotations": {"example.test/theirs": "kept"}},
        "spec": {"publishNotReadyAddresses": true, "selector": {"meshwright.dev/gateway": "nobody"}},
    });
    let text = change.to_string();
    let patch = ["patch", "service", GATEWAY, "--namespace", NAMESPACE, "--type=merge", "--patch"];
    cluster.kubectl(&[patch.as_slice(), &[text.as_str()]].concat())?;
    let begin = Instant::now();
    wait_for("the selector to be put back", Duration::from_secs(30), || {
        let selector = service()?["spec"]["selector"]["meshwright.dev/gateway"].clone();
        Ok((selector == GATEWAY).then_some(()))
    })?;
    steps::print(&format!("        a changed field was put back after {:.1?}", begin.elapsed()));
    let service = service()?;
    ensure!(
        service["metadata"]["annotations"]["example.test/theirs"] == "kept"
            && service["spec"]["publishNotReadyAddresses"] == true,
        "what another owns was taken away: {service}"
    );
    Ok(())
}

/// A settled installation costs no write, however often somebody looks at it.
pub fn settled_is_quiet(cluster: &Cluster) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(15);
    install(cluster)?;
    ready(cluster)?;
    let state = || {
        let versions: Vec<_> =
            children(cluster, NAME)?.into_iter().map(|child| child.resource_version).collect();
        anyhow::Ok((operator_writes(cluster)?, versions))
    };
    let mut since = Instant::now();
    let mut before = state()?;
    // What pods do at their start must have been told first.
    wait_for("fifteen seconds without a write", Duration::from_mins(2), || {
        // Somebody looks: a change that changes nothing of the spec.
        let touch = format!("example.test/touched={}", since.elapsed().as_millis());
        cluster.kubectl(&["annotate", "meshinstallation", NAME, "--overwrite", &touch])?;
        let now = state()?;
        if now != before {
            (since, before) = (Instant::now(), now);
        }
        ensure!(since.elapsed() >= QUIET, "the operator wrote {:.0?} ago", since.elapsed());
        Ok(Some(()))
    })
}

/// One profile after the other, each as it says it is.
pub fn profiles_in_turn(cluster: &Cluster) -> Result<()> {
    install(cluster)?;
    for (profile, replicas, scaled) in
        [("minimal", 1, false), ("ha", 2, true), ("demo", 1, false), ("default", 1, false)]
    {
        let spec = json!({
            "revision": NAME, "profile": profile,
            "gateways": [{"name": GATEWAY, "namespace": NAMESPACE, "serviceType": "ClusterIP"}],
        });
        apply(cluster, &spec)?;
        wait_for(&format!("profile {profile}"), PATIENCE, || {
            is_ready(cluster)?;
            let kinds: Vec<_> = children(cluster, NAME)?.into_iter().map(|c| c.kind).collect();
            for kind in ["HorizontalPodAutoscaler", "PodDisruptionBudget"] {
                let count = kinds.iter().filter(|found| *found == kind).count();
                ensure!(count == if scaled { 2 } else { 0 }, "{profile} has {count} of {kind}");
            }
            let name = format!("meshwright-control-plane-{NAME}");
            let get = ["get", "deployment", &name, "--namespace", SYSTEM];
            let available = cluster.kubectl_json(&get)?["status"]["availableReplicas"].clone();
            ensure!(available == replicas, "{profile} has {available} control planes");
            Ok(Some(()))
        })?;
    }
    remove(cluster)
}

/// The installation of these tests, ready.
fn install(cluster: &Cluster) -> Result<()> {
    manifest::apply(cluster, &[manifest::unlabelled_namespace(NAMESPACE)])?;
    apply(cluster, &spec())?;
    ready(cluster)
}

/// With every kind of child that there is.
fn spec() -> Value {
    json!({
        "revision": NAME,
        "gateways": [{
            "name": GATEWAY, "namespace": NAMESPACE, "serviceType": "ClusterIP",
            "autoscaling": {"minReplicas": 1, "maxReplicas": 2},
            "disruptionBudget": {"maxUnavailable": 1},
        }],
    })
}

fn apply(cluster: &Cluster, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": NAME}, "spec": spec,
    });
    manifest::apply(cluster, &[object])
}

fn remove(cluster: &Cluster) -> Result<()> {
    let delete = ["delete", "meshinstallation", NAME, "--ignore-not-found", "--timeout=90s"];
    cluster.kubectl(&delete)?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

fn installation(cluster: &Cluster) -> Result<Value> {
    cluster.kubectl_json(&["get", "meshinstallation", NAME])
}

fn ready(cluster: &Cluster) -> Result<()> {
    wait_for(&format!("MeshInstallation {NAME} ready"), PATIENCE, || is_ready(cluster).map(Some))
}

fn is_ready(cluster: &Cluster) -> Result<()> {
    let object = installation(cluster)?;
    let observed = &object["status"]["observedGeneration"];
    ensure!(*observed == object["metadata"]["generation"], "the status is about an older spec");
    for (kind, wanted) in [("Ready", "True"), ("Degraded", "False"), ("Progressing", "False")] {
        let condition = condition(&object, kind)?;
        ensure!(condition["status"] == wanted, "{kind}: {}", condition["message"]);
    }
    Ok(())
}

fn condition<'a>(object: &'a Value, kind: &str) -> Result<&'a Value> {
    let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.with_context(|| format!("no condition {kind} yet"))
}

/// Waits until a condition has this status and reason, and its message all of these words.
fn says(cluster: &Cluster, kind: &str, status: &str, reason: &str, words: &[&str]) -> Result<()> {
    wait_for(&format!("{kind} to be {status} for {reason}"), PATIENCE, || {
        let object = installation(cluster)?;
        let condition = condition(&object, kind)?;
        ensure!(
            condition["status"] == status && condition["reason"] == reason,
            "it is {} for {}: {}",
            condition["status"],
            condition["reason"],
            condition["message"]
        );
        let message = condition["message"].as_str().unwrap_or_default();
        for word in words {
            ensure!(message.contains(word), "{word} is not in {message:?}");
        }
        Ok(Some(()))
    })
}
