//! Running proxies come to a new image, while requests go through them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    load,
    manifest::{self, Port, Workload},
    testbed,
};
use crate::cluster::{Cluster, wait_for};

const ROLLING: &str = "rolling-fleet-tests";
const IN_PLACE: &str = "in-place-tests";
/// Where requests come from; its proxies are left alone.
const CALLERS: &str = "rollout-callers";
const LOAD: &str = "load";
const PROXY: &str = "meshwright-proxy";
const APP: &str = "app";
/// Nobody listens there, so that the answer comes at once.
const MISSING: &str = "127.0.0.1:1/meshwright-proxy:none";
const PATIENCE: Duration = Duration::from_mins(4);

/// Workloads are restarted in waves of one. A PodDisruptionBudget without room keeps one of them
/// until it has room; an image that is nowhere stops it before the next wave; the way back heals what
/// it broke. No request fails in all this.
pub fn rolling_in_waves(cluster: &Cluster) -> Result<()> {
    let next = cluster.image("meshwright-proxy-next").context("there is no second image")?;
    let image = cluster.testapp_image();
    let first = Workload::server(ROLLING, "first", "v1", &["--http", "8080"]).ready_on(8080);
    let server =
        Workload::server(ROLLING, "server", "v1", &["--http", "8080"]).replicas(2).ready_on(8080);
    let mut objects = vec![manifest::namespace(ROLLING, true), budget(2)];
    objects.extend(first.objects(image));
    objects.extend(server.objects(image));
    objects.push(manifest::service(ROLLING, "server", "server", &[Port::named("http", 80, 8080)]));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, ROLLING, &["deploy/first", "deploy/server"])?;
    begin_load(cluster, &format!("http://server.{ROLLING}/"))?;

    let outcome = roll(cluster, next);
    // Whatever went wrong, the tests after this one need the installation as it was.
    let restored = restore(cluster);
    outcome?;
    restored?;
    end_load(cluster)?;
    testbed::delete_namespace(cluster, ROLLING)
}

fn roll(cluster: &Cluster, next: &str) -> Result<()> {
    let policy = json!({
        "strategy": "Rolling", "waveSize": 1, "pause": "1s", "deadline": "3m",
        "excludeNamespaces": all_but(ROLLING),
    });
    let before = uids(cluster, ROLLING, "server")?;
    change(cluster, &json!({"proxy": {"image": next}, "fleet": policy}))?;
    wait_for("the budget to be what is waited for", PATIENCE, || {
        let rollout = rollout(cluster)?;
        let message = rollout["message"].as_str().unwrap_or_default();
        ensure!(
            rollout["phase"] == "Waiting" && message.contains(&format!("{ROLLING}/server")),
            "{rollout}"
        );
        ensure!(message.contains("PodDisruptionBudget"), "{message}");
        Ok(Some(()))
    })?;
    ensure!(
        uids(cluster, ROLLING, "server")? == before,
        "pods were taken away in spite of a budget"
    );
    ensure!(proxies(cluster, ROLLING, "first")? == [next], "the first workload is not new");
    manifest::apply(cluster, &[budget(1)])?;
    done(cluster, next)?;
    let rollout = rollout(cluster)?;
    ensure!(rollout["wave"] == 2 && rollout["waves"] == 2, "not two waves: {rollout}");
    ensure!(proxies(cluster, ROLLING, "server")? == [next, next], "the second is not new");
    shown(cluster)?;

    // It goes wrong.
    let (first, server) = (uids(cluster, ROLLING, "first")?, uids(cluster, ROLLING, "server")?);
    change(cluster, &json!({"proxy": {"image": MISSING}}))?;
    stopped(cluster, &["Deployment rolling-fleet-tests/first", MISSING, "ImagePull"])?;
    told(cluster, "Deployment rolling-fleet-tests/first")?;
    ensure!(uids(cluster, ROLLING, "server")? == server, "the other workload was touched");
    let still = uids(cluster, ROLLING, "first")?;
    ensure!(still.contains_key(first.keys().next().context("a pod")?), "the old pod is gone");

    // And back.
    change(cluster, &json!({"proxy": {"image": next}}))?;
    done(cluster, next)?;
    wait_for("what was broken to be well", PATIENCE, || {
        Ok((proxies(cluster, ROLLING, "first")? == [next]).then_some(()))
    })
}

