//! Whether an object still has all that was applied. Pure.

use serde_json::{Map, Value};

use crate::webhook::inject::options::amounts;

/// Lists in which everybody has items of their own, with the fields that tell those apart.
const SHARED: [(&str, &[&str]); 12] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("imagePullSecrets", &["name"]),
    ("secrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("ownerReferences", &["uid"]),
    ("webhooks", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    // Of containers or of Services.
    ("ports", &["containerPort", "port", "protocol"]),
];
/// Lists of plain values that are sets.
const SETS: [&str; 1] = ["finalizers"];
/// Maps of amounts, which the API server writes its own way: `0.5` becomes `500m`.
const AMOUNTS: [&str; 2] = ["requests", "limits"];

/// Whether `live` has all that `wanted` has. The API server adds defaults, and others add fields and
/// items, so it may have more.
pub fn covers(live: &Value, wanted: &Value) -> bool {
    field_covers("", live, wanted)
}

fn field_covers(name: &str, live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => object_covers(name, live, wanted),
        (Value::Array(live), Value::Array(wanted)) => {
            if let Some((_, keys)) = SHARED.iter().find(|(list, _)| *list == name) {
                wanted.iter().all(|item| shared_item(live, item, keys))
            } else if SETS.contains(&name) {
                wanted.iter().all(|item| live.contains(item))
            } else {
                live.len() == wanted.len()
                    && live.iter().zip(wanted).all(|(l, w)| field_covers("", l, w))
            }
        }
        (live, wanted) => live == wanted,
    }
}

fn object_covers(name: &str, live: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    let is_amounts = AMOUNTS.contains(&name);
    wanted.iter().all(|(field, wanted)| match live.get(field) {
        Some(live) if is_amounts => same_amount(live, wanted),
        Some(live) => field_covers(field, live, wanted),
        // The API server drops what is empty.
        None => is_empty(wanted),
    })
}

fn shared_item(live: &[Value], wanted: &Value, keys: &[&str]) -> bool {
    // What one side leaves to the default is no difference.
    let same = |live: &Value, key: &str| wanted[key].is_null() || live[key] == wanted[key];
    let mut twins = live.iter().filter(|item| keys.iter().all(|key| same(item, key)));
    twins.any(|twin| field_covers("", twin, wanted))
}

fn same_amount(live: &Value, wanted: &Value) -> bool {
    let parsed = |value: &Value| amounts::parse(value.as_str()?);
    live == wanted || matches!((parsed(live), parsed(wanted)), (Some(a), Some(b)) if near(a, b))
}

/// Decimal fractions have no exact form.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covers_despite_defaults_and_not_despite_drift() {
        let wanted = json!({"spec": {"replicas": 2, "args": [{"port": 80}], "selector": {}}});
        let live = json!({"spec": {"replicas": 2, "args": [{"port": 80, "nodePort": 3}], "x": 1}});
        assert!(covers(&live, &wanted));
        let drifted = json!({"spec": {"replicas": 1, "args": [{"port": 80}]}});
        assert!(!covers(&drifted, &wanted));
        let longer = json!({"spec": {"replicas": 2, "args": [{"port": 80}, {"port": 81}]}});
        assert!(!covers(&longer, &wanted));
    }

    #[test]
    fn items_of_others_in_shared_lists_are_no_drift() {
        let wanted = json!({
            "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}],
            "ports": [{"port": 80, "protocol": "TCP"}],
        });
        let live = json!({
            "containers": [
                {"name": "theirs"},
                {"name": "a", "env": [{"name": "Y"}, {"name": "X", "value": "1"}]},
            ],
            "ports": [{"port": 9, "protocol": "TCP"}, {"port": 80, "protocol": "TCP", "nodePort": 1}],
        });
        assert!(covers(&live, &wanted));
        let changed = json!({
            "containers": [{"name": "a", "env": [{"name": "X", "value": "2"}]}],
            "ports": [{"port": 80, "protocol": "TCP"}],
        });
        assert!(!covers(&changed, &wanted));
        assert!(!covers(&json!({"containers": live["containers"], "ports": []}), &wanted));
    }

    #[test]
    fn amounts_are_compared_as_amounts() {
        let with = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        assert!(covers(&with("500m", "1Gi"), &with("0.5", "1024Mi")));
        assert!(!covers(&with("501m", "1Gi"), &with("0.5", "1024Mi")));
    }
}
