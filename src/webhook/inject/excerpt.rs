//! The part of a pod's JSON that injection works on. What it neither reads nor changes need not be
//! copied and compared for each review.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    InjectConfig, container,
    json::{CONTAINER_LISTS, list, name_of},
    layers::canonical,
    options::Options,
    status::Status,
};
use crate::api::meshwright::labels;

/// What counts of a container of the application.
const OF_CONTAINER: [&str; 7] = [
    "name",
    "ports",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "securityContext",
];

/// The pod as injection sees it: an excerpt where only our own layer is laid over it, since nobody
/// knows what others' layers touch. A patch that leads from the excerpt to something else does the
/// same to the pod: lists are whole, and what is left out of objects stays as it is.
pub(super) fn of<'a>(
    pod: &'a Value,
    before: Option<&Status>,
    options: &Options,
    config: &InjectConfig,
) -> Cow<'a, Value> {
    let injection = &config.injection;
    let alone = before.is_none() && injection.patches.is_empty() && injection.templates.is_empty();
    match pod {
        Value::Object(object) if alone && !has_settings(object) => {
            Cow::Owned(Value::Object(cut(object, options)))
        }
        _ => Cow::Borrowed(pod),
    }
}

/// Whether the pod has containers for the proxy, or had them.
fn has_settings(pod: &Map<String, Value>) -> bool {
    let spec = pod.get("spec").and_then(Value::as_object);
    let mut containers = spec
        .into_iter()
        .flat_map(|spec| CONTAINER_LISTS.iter().flat_map(|field| list(spec, field)));
    let annotations = pod.get("metadata").and_then(|metadata| metadata.get("annotations"));
    annotations.is_some_and(|annotations| annotations.get(labels::OVERRIDES).is_some())
        || containers.any(|item| name_of(item).and_then(canonical).is_some())
}

fn cut(pod: &Map<String, Value>, options: &Options) -> Map<String, Value> {
    // One that we bring under a name that the pod has too is merged into it.
    let is_brought = |volume: &Value| {
        name_of(volume).is_none_or(|name| {
            container::is_reserved_volume(name) || options.volumes.iter().any(|v| v.name == name)
        })
    };
    let metadata = |metadata: &Value| with(metadata, &["labels", "annotations"]);
    let container = |container: &Value| with(container, &OF_CONTAINER);
    let volume = |volume: &Value| {
        if is_brought(volume) { volume.clone() } else { with(volume, &["name"]) }
    };
    let spec = |spec: &Value| {
        let Value::Object(spec) = spec else { return spec.clone() };
        let secrets = spec.get_key_value("imagePullSecrets");
        let secrets = secrets.map(|(field, list)| (field.clone(), list.clone()));
        let lists = [
            part(spec, "containers", |list| each(list, container)),
            part(spec, "initContainers", |list| each(list, container)),
            part(spec, "volumes", |list| each(list, volume)),
            secrets,
        ];
        Value::Object(lists.into_iter().flatten().collect())
    };
    [part(pod, "metadata", metadata), part(pod, "spec", spec)].into_iter().flatten().collect()
}

fn part(
    object: &Map<String, Value>,
    field: &str,
    cut: impl FnOnce(&Value) -> Value,
) -> Option<(String, Value)> {
    object.get(field).map(|value| (field.to_owned(), cut(value)))
}

fn each(list: &Value, cut: impl Fn(&Value) -> Value) -> Value {
    match list {
        Value::Array(items) => items.iter().map(cut).collect(),
        other => other.clone(),
    }
}

/// An object with these of its fields.
fn with(value: &Value, fields: &[&str]) -> Value {
    match value {
        Value::Object(object) => {
            fields.iter().filter_map(|field| part(object, field, Value::clone)).collect()
        }
        other => other.clone(),
    }
}
