//! The CNI plugin and its daemon for real, without Kubernetes: the built programs, a network
//! namespace for each pod, real connections, and an API server of a few lines. Needs root.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on says where")]

#[path = "netns_cni/api_server.rs"]
mod api_server;
#[path = "netns_cni/inside.rs"]
mod inside;
#[path = "netns_cni/node.rs"]
mod node;

use std::fs;

use node::{CONFLIST, Node, Pod, until};
use serde_json::{Value, json};

#[test]
fn a_pod_is_redirected_before_its_containers_start() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    let list: Value = serde_json::from_str(&node.conflist()).unwrap();
    assert_eq!(list["plugins"][0]["type"], "ptp");
    assert_eq!(list["plugins"][1]["type"], "meshwright-cni");

    let pod = Pod::new();
    node.api.put(&pod.meshed());
    assert_eq!(pod.connect(), "nobody");
    assert_eq!(node.add(&pod), "");
    assert_eq!(pod.connect(), "proxy");
    // The runtime may ask again, and in the end takes the sandbox away.
    assert_eq!(node.add(&pod), "");
    assert!(node.plugin("DEL", &pod).status.success());
    assert_eq!(fs::read_dir(node.path("run/sandboxes")).unwrap().count(), 0);
}

#[test]
fn other_pods_are_left_alone() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    let [plain, host, own, unknown] = [Pod::new(), Pod::new(), Pod::new(), Pod::new()];
    let mut object = plain.meshed();
    object["metadata"]["annotations"] = json!({});
    node.api.put(&object);
    let mut object = host.meshed();
    object["spec"]["hostNetwork"] = json!(true);
    node.api.put(&object);
    let mut object = own.meshed();
    object["spec"]["initContainers"][0]["args"] = json!(["redirect"]);
    node.api.put(&object);
    for pod in [plain, host, own, unknown] {
        assert_eq!(node.add(&pod), "");
        assert_eq!(pod.connect(), "nobody");
    }
}

#[test]
fn pods_start_without_the_daemon_and_are_redirected_when_it_is_back() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    node.stop_daemon();
    let [meshed, plain] = [Pod::new(), Pod::new()];
    assert!(node.add(&meshed).contains("not redirected yet"));
    assert!(node.add(&plain).contains("not redirected yet"));
    node.api.put(&meshed.meshed());
    assert_eq!(meshed.connect(), "nobody");
    node.start_daemon(&[]);
    until("the pod is redirected", || meshed.connect() == "proxy");
    until("an event says so", || node.api.events().contains(&"RedirectedLate".to_owned()));
    assert_eq!(plain.connect(), "nobody");
}

#[test]
fn a_daemon_that_hangs_does_not_hold_up_the_node() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    let pod = Pod::new();
    node.signal_daemon("-STOP");
    assert!(node.add(&pod).contains("no answer from"));
    node.api.put(&pod.meshed());
    node.signal_daemon("-CONT");
    until("the pod is redirected", || pod.connect() == "proxy");
}

#[test]
fn a_pod_from_before_the_plugin_is_found_by_its_address() {
    let mut node = Node::new();
    let pod = Pod::new();
    node.api.put(&pod.meshed());
    node.start_daemon(&[]);
    until("the pod is redirected", || pod.connect() == "proxy");
    assert!(!node.path("run/sandboxes").exists(), "the plugin was never called");
}

#[test]
fn a_pod_from_before_the_plugin_is_made_anew_where_that_is_wanted() {
    let mut node = Node::new();
    let pod = Pod::new();
    node.api.put(&pod.meshed());
    node.start_daemon(&["--repair=delete"]);
    let wanted = format!("DELETE /api/v1/namespaces/shop/pods/{}", pod.name);
    until("the pod is deleted", || {
        node.api.contents().writes.iter().any(|(request, _)| *request == wanted)
    });
    let contents = node.api.contents();
    let (_, options) = contents.writes.iter().find(|(request, _)| *request == wanted).unwrap();
    assert_eq!(options["preconditions"]["uid"], json!(pod.name));
    drop(contents);
    assert_eq!(pod.connect(), "nobody");
}

#[test]
fn an_annotation_that_makes_no_sense_is_said_and_harms_nobody() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    let pod = Pod::new();
    let mut object = pod.meshed();
    object["metadata"]["annotations"]["meshwright.dev/redirect"] =
        json!(r#"["--inbound-ports=x"]"#);
    node.api.put(&object);
    let complaint = node.add(&pod);
    assert!(complaint.contains("--inbound-ports"), "{complaint}");
    until("an event says so", || node.api.events().contains(&"NotRedirected".to_owned()));
    assert_eq!(pod.connect(), "nobody");
}

#[test]
fn the_taint_goes_when_the_node_is_ready() {
    let mut node = Node::new();
    node.start_daemon(&["--node-taint"]);
    until("the taint is removed", || {
        let contents = node.api.contents();
        contents.writes.iter().any(|(request, body)| {
            request == "PATCH /api/v1/nodes/node1"
                && body["metadata"]["resourceVersion"] == "7"
                && body["spec"]["taints"] == json!([{"key": "gpu", "effect": "NoSchedule"}])
        })
    });
}

#[test]
fn an_upgrade_leaves_the_plugin_and_an_uninstallation_nothing() {
    let mut node = Node::new();
    node.start_daemon(&[]);
    node.stop_daemon();
    assert!(node.conflist().contains("meshwright-cni"));
    assert!(node.path("bin/meshwright-cni").is_file());
    // Its owner writes the configuration anew, and the next daemon is of another version.
    fs::write(node.path("net.d/10-pods.conflist"), CONFLIST).unwrap();
    fs::write(node.path("bin/meshwright-cni"), "an older one").unwrap();
    node.start_daemon(&[]);
    let pod = Pod::new();
    assert_eq!(node.add(&pod), "");

    // While there is a pod that was started with the plugin, its end may need the program.
    node.api.contents().daemonset = false;
    node.stop_daemon();
    assert_eq!(node.conflist(), CONFLIST);
    assert!(node.path("bin/meshwright-cni").is_file());
    node.start_daemon(&[]);
    assert!(node.plugin("DEL", &pod).status.success());
    node.stop_daemon();
    assert_eq!(node.conflist(), CONFLIST);
    let left: Vec<_> = fs::read_dir(node.path("net.d")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(!node.path("bin/meshwright-cni").exists());
}
