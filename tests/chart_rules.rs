//! What the chart's objects may not do, whatever the values: Pod Security `restricted` for everything
//! but the CNI plugin's daemon, and no right without a reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "chart/helm.rs"]
mod helm;

use std::collections::BTreeSet;

use helm::{cases, objects, render};
use serde_json::{Value, json};

/// Objects of the chart with its defaults and in every case, with their texts.
fn everything() -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    let defaults = [("defaults".to_owned(), String::new())];
    for (case, values) in cases().into_iter().chain(defaults) {
        for (text, object) in objects(&render(&[], &values).unwrap()) {
            let name = format!("{case}: {} {}", object["kind"], object["metadata"]["name"]);
            all.push((name, text, object));
        }
    }
    all
}

fn pod(object: &Value) -> Option<&Value> {
    let spec = &object["spec"];
    match object["kind"].as_str()? {
        "Pod" => Some(spec),
        "CronJob" => Some(&spec["jobTemplate"]["spec"]["template"]["spec"]),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => {
            Some(&spec["template"]["spec"])
        }
        _ => None,
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| items(&pod[list]))
}

/// Rules of Pod Security `restricted` (which has those of `baseline`) that a pod breaks.
fn broken_rules(pod: &Value) -> BTreeSet<String> {
    let mut broken = BTreeSet::new();
    let mut rule = |kept: bool, name: &str| {
        if !kept {
            broken.insert(name.to_owned());
        }
    };
    let unset = |value: &Value| value.is_null() || *value == json!(false);
    for name in ["hostNetwork", "hostPID", "hostIPC"] {
        rule(unset(&pod[name]), name);
    }
    let harmless = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in items(&pod["volumes"]) {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        rule(kinds.clone().all(|kind| harmless.contains(&kind.as_str())), "volumes");
    }
    let context = &pod["securityContext"];
    rule(items(&context["sysctls"]).next().is_none(), "sysctls");
    let profiles = [json!("RuntimeDefault"), json!("Localhost")];
    for container in containers(pod) {
        let own = &container["securityContext"];
        let either = |name: &str| if own[name].is_null() { &context[name] } else { &own[name] };
        rule(unset(&own["privileged"]), "privileged");
        rule(own["allowPrivilegeEscalation"] == json!(false), "allowPrivilegeEscalation");
        rule(*either("runAsNonRoot") == json!(true), "runAsNonRoot");
        rule(*either("runAsUser") != json!(0), "runAsUser");
        rule(profiles.contains(&either("seccompProfile")["type"]), "seccompProfile");
        rule(either("appArmorProfile")["type"] != json!("Unconfined"), "appArmorProfile");
        rule(either("seLinuxOptions").is_null(), "seLinuxOptions");
        rule(own["procMount"].is_null() || own["procMount"] == "Default", "procMount");
        rule(items(&own["capabilities"]["drop"]).any(|dropped| dropped == "ALL"), "drop ALL");
        let added = items(&own["capabilities"]["add"]);
        rule({ added }.all(|added| added == "NET_BIND_SERVICE"), "capabilities");
        rule(items(&container["ports"]).all(|port| port["hostPort"].is_null()), "hostPort");
    }
    broken
}

#[test]
fn all_but_the_cni_daemon_is_restricted() {
    let (mut seen, mut on_host) = (0, 0);
    for (name, _, object) in everything() {
        let Some(pod) = pod(&object) else { continue };
        seen += 1;
        let broken = broken_rules(pod);
        let broken: Vec<&str> = broken.iter().map(String::as_str).collect();
        if object["kind"] == "DaemonSet" {
            assert!(broken.contains(&"hostNetwork") && broken.contains(&"volumes"), "{name}");
        } else if name.starts_with("host-network: \"Deployment\"") {
            on_host += 1;
            assert_eq!(broken, ["hostNetwork"], "{name}: it is what the value asks for, no more");
        } else {
            assert!(broken.is_empty(), "{name} breaks {broken:?}");
        }
        // Not a rule of Pod Security, but of ours.
        for container in containers(pod) {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
            assert!(container["resources"]["requests"].is_object(), "{name}");
        }
    }
    assert!(seen > 20 && on_host == 1, "{seen} pods, {on_host} on their node's network");
}

