//! What other webhooks did to a pod after an earlier injection, and what of it stays.

use serde_json::{Map, Value};

use super::{
    container::{PROXY_CONTAINER, REDIRECT_CONTAINER},
    json::{array_in, container, container_mut, list, name_of},
    layers::Shape,
    status::Status,
    strategic,
};

const OURS: [&str; 2] = [PROXY_CONTAINER, REDIRECT_CONTAINER];
/// Of the variables that we always write.
const PREFIX: &str = "MESHWRIGHT_";

/// What we want is what we wanted before, so each difference is the work of others: what they changed
/// (an image from a mirror, other resources, more variables) stays, what they dropped comes back.
pub(super) fn repaired(mut pod: Value, wanted: &Value) -> Value {
    if let (Value::Object(pod), Value::Object(wanted)) = (&mut pod, wanted) {
        strategic::fill(pod, wanted);
    }
    pod
}

/// Names of the variables of our containers that are not always there.
pub(super) fn variables(pod: &Value) -> Vec<String> {
    let spec = pod.get("spec").and_then(Value::as_object);
    let ours = OURS.iter().filter_map(|name| container(spec?, name)?.as_object());
    let has_value =
        |item: &&Value| item.get("valueFrom").is_none_or(|from| from.get("fieldRef").is_none());
    let mut names: Vec<_> = ours
        .flat_map(|container| list(container, "env").filter(has_value))
        .filter_map(name_of)
        .filter(|name| !name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    names.dedup();
    names
}

/// What we want has changed in between, so our containers are built anew. What others added to the
/// old ones goes into the new ones.
pub(super) fn renewed(old: &Value, before: &Status, mut wanted: Value, shape: Shape) -> Value {
    let Some(old) = old.get("spec").and_then(Value::as_object) else { return wanted };
    let Some(Value::Object(spec)) = wanted.get_mut("spec") else { return wanted };
    // Without its volume, which was ours and is gone, the API server would refuse a mount.
    let volumes: Vec<_> = list(spec, "volumes").filter_map(name_of).map(str::to_owned).collect();
    for name in OURS {
        let old = container(old, name).and_then(Value::as_object);
        let new = shape.list_of(name).and_then(|field| container_mut(spec, field, name));
        let (Some(old), Some(new)) = (old, new) else { continue };
        carry_over(old, new, ("env", "name"), |variable| {
            !variable.starts_with(PREFIX) && !before.variables.iter().any(|known| known == variable)
        });
        carry_over(old, new, ("volumeMounts", "mountPath"), |volume| {
            volumes.iter().any(|known| known == volume)
        });
    }
    wanted
}

/// Adds those items of a list that are not there and whose name is of others.
fn carry_over(
    old: &Map<String, Value>,
    new: &mut Map<String, Value>,
    (field, key): (&str, &str),
    is_others: impl Fn(&str) -> bool,
) {
    let known: Vec<_> = list(new, field).filter_map(|item| item.get(key)).cloned().collect();
    let is_new = |item: &&Value| item.get(key).is_some_and(|key| !known.contains(key));
    let added = list(old, field)
        .filter(is_new)
        .filter(|item| name_of(item).is_some_and(&is_others))
        .cloned()
        .collect::<Vec<_>>();
    if !added.is_empty() {
        array_in(new, field).extend(added);
    }
}
