//! What other webhooks did to a pod after an earlier injection, and what of it stays.

use serde_json::{Map, Value};

use super::{
    container::{PROXY_CONTAINER, REDIRECT_CONTAINER},
    json::{array_in, container, container_mut, list, name_of},
    layers::Shape,
    strategic,
};

/// What we want is what we wanted before, so each difference is the work of others: what they changed
/// (an image from a mirror, other resources, more variables) stays, what they dropped comes back.
pub(super) fn repaired(mut pod: Value, wanted: &Value) -> Value {
    if let (Value::Object(pod), Value::Object(wanted)) = (&mut pod, wanted) {
        strategic::fill(pod, wanted);
    }
    pod
}

/// What we want has changed in between, so our containers are built anew. What others added to the
/// old ones goes into the new ones.
pub(super) fn renewed(before: &Value, mut wanted: Value, shape: Shape) -> Value {
    let Some(old) = before.get("spec").and_then(Value::as_object) else { return wanted };
    let Some(Value::Object(spec)) = wanted.get_mut("spec") else { return wanted };
    let volumes: Vec<_> = list(spec, "volumes").filter_map(name_of).map(str::to_owned).collect();
    for name in [PROXY_CONTAINER, REDIRECT_CONTAINER] {
        let old = container(old, name).and_then(Value::as_object);
        let new = shape.list_of(name).and_then(|field| container_mut(spec, field, name));
        if let (Some(old), Some(new)) = (old, new) {
            carry_over(old, new, &volumes);
        }
    }
    wanted
}

fn carry_over(old: &Map<String, Value>, new: &mut Map<String, Value>, volumes: &[String]) {
    let is_others =
        |item: &&Value| name_of(item).is_some_and(|name| !name.starts_with("MESHWRIGHT_"));
    // Without the volume, which was ours and is gone, the API server would refuse the pod.
    let has_volume =
        |item: &&Value| name_of(item).is_some_and(|name| volumes.iter().any(|v| v == name));
    let env: Vec<_> = list(old, "env").filter(is_others).cloned().collect();
    let mounts: Vec<_> = list(old, "volumeMounts").filter(has_volume).cloned().collect();
    for (field, key, items) in [("env", "name", env), ("volumeMounts", "mountPath", mounts)] {
        let existing = new.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let known = |item: &Value| existing.iter().any(|other| other.get(key) == item.get(key));
        let added: Vec<_> = items.into_iter().filter(|item| !known(item)).collect();
        if !added.is_empty() {
            array_in(new, field).extend(added);
        }
    }
}
