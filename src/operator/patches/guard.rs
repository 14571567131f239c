//! What patches may not touch.

use serde_json::{Map, Value};

use super::Problem;
use crate::api::{
    gateway::GATEWAY_NAME_LABEL,
    meshwright::{PatchedKind, labels::MANAGED_BY},
};

const OUR_PREFIX: &str = "meshwright.dev/";
/// What of `metadata` may be patched.
const OPEN: [&str; 2] = ["labels", "annotations"];
/// Fields that tie an object to others of its workload: which pods are meant, and what is scaled.
const TIES: [&str; 2] = ["selector", "scaleTargetRef"];

/// Whether the patch leaves alone what is not for patches, as far as its own text tells.
pub(super) fn patch(kind: PatchedKind, patch: &Map<String, Value>) -> Result<(), Problem> {
    if let Some(said) = patch.get("kind").filter(|said| *said != kind.as_str()) {
        let message = format!("is {said}, and the patch is for a {}", kind.as_str());
        return Err(Problem::new("kind", message));
    }
    if let Some(said) = patch.get("apiVersion").filter(|said| *said != api_version(kind)) {
        return Err(Problem::new("apiVersion", format!("is {said}; it is {}", api_version(kind))));
    }
    if patch.contains_key("status") {
        return Err(Problem::new("status", "is not for patches: the cluster writes it"));
    }
    if patch.contains_key("$patch") {
        return Err(Problem::new("$patch", "the object as a whole cannot be replaced or deleted"));
    }
    let metadata = patch.get("metadata").and_then(Value::as_object);
    for field in metadata.into_iter().flat_map(Map::keys) {
        if !OPEN.contains(&field.as_str()) {
            let message = "cannot be patched: of metadata, labels and annotations can";
            return Err(Problem::new(format!("metadata.{field}"), message));
        }
    }
    Ok(())
}

fn api_version(kind: PatchedKind) -> &'static str {
    match kind {
        PatchedKind::Deployment => "apps/v1",
        PatchedKind::Service | PatchedKind::ServiceAccount => "v1",
        PatchedKind::HorizontalPodAutoscaler => "autoscaling/v2",
        PatchedKind::PodDisruptionBudget => "policy/v1",
    }
}

/// Whether what is ours is still there afterwards, in whatever way the patch went about it.
pub(super) fn outcome(kind: PatchedKind, before: &Value, after: &Value) -> Result<(), Problem> {
    metadata(&before["metadata"], &after["metadata"], "metadata")?;
    for tie in TIES {
        if before["spec"][tie] != after["spec"][tie] {
            let message = "cannot be patched: it ties the objects of the workload together";
            return Err(Problem::new(format!("spec.{tie}"), message));
        }
    }
    if kind == PatchedKind::Deployment {
        let (before, after) = (&before["spec"], &after["spec"]);
        template(before, after)?;
        containers(&before["template"]["spec"], &after["template"]["spec"])?;
    }
    Ok(())
}

/// Name, namespace, owner and our labels.
fn metadata(before: &Value, after: &Value, path: &str) -> Result<(), Problem> {
    for field in ["name", "namespace", "ownerReferences"] {
        if before[field] != after[field] {
            return Err(Problem::new(format!("{path}.{field}"), "cannot be patched"));
        }
    }
    labels(&before["labels"], &after["labels"], path, &is_ours)
}

/// Pods that the selector would not find any more would never be counted, and never be removed.
fn template(before: &Value, after: &Value) -> Result<(), Problem> {
    let selected = &before["selector"]["matchLabels"];
    let counts = |label: &str| is_ours(label) || !selected[label].is_null();
    let of = |spec: &Value| spec["template"]["metadata"]["labels"].clone();
    labels(&of(before), &of(after), "spec.template.metadata", &counts)
}

fn labels(
    before: &Value,
    after: &Value,
    path: &str,
    fixed: &impl Fn(&str) -> bool,
) -> Result<(), Problem> {
    let keys = |labels: &Value| -> Vec<String> {
        labels.as_object().into_iter().flat_map(Map::keys).cloned().collect()
    };
    let mut all = keys(before);
    all.extend(keys(after));
    match all.into_iter().find(|key| fixed(key) && before[key] != after[key]) {
        None => Ok(()),
        Some(key) => Err(Problem::new(
            format!("{path}.labels.{key}"),
            "cannot be patched: the operator finds its objects by it",
        )),
    }
}

fn is_ours(label: &str) -> bool {
    label.starts_with(OUR_PREFIX) || label == MANAGED_BY || label == GATEWAY_NAME_LABEL
}

/// Without its own containers the workload is none.
fn containers(before: &Value, after: &Value) -> Result<(), Problem> {
    let names = |pod: &Value| -> Vec<Value> {
        let items = pod["containers"].as_array().into_iter().flatten();
        items.map(|item| item["name"].clone()).collect()
    };
    let left = names(after);
    match names(before).into_iter().find(|name| !left.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Problem::new(
            "spec.template.spec.containers",
            format!("the container {name} cannot be taken away"),
        )),
    }
}
