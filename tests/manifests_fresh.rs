//! `manifests/meshwright.yaml` is the chart rendered with its defaults, behind the namespace that it
//! goes to. `MESHWRIGHT_UPDATE=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "chart/helm.rs"]
mod helm;

use std::{env, fs};

use helm::{file, yaml};
use serde_json::{Value, json};

const NAMESPACE: &str =
    "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: meshwright-system\n";

/// The chart rendered with these values. Without hooks: they are tests and what runs when the chart is
/// uninstalled, none of which kubectl would know to leave alone.
fn template(values: &[&str]) -> String {
    let sets = values.iter().flat_map(|value| ["--set", value]);
    let flags: Vec<&str> = std::iter::once("--no-hooks").chain(sets).collect();
    helm::render(&flags, "").unwrap()
}

#[test]
fn manifests_are_fresh() {
    let rendered = NAMESPACE.to_owned() + &template(&[]);
    let path = file("manifests/meshwright.yaml");
    if env::var_os("MESHWRIGHT_UPDATE").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == rendered,
        "manifests/meshwright.yaml is not what the chart renders: run `MESHWRIGHT_UPDATE=1 cargo test --test manifests_fresh`"
    );
}

/// Objects of a kind named `meshwright-cni`, with these values.
fn cni(kind: &str, values: &[&str]) -> Vec<Value> {
    let rendered = template(values);
    let documents = rendered.split("\n---\n").filter(|text| text.contains("name: meshwright-cni"));
    let objects = documents.map(yaml);
    objects.filter(|object| object["kind"] == kind).collect()
}

#[test]
fn the_cni_daemon_is_off_and_has_what_it_needs_and_no_more() {
    assert_eq!(cni("DaemonSet", &[]), [Value::Null; 0]);
    let daemonset = &cni("DaemonSet", &["cni.enabled=true", "cni.runDir=/run/x"])[0];
    let pod = &daemonset["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let capabilities = json!({"drop": ["ALL"], "add": ["SYS_ADMIN", "NET_ADMIN", "NET_RAW"]});
    assert_eq!(container["securityContext"]["capabilities"], capabilities);
    assert_eq!(container["securityContext"]["privileged"], Value::Null);
    // The plugin finds the daemon's socket by the path that the daemon tells it.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let run = mounts.iter().find(|mount| mount["name"] == "run").unwrap();
    assert_eq!(run["mountPath"], "/run/x");
    assert!(container["args"].as_array().unwrap().contains(&json!("--run-dir=/run/x")));
    let privileged = &cni("DaemonSet", &["cni.enabled=true", "cni.privileged=true"])[0];
    let security = &privileged["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], true);
    assert_eq!(security["capabilities"], Value::Null);
}

#[test]
fn the_cni_daemon_may_do_what_its_values_ask_for() {
    let verbs = |values: &[&str]| {
        let role = cni("ClusterRole", values).remove(0);
        let rules = role["rules"].as_array().unwrap().clone();
        let verbs =
            rules.into_iter().map(|rule| (rule["resources"].clone(), rule["verbs"].clone()));
        verbs.collect::<Vec<_>>()
    };
    let delete = (json!(["pods"]), json!(["delete"]));
    let untaint = (json!(["nodes"]), json!(["get", "patch"]));
    let usual = verbs(&["cni.enabled=true"]);
    assert!(usual.contains(&delete) && !usual.contains(&untaint));
    let other = verbs(&["cni.enabled=true", "cni.repair=none", "cni.nodeTaint=true"]);
    assert!(!other.contains(&delete) && other.contains(&untaint));
}
