//! What people see of the MeshInstallation's schema: `kubectl explain` is the manual.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, path::Path};

use serde_json::Value;

/// `kubectl apply` keeps the whole definition in an annotation, which has this much room.
const MOST_BYTES: usize = 256 * 1024;

fn definitions() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/meshwright.yaml");
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn versions(definition: &Value) -> &Vec<Value> {
    definition["spec"]["versions"].as_array().unwrap()
}

/// Calls back with each field and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, field);
        walk(field, &path, visit);
    }
    for (inner, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[inner].is_object() {
            walk(&schema[inner], &format!("{path}{mark}"), visit);
        }
    }
}

#[test]
fn every_field_is_described() {
    let (mut fields, mut bare) = (0, Vec::new());
    for definition in definitions() {
        for version in versions(&definition) {
            walk(&version["schema"]["openAPIV3Schema"], "", &mut |path, field| {
                let of_object = matches!(path, ".apiVersion" | ".kind" | ".metadata");
                fields += 1;
                let described = field["description"].as_str().is_some_and(|text| text.len() > 8);
                if !described && !of_object {
                    bare.push(path.to_owned());
                }
            });
        }
    }
    assert!(fields > 300, "only {fields} fields were found");
    assert_eq!(bare, Vec::<String>::new(), "fields without a description");
}

#[test]
fn every_field_has_a_type() {
    let mut untyped = Vec::new();
    for definition in definitions() {
        for version in versions(&definition) {
            walk(&version["schema"]["openAPIV3Schema"], "", &mut |path, field| {
                let is_either = field["x-kubernetes-int-or-string"] == true;
                if field["type"].is_null() && !is_either {
                    untyped.push(path.to_owned());
                }
            });
        }
    }
    assert_eq!(untyped, Vec::<String>::new(), "the schema is not structural");
}

/// The API server refuses a definition with a default that breaks the field's own rules.
#[test]
fn defaults_keep_the_rules() {
    let mut broken = Vec::new();
    for definition in definitions() {
        for version in versions(&definition) {
            walk(&version["schema"]["openAPIV3Schema"], "", &mut |path, field| {
                let default = &field["default"];
                let small = default.as_f64() < field["minimum"].as_f64() && default.is_number();
                let length = default.as_str().map(|text| text.len() as u64);
                let short = length.is_some() && length < field["minLength"].as_u64();
                if small || short {
                    broken.push(path.to_owned());
                }
            });
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn definitions_fit_into_kubectls_annotation() {
    for definition in definitions() {
        let size = definition.to_string().len();
        let name = &definition["metadata"]["name"];
        assert!(size < MOST_BYTES, "{name} has {size} bytes");
    }
}

#[test]
fn a_table_shows_what_one_asks_first() {
    let definition = &definitions()[0];
    let columns = versions(definition)[0]["additionalPrinterColumns"].as_array().unwrap();
    let shown: Vec<_> = columns
        .iter()
        .filter(|column| column["priority"].as_i64().unwrap_or_default() == 0)
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    let expected = ["Ready", "Version", "Proxies", "Outdated", "Rollout", "Revision", "Age"];
    assert_eq!(shown, expected);
}

/// A refusal by a rule is a sentence for people.
#[test]
fn rules_name_what_to_do() {
    let mut rules = 0;
    let mut count = |_: &str, field: &Value| {
        for rule in field["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            assert!(rule["message"].as_str().is_some_and(|text| text.len() > 20), "{rule}");
        }
    };
    for definition in definitions() {
        walk(&versions(&definition)[0]["schema"]["openAPIV3Schema"], "", &mut count);
    }
    assert!(rules >= 6, "only {rules} rules were found");
}
