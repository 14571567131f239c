//! `manifests/meshwright.yaml` is the chart rendered with its defaults, behind the namespace that it
//! goes to. `MESHWRIGHT_UPDATE=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

const NAMESPACE: &str =
    "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: meshwright-system\n";

fn helm() -> PathBuf {
    let on_path = || {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("helm")).find(|file| file.is_file())
    };
    let in_cache = || {
        let tools = PathBuf::from(env::var_os("HOME")?).join(".cache/meshwright/tools");
        let folders = fs::read_dir(tools).ok()?.filter_map(Result::ok);
        folders
            .filter(|folder| folder.file_name().to_string_lossy().starts_with("helm-"))
            .map(|folder| folder.path().join("helm"))
            .find(|file| file.is_file())
    };
    env::var_os("MESHWRIGHT_HELM")
        .map(PathBuf::from)
        .or_else(on_path)
        .or_else(in_cache)
        .expect("helm is missing: put it on the PATH, name it in MESHWRIGHT_HELM, or run `cargo verify`, which installs it")
}

/// The chart rendered with these values.
fn template(values: &[&str]) -> String {
    let mut command = Command::new(helm());
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["template", "meshwright", "charts/meshwright"])
        .args(["--namespace", "meshwright-system"]);
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output().expect("helm cannot be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn manifests_are_fresh() {
    let rendered = NAMESPACE.to_owned() + &template(&[]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/meshwright.yaml");
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
    let objects = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
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
