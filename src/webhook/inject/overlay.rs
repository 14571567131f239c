//! Lays wanted JSON over a pod's own, so that what other webhooks and people added stays.
//!
//! As Kubernetes' strategic merge: objects merge by field, and the lists of a pod that are keyed
//! merge by their key.

use serde_json::{Map, Value};

/// Lists that are keyed, with the field that is the key. Other lists are replaced.
const KEYED: [(&str, &str); 3] =
    [("env", "name"), ("volumeMounts", "mountPath"), ("ports", "containerPort")];

/// Changes `target` so that it has all that `wanted` has.
pub(super) fn overlay(target: &mut Value, wanted: Value) {
    match (target, wanted) {
        (Value::Object(target), Value::Object(wanted)) => overlay_object(target, wanted),
        (target, wanted) => *target = wanted,
    }
}

fn overlay_object(target: &mut Map<String, Value>, wanted: Map<String, Value>) {
    for (field, wanted) in wanted {
        let key = KEYED.iter().find(|(list, _)| *list == field).map(|(_, key)| *key);
        match (target.get_mut(&field), key, wanted) {
            (Some(Value::Array(existing)), Some(key), Value::Array(wanted)) => {
                overlay_list(existing, wanted, key);
            }
            (Some(existing), _, wanted) => overlay(existing, wanted),
            (None, _, wanted) => drop(target.insert(field, wanted)),
        }
    }
}

/// Merges items by key. New ones go to the end, in their order.
pub(super) fn overlay_list(existing: &mut Vec<Value>, wanted: Vec<Value>, key: &str) {
    for item in wanted {
        match existing.iter_mut().find(|other| other.get(key) == item.get(key)) {
            Some(other) => overlay(other, item),
            None => existing.push(item),
        }
    }
}

/// Takes the item of this name out of a list, or starts a new one.
pub(super) fn take_named(list: &mut Vec<Value>, name: &str) -> Value {
    match list.iter().position(|item| item.get("name").and_then(Value::as_str) == Some(name)) {
        Some(position) => list.remove(position),
        None => Value::Object(Map::new()),
    }
}
