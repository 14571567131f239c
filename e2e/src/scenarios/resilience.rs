//! What may happen to a mesh without a request being lost.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    balancing::{self, SPREAD},
    client::{Outcome, PROPAGATION},
    load,
    manifest::{self, Port, Workload},
    testbed::{self, MESHED, SYSTEM},
};
use crate::cluster::{Cluster, wait_for};

const ROLLING: &str = "rolling-tests";
const LOAD: &str = "load";
const URL: &str = "http://spread/item";
const OUTAGE: Duration = Duration::from_mins(1);

/// All pods of a service are replaced while 5,000 requests go to it.
pub fn rolling_restart_loses_nothing(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let server =
        Workload::server(ROLLING, "server", "v1", &["--http", "8080"]).replicas(2).ready_on(8080);
    let mut objects = vec![
        manifest::namespace(ROLLING, true),
        manifest::service(ROLLING, "server", "server", &[Port::named("http", 80, 8080)]),
    ];
    objects.extend(server.objects(image));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, ROLLING, &["deploy/server"])?;
    let flags = ["--rate", "250", "--concurrency", "8"];
    manifest::apply(
        cluster,
        &load::deployment(ROLLING, LOAD, "http://server/", &flags).objects(image),
    )?;
    manifest::rolled_out(cluster, ROLLING, &["deploy/load"])?;
    until_requests(cluster, ROLLING, 500)?;
    let old = pods_of(cluster, ROLLING, "server")?;
    cluster.kubectl(&["rollout", "restart", "--namespace", ROLLING, "deploy/server"])?;
    manifest::rolled_out(cluster, ROLLING, &["deploy/server"])?;
    for pod in &old {
        let pod = format!("pod/{pod}");
        let arguments = ["wait", "--for=delete", &pod, "--namespace", ROLLING, "--timeout=60s"];
        cluster.kubectl(&arguments)?;
    }
    until_requests(cluster, ROLLING, 5000)?;
    let summary = load::stop(cluster, ROLLING, LOAD)?.without_failures()?;
    ensure!(summary.requests() >= 5000, "only {} requests", summary.requests());
    testbed::delete_namespace(cluster, ROLLING)
}

fn until_requests(cluster: &Cluster, namespace: &str, requests: u64) -> Result<()> {
    wait_for(&format!("{requests} requests"), Duration::from_mins(2), || {
        Ok((load::so_far(cluster, namespace, LOAD)?.requests() >= requests).then_some(()))
    })
}

fn pods_of(cluster: &Cluster, namespace: &str, app: &str) -> Result<Vec<String>> {
    let selector = format!("app={app}");
    let pods = cluster.kubectl_json(&[
        "get",
        "pods",
        "--namespace",
        namespace,
        "--selector",
        &selector,
    ])?;
    Ok(testbed::items(&pods)
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect())
}

/// Without a control plane for a minute, requests go on as they were, and what was changed
/// meanwhile is in force soon after it is back.
pub fn control_plane_outage(cluster: &Cluster) -> Result<()> {
    balancing::ensure_versions(cluster)?;
    let (v1, v2) = (route_to("v1"), route_to("v2"));
    manifest::apply(cluster, &[v1])?;
    let client = testbed::meshed_client(cluster);
    only(cluster, "spread/v1", PROPAGATION)?;
    let load = load::deployment(MESHED, LOAD, URL, &["--rate", "50", "--concurrency", "4"]);
    manifest::apply(cluster, &load.objects(cluster.testapp_image()))?;
    manifest::rolled_out(cluster, MESHED, &["deploy/load"])?;
    client.until("the load's way", URL, &[], Outcome::ok)?;
    let outage = Outage::begin(cluster)?;
    let began = Instant::now();
    manifest::apply(cluster, &[v2])?;
    wait_for("the end of the outage", OUTAGE + PROPAGATION, || {
        load::so_far(cluster, MESHED, LOAD)?.without_failures()?;
        Ok((began.elapsed() >= OUTAGE).then_some(()))
    })?;
    ensure!(control_planes(cluster)? == 0, "the control plane came back during the outage");
    let summary = load::so_far(cluster, MESHED, LOAD)?.without_failures()?;
    ensure!(summary.percent("spread/v1") >= 100.0, "answered by {:?}", summary.versions());
    outage.end()?;
    // Proxies look for their control plane again at intervals that grow up to half a minute.
    only(cluster, "spread/v2", Duration::from_mins(1))?;
    load::stop(cluster, MESHED, LOAD)?.without_failures()?;
    testbed::delete(cluster, MESHED, "deployment", LOAD)?;
    testbed::delete(cluster, MESHED, "virtualservice", SPREAD)
}

