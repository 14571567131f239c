//! Ways into a pod's JSON.

use serde_json::{Map, Value};

/// The lists of a pod's containers that injection looks at.
pub(super) const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

pub(super) fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// The items of a list, none where there is no list.
pub(super) fn list<'a>(
    parent: &'a Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a Value> {
    parent.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The container of this name, wherever it is.
pub(super) fn container<'a>(spec: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut containers = CONTAINER_LISTS.iter().flat_map(|field| list(spec, field));
    containers.find(|item| name_of(item) == Some(name))
}

/// The container of this name in one of the lists, to be changed.
pub(super) fn container_mut<'a>(
    spec: &'a mut Map<String, Value>,
    field: &str,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let containers = spec.get_mut(field)?.as_array_mut()?;
    containers.iter_mut().find(|item| name_of(item) == Some(name))?.as_object_mut()
}

/// The object in this field, made where there is none (the API server writes `null` for some).
pub(super) fn object_in<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
) -> &'a mut Map<String, Value> {
    let value = parent.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it has just been made an object"),
    }
}

/// The list in this field, made where there is none.
pub(super) fn array_in<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(field).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(array) => array,
        _ => unreachable!("it has just been made an array"),
    }
}
