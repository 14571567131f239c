//! The chart's values, their comments and their schema say the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "chart/helm.rs"]
mod helm;

use std::{collections::BTreeMap, fs};

use helm::{file, yaml};
use serde_json::Value;

/// The comment right above each value, by its path.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut path, mut comment) = (BTreeMap::new(), Vec::<String>::new(), Vec::new());
    for line in text.lines() {
        let indent = (line.len() - line.trim_start().len()) / 2;
        let content = line.trim_start();
        if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if let Some((name, _)) = content.split_once(':')
            && name.chars().all(char::is_alphanumeric)
        {
            path.truncate(indent);
            path.push(name.to_owned());
            found.insert(format!("/{}", path.join("/")), comment.join(" "));
        }
        comment.clear();
    }
    found
}

/// Every group and value that the schema names; what is inside of Kubernetes' own types is not ours.
fn described<'a>(schema: &'a Value, path: &str, found: &mut BTreeMap<String, &'a Value>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        if schema["description"].is_string() {
            described(schema, &path, found);
            found.insert(path, schema);
        }
    }
}

#[test]
fn values_comments_and_schema_agree() {
    let text = fs::read_to_string(file("charts/meshwright/values.yaml")).unwrap();
    let (values, comments) = (yaml(&text), comments(&text));
    let schema = fs::read_to_string(file("charts/meshwright/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut properties = BTreeMap::new();
    described(&schema, "", &mut properties);
    // Helm's own.
    properties.remove("/global").unwrap();
    assert!(properties.len() > 70, "{}", properties.len());
    for (path, property) in &properties {
        assert!(values.pointer(path).is_some(), "{path} is in the schema and not in values.yaml");
        assert_eq!(
            property["description"], comments[path],
            "{path}: the description in the schema is not the comment in values.yaml"
        );
    }
    let mut path_of_values = Vec::new();
    paths(&values, "", &properties, &mut path_of_values);
    for path in path_of_values {
        assert!(properties.contains_key(&path), "{path} is in values.yaml and not in the schema");
        let comment = comments.get(&path).map(String::as_str).unwrap_or_default();
        assert!(comment.ends_with(['.', '?']), "{path} has no comment that is a sentence");
    }
}

/// Paths of values, down to where a value is of a type that the schema describes as a whole.
fn paths(
    values: &Value,
    path: &str,
    properties: &BTreeMap<String, &Value>,
    found: &mut Vec<String>,
) {
    let group = |path: &str| {
        path.is_empty()
            || properties.get(path).is_none_or(|property| {
                let mut inner = property["properties"].as_object().into_iter().flatten();
                inner.any(|(_, schema)| schema["description"].is_string())
            })
    };
    if !group(path) {
        return;
    }
    for (name, value) in values.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        found.push(path.clone());
        paths(value, &path, properties, found);
    }
}

/// What may be closed is: a misspelled value is refused.
#[test]
fn every_group_of_the_schema_is_closed() {
    fn check(schema: &Value, path: &str) {
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(inner, &format!("{path}/{name}"));
        }
        if schema["items"].is_object() {
            check(&schema["items"], &format!("{path}/0"));
        }
    }
    let schema = fs::read_to_string(file("charts/meshwright/values.schema.json")).unwrap();
    check(&serde_json::from_str(&schema).unwrap(), "");
}