/// The sidecars of a service's pods get another image, one pod after the other. The application's
/// containers are the same afterwards, and no request to them failed. One that cannot be had is
/// taken back.
pub fn in_place_beside_the_application(cluster: &Cluster) -> Result<()> {
    let next = cluster.image("meshwright-proxy-next").context("there is no second image")?;
    let server =
        Workload::server(IN_PLACE, "server", "v1", &["--http", "8080"]).replicas(2).ready_on(8080);
    let [account, mut deployment] = server.objects(cluster.testapp_image());
    // Four noes in twenty seconds would be the default.
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({
        "meshwright.dev/readiness-period-seconds": "1",
        "meshwright.dev/readiness-failure-threshold": "2",
    });
    let service = manifest::service(IN_PLACE, "server", "server", &[Port::named("http", 80, 8080)]);
    let namespace = manifest::namespace(IN_PLACE, true);
    manifest::apply(cluster, &[namespace, account, service, deployment])?;
    manifest::rolled_out(cluster, IN_PLACE, &["deploy/server"])?;
    begin_load(cluster, &format!("http://server.{IN_PLACE}/"))?;

    let outcome = replace(cluster, next);
    let restored = restore(cluster);
    outcome?;
    restored?;
    end_load(cluster)?;
    testbed::delete_namespace(cluster, CALLERS)?;
    testbed::delete_namespace(cluster, IN_PLACE)
}

fn replace(cluster: &Cluster, next: &str) -> Result<()> {
    let policy = json!({
        "strategy": "InPlace", "waveSize": 1, "pause": "0s", "deadline": "3m",
        "excludeNamespaces": all_but(IN_PLACE),
    });
    let applications = containers(cluster, APP)?;
    let sidecars = containers(cluster, PROXY)?;
    change(cluster, &json!({"proxy": {"image": next}, "fleet": policy}))?;
    done(cluster, next)?;
    ensure!(proxies(cluster, IN_PLACE, "server")? == [next, next], "not all sidecars are new");
    ensure!(
        containers(cluster, APP)? == applications,
        "an application's container is not the one it was"
    );
    let renewed = containers(cluster, PROXY)?;
    for (pod, (id, _)) in &sidecars {
        let now = renewed.get(pod).with_context(|| format!("{pod} is gone"))?;
        ensure!(now.0 != *id, "{pod} has the sidecar that it had");
    }

    // The kubelet does not say in the pod's status that it cannot pull another image for a container that
    // ran, so only time tells.
    change(cluster, &json!({"proxy": {"image": MISSING}, "fleet": {"deadline": "45s"}}))?;
    stopped(cluster, &["Deployment in-place-tests/server", "45s"])?;
    wait_for("the former image", PATIENCE, || {
        let images = proxies(cluster, IN_PLACE, "server")?;
        ensure!(images == [next, next], "{images:?}");
        Ok(Some(()))
    })?;
    manifest::rolled_out(cluster, IN_PLACE, &["deploy/server"])?;
    let after = containers(cluster, APP)?;
    ensure!(after == applications, "an application's container is not the one it was");
    Ok(())
}

fn begin_load(cluster: &Cluster, url: &str) -> Result<()> {
    let load = load::deployment(CALLERS, LOAD, url, &["--rate", "100", "--concurrency", "4"]);
    let mut objects = vec![manifest::namespace(CALLERS, true)];
    objects.extend(load.objects(cluster.testapp_image()));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, CALLERS, &["deploy/load"])?;
    wait_for("requests", PATIENCE, || {
        Ok((load::so_far(cluster, CALLERS, LOAD)?.requests() >= 100).then_some(()))
    })
}

fn end_load(cluster: &Cluster) -> Result<()> {
    load::stop(cluster, CALLERS, LOAD)?.without_failures()?;
    testbed::delete(cluster, CALLERS, "deployment", LOAD)
}

/// As all other tests have it.
fn restore(cluster: &Cluster) -> Result<()> {
    change(cluster, &json!({"proxy": null, "fleet": null}))?;
    wait_for("the gateway with its former proxy", PATIENCE, || {
        let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        ensure!(seen, "the last change is not in force");
        let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
        for (kind, status) in [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False")] {
            let condition = conditions.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null);
            ensure!(condition["status"] == status, "{condition}");
        }
        Ok(Some(()))
    })
}

