//! What proxies get for the objects of each case under `tests/golden/envoy`.
//!
//! After a wanted change: `INSTA_UPDATE=always cargo test --test golden_envoy`, and read the diff.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/envoy.rs"]
mod support;

use std::collections::BTreeSet;

use meshwright::xds::ResourceType;
use serde_json::Value;

/// The loggers that make metrics are the same and long everywhere; one case shows them.
const WITH_METRICS: &str = "registry-only-dual-stack";

const METRICS: &str = "envoy.access_loggers.stats";

#[test]
fn resources() {
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut failed = Vec::new();
    for case in support::cases() {
        settings.set_snapshot_path(&case.directory);
        let mut diagnostics: Vec<String> =
            case.diagnostics.iter().map(ToString::to_string).collect();
        for proxy in case.proxies() {
            diagnostics.extend(proxy.diagnostics.iter().map(ToString::to_string));
            let mut resources = proxy.to_json();
            if case.name != WITH_METRICS {
                shorten(&mut resources);
            }
            let yaml = serde_saphyr::to_string(&resources).unwrap();
            let compare = || settings.bind(|| insta::assert_snapshot!(proxy.name.clone(), yaml));
            // All cases are compared before the test fails, so that one run updates them all.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
                failed.push(format!("{}/{}", case.name, proxy.name));
            }
        }
        if !diagnostics.is_empty() {
            let text = diagnostics.join("\n");
            let compare = || settings.bind(|| insta::assert_snapshot!("diagnostics", text));
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
                failed.push(format!("{}/diagnostics", case.name));
            }
        }
    }
    assert!(failed.is_empty(), "differ: {failed:?}");
}

#[test]
fn encoding_is_deterministic() {
    for case in support::cases() {
        let (one, other) = (case.proxies(), case.proxies());
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.encoded, other.encoded, "{}/{}", case.name, one.name);
            assert_eq!(one.endpoints, other.endpoints, "{}/{}", case.name, one.name);
        }
    }
}

#[test]
fn every_named_cluster_and_table_exists() {
    // `MissingBackend` is missing on purpose; `sds-grpc` is in the bootstrap.
    let known = ["MissingBackend", "sds-grpc"];
    for case in support::cases() {
        for proxy in case.proxies() {
            let all = proxy.to_json();
            let mut clusters = BTreeSet::new();
            let mut tables = BTreeSet::new();
            collect(&all["listeners"], &mut clusters, &mut tables);
            collect(&all["routes"], &mut clusters, &mut tables);
            let place = format!("{}/{}", case.name, proxy.name);
            for name in &clusters {
                let exists = proxy.encoded.clusters.get(name).is_some();
                assert!(exists || known.contains(&name.as_str()), "{place}: no cluster {name}");
            }
            for name in &tables {
                assert!(proxy.encoded.routes.get(name).is_some(), "{place}: no routes {name}");
            }
            let served: BTreeSet<String> =
                proxy.encoded.routes.by_name.keys().map(ToString::to_string).collect();
            assert_eq!(served, tables, "{place}: tables that no listener names");
            check_unique_domains(&place, &support::all(&proxy.encoded.routes, ResourceType::Route));
        }
    }
}

fn check_unique_domains(place: &str, tables: &[Value]) {
    for table in tables {
        let mut seen = BTreeSet::new();
        for host in table["virtual_hosts"].as_array().into_iter().flatten() {
            for domain in host["domains"].as_array().unwrap() {
                assert!(seen.insert(domain.to_string()), "{place}: {domain} twice");
            }
        }
    }
}

/// Leaves only the names of the loggers that make metrics.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => {
            if let Some(Value::Array(logs)) = fields.get_mut("access_log") {
                for log in logs.iter_mut().filter(|log| log["name"] == METRICS) {
                    *log = log["name"].take();
                }
            }
            fields.values_mut().for_each(shorten);
        }
        _ => {}
    }
}

/// The clusters and route tables that a resource names.
fn collect(value: &Value, clusters: &mut BTreeSet<String>, tables: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, clusters, tables)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("cluster" | "cluster_name" | "collector_cluster", Value::String(cluster)) => {
                        clusters.insert(cluster.clone());
                    }
                    ("weighted_clusters", weighted) => {
                        for share in weighted["clusters"].as_array().unwrap() {
                            clusters.insert(share["name"].as_str().unwrap().to_owned());
                        }
                    }
                    ("route_config_name", Value::String(table)) => {
                        tables.insert(table.clone());
                    }
                    _ => collect(field, clusters, tables),
                }
            }
        }
        _ => {}
    }
}
