//! Installs the mesh in a cluster as its users do: the chart, then a MeshInstallation.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cache::project,
    cluster::{Cluster, wait_step},
    steps::Steps,
    tools::{Tool, Tools},
};

pub const SYSTEM: &str = "meshwright-system";
const CHART: &str = "charts/meshwright";
const PATIENCE: Duration = Duration::from_mins(5);

/// What the demo and the tests ask for: all defaults, and an ingress gateway.
pub const INSTALLATION: &str = "\
apiVersion: meshwright.dev/v1alpha1
kind: MeshInstallation
metadata: {name: default}
spec:
  gateways:
  - {name: ingress, kind: Ingress, namespace: meshwright-system}
";

/// Where the images are.
#[derive(Debug, Clone)]
pub struct Source {
    pub registry: String,
    pub tag: String,
}

/// Installs or upgrades the mesh and waits until all of it runs from these images.
pub fn mesh(cluster: &Cluster, source: &Source, steps: &mut Steps) -> Result<()> {
    steps.run("helm installs charts/meshwright", || chart(cluster, source))?;
    steps.run("a MeshInstallation with an ingress gateway", || cluster.apply(INSTALLATION))?;
    wait_step(steps, "control plane and gateway are ready", PATIENCE, || {
        ready(cluster, source).map(Some)
    })
}

/// Installs the kinds of the Gateway API where they are missing. They are not the mesh's own.
pub fn gateway_api(cluster: &Cluster, tools: &Tools, steps: &mut Steps) -> Result<()> {
    if cluster.kubectl(&["get", "crd", "httproutes.gateway.networking.k8s.io"]).is_ok() {
        return Ok(());
    }
    let folder = tools.folder(Tool::GatewayApi)?.join("experimental");
    let folder = folder.to_string_lossy();
    steps.run("Gateway API kinds", || {
        cluster.kubectl(&["apply", "--server-side", "-k", &folder]).map(drop)
    })
}

/// Changes values of the chart that is installed, and waits until that is done.
pub fn change_values(cluster: &Cluster, values: &str) -> Result<()> {
    let chart = project().join(CHART);
    let chart = chart.to_string_lossy();
    let upgrade = ["upgrade", "meshwright", &*chart, "--namespace", SYSTEM];
    let values = ["--reset-then-reuse-values", "--set", values, "--wait", "--timeout", "3m"];
    cluster.helm(&[upgrade.as_slice(), &values].concat()).map(drop)
}

/// Installs or upgrades the chart.
pub fn chart(cluster: &Cluster, source: &Source) -> Result<()> {
    let chart = project().join(CHART);
    ensure!(chart.is_dir(), "there is no {CHART} in this checkout: check it out whole");
    let chart = chart.to_string_lossy();
    let values = format!(
        "image.registry={},image.tag={},image.pullPolicy=IfNotPresent",
        source.registry, source.tag
    );
    cluster.helm(&[
        "upgrade",
        "--install",
        "meshwright",
        &chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
        // A tag of digits alone is still a text.
        "--set-string",
        &values,
        "--wait",
        "--timeout",
        "3m",
    ])?;
    Ok(())
}

/// Whether everything of the mesh runs, from the images it should.
fn ready(cluster: &Cluster, source: &Source) -> Result<()> {
    let installation = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    let status = &installation["status"];
    let ready =
        condition(status, "Ready").context("the MeshInstallation has no condition Ready")?;
    let message = ready["message"].as_str().unwrap_or("no message");
    ensure!(ready["status"] == "True", "the MeshInstallation is not ready: {message}");
    let deployments = cluster.kubectl_json(&["get", "deployments", "-n", SYSTEM])?;
    for deployment in deployments["items"].as_array().into_iter().flatten() {
        rolled_out(deployment)?;
        for image in images(&deployment["spec"]["template"]["spec"]) {
            let stale = image.starts_with(&format!("{}/meshwright", source.registry))
                && !image.ends_with(&format!(":{}", source.tag));
            ensure!(!stale, "{} is still of {image}", deployment["metadata"]["name"]);
        }
    }
    Ok(())
}

/// Whether a Deployment's pods are all new and available.
pub fn rolled_out(deployment: &Value) -> Result<()> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let status = &deployment["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let current = status["observedGeneration"] == deployment["metadata"]["generation"];
    let counts = [&status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]];
    let settled = current && counts.iter().all(|count| number(count) == wanted);
    ensure!(settled, "{name} has {} of {wanted} new pods available", number(counts[1]));
    Ok(())
}

/// Images of a pod's spec.
pub fn images(spec: &Value) -> Vec<&str> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| spec[kind].as_array().into_iter().flatten())
        .filter_map(|container| container["image"].as_str())
        .collect()
}

/// The address of the ingress gateway, once it has one.
pub fn gateway_address(cluster: &Cluster) -> Option<String> {
    let selector = "meshwright.dev/gateway=ingress";
    let services = cluster.kubectl_json(&["get", "services", "-n", SYSTEM, "-l", selector]).ok()?;
    let ingress = &services["items"][0]["status"]["loadBalancer"]["ingress"][0];
    ingress["ip"].as_str().or_else(|| ingress["hostname"].as_str()).map(str::to_owned)
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_pods_keep_a_rollout_open() {
        let deployment = |replicas: i64, observed: i64| {
            json!({
                "metadata": {"name": "x", "generation": 2}, "spec": {"replicas": 1},
                "status": {"observedGeneration": observed, "updatedReplicas": 1,
                           "availableReplicas": 1, "replicas": replicas},
            })
        };
        assert!(rolled_out(&deployment(1, 2)).is_ok());
        assert!(rolled_out(&deployment(2, 2)).is_err());
        assert!(rolled_out(&deployment(1, 1)).is_err());
    }
}