fn change(cluster: &Cluster, spec: &Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    let arguments = ["patch", "meshinstallation", "default", "--type", "merge", "--patch", &patch];
    cluster.kubectl(&arguments).map(drop)
}

fn rollout(cluster: &Cluster) -> Result<Value> {
    let mut object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    Ok(object["status"]["rollout"].take())
}

fn done(cluster: &Cluster, image: &str) -> Result<()> {
    wait_for("the end of the rollout", PATIENCE, || {
        load::so_far(cluster, CALLERS, LOAD)?.without_failures()?;
        let rollout = rollout(cluster)?;
        ensure!(rollout["phase"] == "Done" && rollout["image"] == image, "{rollout}");
        Ok(Some(()))
    })
}

/// Waits until a wave has failed and the status says so in these words.
fn stopped(cluster: &Cluster, words: &[&str]) -> Result<()> {
    wait_for("the rollout to stop", PATIENCE, || {
        let rollout = rollout(cluster)?;
        let message = rollout["message"].as_str().unwrap_or_default();
        ensure!(rollout["phase"] == "Stopped", "{rollout}");
        ensure!(rollout["image"] == MISSING, "{rollout}");
        for part in words {
            ensure!(message.contains(part), "{part} is missing in: {message}");
        }
        Ok(Some(()))
    })
}

/// An event says which workload it was. Within some minutes a second stop only raises the count of the
/// first one's event.
fn told(cluster: &Cluster, workload: &str) -> Result<()> {
    wait_for("an event that says so", Duration::from_secs(30), || {
        let selector = "--field-selector=reason=RolloutStopped";
        let events = cluster.kubectl_json(&["get", "events", "--all-namespaces", selector])?;
        let about_it = |event: &Value| text(&event["message"]).contains(workload);
        Ok(testbed::items(&events).any(about_it).then_some(()))
    })
}

/// `kubectl get` shows how far it is.
fn shown(cluster: &Cluster) -> Result<()> {
    let table = cluster.kubectl(&["get", "meshinstallation", "default", "--output", "wide"])?;
    for part in ["ROLLOUT", "PHASE", "Done"] {
        ensure!(table.contains(part), "{part} is missing in\n{table}");
    }
    Ok(())
}

/// How many pods of the server must stay.
fn budget(least: u32) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"namespace": ROLLING, "name": "server"},
        "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "server"}}},
    })
}

fn all_but(namespace: &str) -> Value {
    json!([{"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]},
    ]}])
}

/// Pods of an application that are not on their way out.
fn pods(cluster: &Cluster, namespace: &str, app: &str) -> Result<Vec<Value>> {
    let selector = format!("app={app}");
    let arguments = ["get", "pods", "--namespace", namespace, "--selector", &selector];
    let list = cluster.kubectl_json(&arguments)?;
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    Ok(testbed::items(&list).filter(stays).cloned().collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Names of pods by their uids.
fn uids(cluster: &Cluster, namespace: &str, app: &str) -> Result<BTreeMap<String, String>> {
    let pods = pods(cluster, namespace, app)?;
    let uid = |pod: &Value| (text(&pod["metadata"]["uid"]), text(&pod["metadata"]["name"]));
    Ok(pods.iter().map(uid).collect())
}

/// Images of the pods' proxies.
fn proxies(cluster: &Cluster, namespace: &str, app: &str) -> Result<Vec<String>> {
    let pods = pods(cluster, namespace, app)?;
    let image = |pod: &Value| {
        let containers = pod["spec"]["initContainers"].as_array()?;
        let proxy = containers.iter().find(|container| container["name"] == PROXY)?;
        Some(text(&proxy["image"]))
    };
    Ok(pods.iter().filter_map(image).collect())
}

/// Id and number of restarts of a container, by pod.
fn containers(cluster: &Cluster, name: &str) -> Result<BTreeMap<String, (String, u64)>> {
    let mut found = BTreeMap::new();
    for pod in pods(cluster, IN_PLACE, "server")? {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
        for status in statuses.filter(|status| status["name"] == name) {
            let restarts = status["restartCount"].as_u64().unwrap_or_default();
            found.insert(text(&pod["metadata"]["uid"]), (text(&status["containerID"]), restarts));
        }
    }
    Ok(found)
}