#[test]
fn the_rules_find_what_breaks_them() {
    let restricted = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
    });
    assert!(broken_rules(&restricted).is_empty());
    let container = "/containers/0/securityContext";
    for (path, value, rule) in [
        ("", json!({"hostNetwork": true}), "hostNetwork"),
        ("", json!({"hostPID": true}), "hostPID"),
        ("", json!({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}), "volumes"),
        ("/securityContext", json!({"runAsNonRoot": false}), "runAsNonRoot"),
        ("/securityContext", json!({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
        (container, json!({"runAsUser": 0}), "runAsUser"),
        (container, json!({"privileged": true}), "privileged"),
        (container, json!({"allowPrivilegeEscalation": null}), "allowPrivilegeEscalation"),
        (container, json!({"capabilities": {"drop": ["NET_RAW"]}}), "drop ALL"),
        (
            container,
            json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
            "capabilities",
        ),
        ("/containers/0", json!({"ports": [{"hostPort": 80}]}), "hostPort"),
    ] {
        let mut pod = restricted.clone();
        let place = pod.pointer_mut(path).unwrap().as_object_mut().unwrap();
        place.extend(value.as_object().unwrap().clone());
        assert_eq!(broken_rules(&pod), [rule.to_owned()].into(), "{value}");
    }
}

fn strings(list: &Value) -> BTreeSet<&str> {
    items(list).filter_map(Value::as_str).collect()
}

/// Verbs that make whoever has them as mighty as they like.
const ESCALATING: [&str; 3] = ["escalate", "bind", "impersonate"];

#[test]
fn no_role_has_a_wildcard_or_can_make_itself_mightier() {
    let mut rules = 0;
    for (name, _, object) in everything() {
        for rule in items(&object["rules"]) {
            rules += 1;
            for part in ["apiGroups", "resources", "verbs", "resourceNames"] {
                assert!(!strings(&rule[part]).contains("*"), "{name}: {part} in {rule}");
            }
            let verbs = strings(&rule["verbs"]);
            assert!(!ESCALATING.iter().any(|verb| verbs.contains(verb)), "{name}: {rule}");
            assert!(rule["nonResourceURLs"].is_null(), "{name}: {rule}");
        }
    }
    assert!(rules > 100, "{rules}");
}

/// Secrets of the whole cluster can be listed, for the certificates of gateways, and nothing else; in
/// its own namespace the operator reads only the two that it keeps.
#[test]
fn secrets_are_read_as_far_as_gateways_need_them() {
    for (name, _, object) in everything() {
        let everywhere = object["kind"] == "ClusterRole";
        for rule in items(&object["rules"]) {
            if !strings(&rule["resources"]).iter().any(|resource| resource.starts_with("secrets")) {
                continue;
            }
            let (verbs, names) = (strings(&rule["verbs"]), strings(&rule["resourceNames"]));
            if everywhere {
                assert!(name.ends_with("\"meshwright-operator\""), "{name}: {rule}");
                assert_eq!(verbs, ["list", "watch"].into(), "{name}");
            } else if names.is_empty() {
                assert_eq!(verbs, ["create"].into(), "{name}");
            } else {
                let ours = BTreeSet::from(["meshwright-ca", "meshwright-webhook-tls"]);
                assert!(names.is_subset(&ours), "{name}: {rule}");
            }
        }
    }
}

/// The comment above a rule says why; what a verb is for says that comment or the one on top.
#[test]
fn every_right_has_a_reason() {
    let template = |path: &str| std::fs::read_to_string(helm::file(path)).unwrap();
    let legend = template("charts/meshwright/templates/rbac.yaml");
    let legend = legend.split("apiVersion:").next().unwrap();
    let explained = |verb: &str, comment: &str| {
        let words = |text: &str| {
            let word = |c: char| !c.is_alphanumeric();
            text.to_lowercase().split(word).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        words(comment).contains(verb) || words(legend).contains(verb)
    };
    for (name, text, object) in everything() {
        if !object["rules"].is_array() || !object["kind"].as_str().unwrap().ends_with("Role") {
            continue;
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let starts: Vec<_> =
            (0..lines.len()).filter(|at| lines[*at].starts_with("- apiGroups")).collect();
        assert_eq!(starts.len(), items(&object["rules"]).count(), "{name}");
        for (start, rule) in starts.into_iter().zip(items(&object["rules"])) {
            let above = lines[..start].iter().rev().take_while(|line| line.starts_with('#'));
            let comment = above.copied().collect::<Vec<_>>().join(" ");
            assert!(!comment.is_empty(), "{name}: no reason is given for {rule}");
            for verb in strings(&rule["verbs"]) {
                assert!(explained(verb, &comment), "{name}: what is {verb} for in {rule}?");
            }
        }
    }
}
