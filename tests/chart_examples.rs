//! The examples beside the chart are what our own validation accepts. Whether the API server does too,
//! the scenario `examples` asks one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "chart/helm.rs"]
mod helm;

use std::fs;

use meshwright::{diagnostic::Severity, webhook::validate::installation::check_json};
use serde_json::Value;

#[test]
fn examples_are_valid() {
    let mut installations = 0;
    for entry in fs::read_dir(helm::file("charts/meshwright/examples")).unwrap() {
        let path = entry.unwrap().path();
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        for object in documents.iter().filter(|object| object["kind"] == "MeshInstallation") {
            installations += 1;
            let found = check_json(object, std::iter::empty()).unwrap();
            let errors: Vec<_> = found.iter().filter(|f| f.severity == Severity::Error).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
    }
    assert!(installations >= 7, "{installations}");
}
