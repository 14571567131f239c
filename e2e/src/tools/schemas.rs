//! JSON schemas of Kubernetes' kinds in the layout that kubeconform reads, made of the specification
//! that Kubernetes publishes with its source.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";

/// Writes a schema for each kind of a swagger file; how many.
pub fn of_kubernetes(swagger: &Path, folder: &Path) -> Result<usize> {
    let swagger =
        fs::read(swagger).with_context(|| format!("cannot read {}", swagger.display()))?;
    let mut swagger: Value = serde_json::from_slice(&swagger)?;
    let definitions = swagger["definitions"].take();
    let definitions = definitions.as_object().context("the specification has no definitions")?;
    let mut written = 0;
    for (name, definition) in definitions {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap_or_default();
            let schema = standalone(name, definitions);
            write(folder, text("group"), text("version"), text("kind"), &schema)?;
            written += 1;
        }
    }
    Ok(written)
}

fn write(folder: &Path, group: &str, version: &str, kind: &str, schema: &Value) -> Result<()> {
    let group = group.split('.').next().filter(|group| !group.is_empty());
    let group = group.map(|group| format!("{group}-")).unwrap_or_default();
    let name = format!("{}-{group}{version}.json", kind.to_lowercase());
    fs::write(folder.join(name), schema.to_string())?;
    Ok(())
}

/// A definition with all that it refers to.
fn standalone(name: &str, definitions: &Map<String, Value>) -> Value {
    let (mut needed, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(name) = open.pop() {
        if let Some(definition) = definitions.get(&name)
            && needed.insert(name)
        {
            references(definition, &mut open);
        }
    }
    let inner = needed.iter().map(|name| (name.clone(), closed(name, &definitions[name])));
    json!({"$ref": format!("{DEFINITIONS}{name}"), "definitions": inner.collect::<Map<_, _>>()})
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str);
            found.extend(target.and_then(|r| r.strip_prefix(DEFINITIONS)).map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// A definition that takes no other fields than it names, and what Go's types take.
fn closed(name: &str, definition: &Value) -> Value {
    if name.ends_with(".IntOrString") || name.ends_with(".Quantity") {
        return json!({"type": ["string", "number"]});
    }
    let mut definition = definition.clone();
    close(&mut definition);
    definition
}

fn close(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.get("properties").is_some_and(Value::is_object) {
        fields.entry("additionalProperties").or_insert(json!(false));
    }
    if let Some(inner) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        inner.values_mut().for_each(close);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            close(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_holds_what_it_refers_to_and_nothing_else() {
        let definitions = json!({
            "a.Pod": {"properties": {"spec": {"$ref": "#/definitions/a.Spec"}}},
            "a.Spec": {"properties": {"port": {"$ref": "#/definitions/x.IntOrString"},
                                      "again": {"$ref": "#/definitions/a.Spec"}}},
            "x.IntOrString": {"type": "string", "format": "int-or-string"},
            "a.Other": {"type": "object"},
        });
        let schema = standalone("a.Pod", definitions.as_object().unwrap());
        assert_eq!(schema["$ref"], "#/definitions/a.Pod");
        let inner = schema["definitions"].as_object().unwrap();
        assert_eq!(inner.keys().collect::<Vec<_>>(), ["a.Pod", "a.Spec", "x.IntOrString"]);
        assert_eq!(inner["a.Pod"]["additionalProperties"], false);
        assert_eq!(inner["x.IntOrString"]["type"], json!(["string", "number"]));
    }

    #[test]
    fn maps_stay_open() {
        let mut schema = json!({"properties": {
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"properties": {"a": {}}}},
        }});
        close(&mut schema);
        assert_eq!(schema["additionalProperties"], false);
        let inner = &schema["properties"];
        assert_eq!(inner["labels"]["additionalProperties"], json!({"type": "string"}));
        assert_eq!(inner["list"]["items"]["additionalProperties"], false);
    }
}
