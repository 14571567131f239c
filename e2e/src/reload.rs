//! `cargo demo -- reload`: rebuilds, imports what is new and restarts what runs from the old.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::{
    cache::Cache,
    cluster::{self, Cluster, wait_step},
    demo, deploy,
    images::REGISTRY,
    steps::{Steps, seconds},
    tools::Tools,
};

const PATIENCE: Duration = Duration::from_mins(3);

/// A Deployment that is not the mesh's own.
type Workload = (String, String);

pub fn run(cache: &Cache, name: &str) -> Result<()> {
    if !cluster::anything_left(cache, name) {
        bail!("there is no cluster {name} to reload: run `cargo demo` first");
    }
    let mut steps = Steps::new();
    let booted = cluster::ensure(cache, name, &mut steps)?;
    let cluster = demo::install(cache, &Tools::new(cache), &booted, &mut steps)?;
    let restarted = steps.run("workloads of old images restart", || restart(&cluster))?;
    if !restarted.is_empty() {
        wait_step(&mut steps, "they run from the new ones", PATIENCE, || {
            settled(&cluster, &restarted).map(Some)
        })?;
    }
    steps.say(&format!("\nreloaded in {}", seconds(steps.elapsed())));
    Ok(())
}

/// Points workloads at the new test application, and restarts those with a sidecar of the old image:
/// what the webhook injects, it injects only into new pods.
fn restart(cluster: &Cluster) -> Result<BTreeSet<Workload>> {
    let mut touched = BTreeSet::new();
    let current = cluster.testapp_image();
    for deployment in items(&cluster.kubectl_json(&["get", "deployments", "-A"])?) {
        let (namespace, name) = identity(deployment);
        if namespace == deploy::SYSTEM {
            continue;
        }
        for container in
            deployment["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten()
        {
            if is_stale(container, "testapp", current)
                && let Some(container) = container["name"].as_str()
            {
                let target = format!("deployment/{name}");
                let change = format!("{container}={current}");
                cluster.kubectl(&["set", "image", "-n", &namespace, &target, &change])?;
                touched.insert((namespace.clone(), name.clone()));
            }
        }
    }
    for workload in stale_sidecars(cluster)?.difference(&touched.clone()) {
        let target = format!("deployment/{}", workload.1);
        cluster.kubectl(&["rollout", "restart", "-n", &workload.0, &target])?;
        touched.insert(workload.clone());
    }
    Ok(touched)
}

/// Deployments that have a pod with an old sidecar.
fn stale_sidecars(cluster: &Cluster) -> Result<BTreeSet<Workload>> {
    let current = cluster.image("meshwright-proxy").unwrap_or_default();
    let pods = cluster.kubectl_json(&["get", "pods", "-A"])?;
    let sets = cluster.kubectl_json(&["get", "replicasets", "-A"])?;
    let stale = items(&pods).filter(|pod| {
        let containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        containers.into_iter().any(|container| is_stale(container, "meshwright-proxy", current))
    });
    Ok(stale
        .filter_map(|pod| {
            let namespace = pod["metadata"]["namespace"].as_str()?;
            let owner = &pod["metadata"]["ownerReferences"][0]["name"];
            let set = items(&sets).find(|set| {
                set["metadata"]["namespace"] == namespace && set["metadata"]["name"] == *owner
            })?;
            let deployment = set["metadata"]["ownerReferences"][0]["name"].as_str()?;
            Some((namespace.to_owned(), deployment.to_owned()))
        })
        .filter(|(namespace, _)| namespace != deploy::SYSTEM)
        .collect())
}

fn is_stale(container: &Value, name: &str, current: &str) -> bool {
    let image = container["image"].as_str().unwrap_or_default();
    image.starts_with(&format!("{REGISTRY}/{name}:")) && image != current
}

fn settled(cluster: &Cluster, workloads: &BTreeSet<Workload>) -> Result<()> {
    let deployments = cluster.kubectl_json(&["get", "deployments", "-A"])?;
    for deployment in items(&deployments).filter(|one| workloads.contains(&identity(one))) {
        deploy::rolled_out(deployment)?;
    }
    let stale = stale_sidecars(cluster)?;
    ensure!(stale.is_empty(), "pods of {stale:?} still end");
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn identity(object: &Value) -> Workload {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
