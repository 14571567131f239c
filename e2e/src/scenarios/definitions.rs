//! The operator keeps the CustomResourceDefinitions at its version.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::PROPAGATION;
use crate::cluster::{Cluster, wait_for};

const NAME: &str = "meshinstallations.meshwright.dev";
const VERSION: &str = "meshwright.dev/definitions";

/// An older definition, which stores objects in a version that is no more, is upgraded and what is
/// stored with it; a newer one is left and reported.
pub fn are_kept_at_the_operators_version(cluster: &Cluster) -> Result<()> {
    let ours = definition(cluster)?;
    let version = ours["metadata"]["annotations"][VERSION].as_str();
    let version = version.context("the definition does not say its version")?.to_owned();
    upgraded(cluster, ours, &version)?;
    let outcome = newer_is_reported(cluster);
    // Whatever came of it: the others want the definition to be as it was.
    mark(cluster, &version)?;
    outcome?;
    wait_for("DefinitionsReady again", PROPAGATION, || {
        let condition = condition(cluster, "DefinitionsReady")?;
        Ok((condition["status"] == "True").then_some(()))
    })
}

fn upgraded(cluster: &Cluster, mut crd: Value, version: &str) -> Result<()> {
    let before = crd["metadata"]["generation"].as_i64().unwrap_or_default();
    let mut old = crd["spec"]["versions"][0].clone();
    old["name"] = json!("v1alpha0");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().context("the definition has versions")?.push(old);
    crd["metadata"]["annotations"][VERSION] = json!("0.0.1");
    if let Some(metadata) = crd["metadata"].as_object_mut() {
        // Whoever replaces it in between does not matter here.
        metadata.remove("resourceVersion");
    }
    cluster.kubectl_with_input(&["replace", "--filename", "-"], &crd.to_string())?;
    wait_for(
        "the definition upgraded and its objects stored anew",
        Duration::from_mins(1),
        || {
            let crd = definition(cluster)?;
            ensure!(crd["metadata"]["annotations"][VERSION] == version, "it is of another version");
            let stored = &crd["status"]["storedVersions"];
            ensure!(*stored == json!(["v1alpha1"]), "objects are stored in {stored}");
            let versions = crd["spec"]["versions"].as_array().map_or(0, Vec::len);
            ensure!(versions == 1, "it has {versions} versions");
            let generation = crd["metadata"]["generation"].as_i64().unwrap_or_default();
            ensure!(generation >= before + 2, "nobody has changed it");
            Ok(Some(()))
        },
    )?;
    cluster.kubectl(&["get", "meshinstallation", "default"]).map(drop)
}

fn newer_is_reported(cluster: &Cluster) -> Result<()> {
    mark(cluster, "99.0.0")?;
    wait_for("NewerDefinitions reported", PROPAGATION, || {
        let condition = condition(cluster, "DefinitionsReady")?;
        ensure!(condition["reason"] == "NewerDefinitions", "{condition}");
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains("99.0.0") && message.contains("upgrade the operator"),
            "{message}"
        );
        Ok(Some(()))
    })?;
    let ready = condition(cluster, "Ready")?;
    ensure!(ready["status"] == "True", "the mesh is not ready any more: {}", ready["message"]);
    let marked = &definition(cluster)?["metadata"]["annotations"][VERSION];
    ensure!(*marked == "99.0.0", "the definition was put back to {marked}");
    Ok(())
}

fn mark(cluster: &Cluster, version: &str) -> Result<()> {
    let mark = format!("{VERSION}={version}");
    cluster.kubectl(&["annotate", "crd", NAME, &mark, "--overwrite"]).map(drop)
}

fn definition(cluster: &Cluster) -> Result<Value> {
    cluster.kubectl_json(&["get", "crd", NAME])
}

fn condition(cluster: &Cluster, kind: &str) -> Result<Value> {
    let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.cloned().with_context(|| format!("no condition {kind}"))
}