fn route_to(version: &str) -> Value {
    manifest::virtual_service(MESHED, SPREAD, &[SPREAD], &testbed::all_to(SPREAD, version))
}

/// Waits until one version gets every request.
fn only(cluster: &Cluster, version: &str, timeout: Duration) -> Result<()> {
    let client = testbed::meshed_client(cluster);
    wait_for(&format!("{version} alone"), timeout, || {
        let summary = client.run(URL, &["--count", "20"])?.without_failures()?;
        Ok((summary.percent(version) >= 100.0).then_some(()))
    })
}

/// A control plane that was killed and cannot come back. Its Deployment stays as it is, for the
/// operator would put it right at once; a quota keeps its ReplicaSet from making pods.
pub(super) struct Outage<'a> {
    cluster: &'a Cluster,
    over: bool,
}

const QUOTA: &str = "no-new-pods";
const CONTROL_PLANE: &str = "meshwright-control-plane-";

impl<'a> Outage<'a> {
    pub(super) fn begin(cluster: &'a Cluster) -> Result<Self> {
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"namespace": SYSTEM, "name": QUOTA},
            "spec": {"hard": {"pods": "0"}},
        });
        let outage = Self { cluster, over: false };
        manifest::apply(cluster, &[quota])?;
        wait_for("the quota in force", PROPAGATION, || {
            let arguments = ["get", "resourcequota", QUOTA, "--namespace", SYSTEM];
            let quota = cluster.kubectl_json(&arguments)?;
            Ok((quota["status"]["hard"]["pods"] == "0").then_some(()))
        })?;
        let pods = cluster.kubectl_json(&["get", "pods", "--namespace", SYSTEM])?;
        for pod in names_with(&pods, CONTROL_PLANE) {
            // Not `--force`: that forgets the object while the process still serves. Killed after a
            // second, and waited for.
            let arguments = ["delete", "pod", pod, "--namespace", SYSTEM, "--grace-period=1"];
            cluster.kubectl(&[&arguments, ["--wait"].as_slice()].concat())?;
        }
        wait_for("no control plane", PROPAGATION, || {
            Ok((control_planes(cluster)? == 0).then_some(()))
        })?;
        Ok(outage)
    }

    /// Lets it come back, and waits until it has.
    pub(super) fn end(mut self) -> Result<()> {
        self.over = true;
        self.lift()?;
        wait_for("the control plane back", Duration::from_mins(1), || {
            Ok((control_planes(self.cluster)? > 0).then_some(()))
        })
    }

    fn lift(&self) -> Result<()> {
        testbed::delete(self.cluster, SYSTEM, "resourcequota", QUOTA)?;
        // After a minute of refusals the controller would wait another; a change makes it look now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
        let mark = format!("meshwright.dev/outage-over={}", now.as_millis());
        let sets = self.cluster.kubectl_json(&["get", "replicasets", "--namespace", SYSTEM])?;
        for set in names_with(&sets, CONTROL_PLANE) {
            let arguments = ["annotate", "replicaset", set, &mark, "--namespace", SYSTEM];
            self.cluster.kubectl(&[&arguments, ["--overwrite"].as_slice()].concat())?;
        }
        Ok(())
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if !self.over {
            // The test has failed and says why; this only keeps the next ones from failing too.
            let _ = self.lift();
        }
    }
}

/// How many control planes are ready.
fn control_planes(cluster: &Cluster) -> Result<usize> {
    let pods = cluster.kubectl_json(&["get", "pods", "--namespace", SYSTEM])?;
    Ok(testbed::items(&pods)
        .filter(|pod| name(pod).starts_with(CONTROL_PLANE) && is_ready(pod))
        .count())
}

fn names_with<'a>(list: &'a Value, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    testbed::items(list).map(name).filter(move |name| name.starts_with(prefix))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a pod is ready and not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|conditions| conditions.iter().any(ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_on_its_way_out_is_not_ready() {
        let pod = json!({
            "metadata": {"name": "meshwright-control-plane-1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert!(is_ready(&pod));
        let mut leaving = pod.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
        assert!(!is_ready(&leaving));
        assert!(!is_ready(&json!({"metadata": {}, "status": {}})));
        let list = json!({"items": [pod, {"metadata": {"name": "meshwright-operator-1"}}]});
        assert_eq!(
            names_with(&list, CONTROL_PLANE).collect::<Vec<_>>(),
            ["meshwright-control-plane-1"]
        );
    }
}
