//! What the properties of injection are tried with: any pod, any installation, any other webhook.

use meshwright::{
    api::meshwright::MeshInstallationSpec,
    webhook::inject::{InjectConfig, strategic},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::fixture::config_of;

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,6}"
}

fn probe() -> impl Strategy<Value = Value> {
    let port = prop_oneof![(1_u16..).prop_map(Value::from), name().prop_map(Value::from)];
    let handler = (port, name(), 0..5).prop_map(|(port, text, kind)| match kind {
        0 => json!({"httpGet": {"path": format!("/{text}"), "port": port}}),
        1 => json!({"httpGet": {"path": "/$(A)", "port": port, "host": text}}),
        2 => json!({"tcpSocket": {"port": port}}),
        3 => json!({"grpc": {"port": 9000, "service": text}}),
        _ => json!({"exec": {"command": [text]}}),
    });
    (handler, proptest::option::of(1_u16..60)).prop_map(|(mut probe, timeout)| {
        if let Some(timeout) = timeout {
            probe["timeoutSeconds"] = timeout.into();
        }
        probe
    })
}

fn container() -> impl Strategy<Value = Value> {
    let probes = [(); 3].map(|()| proptest::option::of(probe()));
    let port = proptest::option::of((name(), 1_u16..));
    let hooks = [(); 2].map(|()| proptest::option::of(probe()));
    (name(), probes, hooks, port).prop_map(|(name, [ready, live, started], hooks, port)| {
        let mut container = json!({"name": name, "image": "x", "futureField": name});
        for (field, hook) in ["preStop", "postStart"].into_iter().zip(hooks) {
            if let Some(hook) = hook {
                container["lifecycle"][field] = hook;
            }
        }
        for (field, probe) in
            [("readinessProbe", ready), ("livenessProbe", live), ("startupProbe", started)]
        {
            if let Some(probe) = probe {
                container[field] = probe;
            }
        }
        if let Some((name, number)) = port {
            container["ports"] = json!([{"name": name, "containerPort": number}]);
        }
        container
    })
}

fn distinct(containers: Vec<Value>) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    containers.into_iter().filter(|c| seen.insert(c["name"].to_string())).collect()
}

fn strings() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(name(), "[ -~]{0,8}", 0..4).prop_map(|map| {
        Value::Object(map.into_iter().map(|(k, v)| (k, v.into())).collect::<Map<_, _>>())
    })
}

/// Any pod, with unknown fields in each of its parts.
pub fn pod() -> impl Strategy<Value = Value> {
    let containers = || proptest::collection::vec(container(), 1..4);
    let scrape = proptest::option::of((any::<bool>(), 1_u16..15000));
    let volumes = proptest::collection::btree_set(name(), 0..3);
    let own = proptest::option::weighted(0.3, own_proxy());
    (containers(), containers(), strings(), strings(), scrape, volumes, own).prop_map(
        |(apps, inits, labels, mut annotations, scrape, volumes, own)| {
            if let Some((scrape, port)) = scrape {
                annotations["prometheus.io/scrape"] = scrape.to_string().into();
                annotations["prometheus.io/port"] = port.to_string().into();
            }
            let all = distinct([apps.clone(), inits].concat());
            let (apps, inits) = all.split_at(distinct(apps).len());
            let apps: Vec<_> = apps.iter().cloned().chain(own).collect();
            let volumes: Vec<_> =
                volumes.iter().map(|name| json!({"name": name, "futureSource": {}})).collect();
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "annotations": annotations},
                "spec": {"containers": apps, "initContainers": inits, "volumes": volumes, "x": 1},
            })
        },
    )
}

/// Settings of the pod's own for the proxy.
fn own_proxy() -> impl Strategy<Value = Value> {
    let name = prop_oneof![Just("istio-proxy"), Just("meshwright-proxy")];
    (name, 1_u16..4, proptest::option::of(2000..2003)).prop_map(|(name, cpu, user)| {
        let mut own = json!({
            "name": name, "image": "auto", "futureField": cpu,
            "resources": {"limits": {"cpu": cpu.to_string()}},
            "env": [{"name": "GOGC", "value": cpu.to_string()}],
        });
        if let Some(user) = user {
            own["securityContext"] = json!({"runAsUser": user});
        }
        own
    })
}

/// Templates and patches that add to our containers, add others, and take something away.
fn injection() -> impl Strategy<Value = Value> {
    let templates = proptest::sample::subsequence(vec!["sidecar", "tools", "store"], 1..=3);
    let templates = templates.prop_map(|mut names| {
        if !names.contains(&"sidecar") {
            names.insert(0, "sidecar");
        }
        names
    });
    let patches = proptest::sample::subsequence(
        vec![
            json!({"patch": {"metadata": {"labels": {"patched": "yes"}}}}),
            json!({"selector": {"matchLabels": {"patched": "yes"}},
                "patch": {"spec": {"volumes": [{"name": "late", "emptyDir": {}}]}}}),
            json!({"patch": {"spec": {"initContainers": [
                {"name": "istio-proxy", "env": [{"name": "PATCHED", "value": "1"}]}]}}}),
            json!({"patch": {"spec": {"containers": [
                {"name": "meshwright-proxy", "ports": [{"containerPort": 9}]}]}}}),
        ],
        0..=4,
    );
    (templates, patches).prop_map(|(names, patches)| {
        json!({
            "defaultTemplates": names,
            "templates": {
                "tools": {"spec": {
                    "containers": [{"name": "tools-0", "image": "tools", "readinessProbe": {
                        "httpGet": {"path": "/", "port": 80}}}],
                    "initContainers": [{"name": "tools-1", "image": "tools"}],
                }},
                "store": {
                    "metadata": {"annotations": {"stored": "yes"}},
                    "spec": {
                        "volumes": [{"name": "store-0", "emptyDir": {}}],
                        "containers": [{"name": "istio-proxy", "volumeMounts": [
                            {"name": "store-0", "mountPath": "/store"}]}],
                    },
                },
            },
            "patches": patches,
        })
    })
}

/// Any installation.
pub fn installation() -> impl Strategy<Value = InjectConfig> {
    let one = |names: &'static [&'static str]| proptest::sample::select(names);
    (
        one(&["Auto", "Native", "Classic"]),
        any::<bool>(),
        any::<bool>(),
        one(&["REDIRECT", "TPROXY", "NONE"]),
        one(&["InitContainer", "CNI"]),
        proptest::collection::btree_set("[a-c]", 0..3),
        injection(),
        any::<bool>(),
    )
        .prop_map(|(kind, hold, rewrite, mode, by, secrets, injection, native)| {
            let spec: MeshInstallationSpec = serde_json::from_value(json!({
                "proxy": {
                    "sidecar": kind, "holdApplicationUntilProxyStarts": hold,
                    "rewriteAppProbes": rewrite, "imagePullSecrets": secrets,
                },
                "redirection": {"mode": mode, "by": by},
                "injection": injection,
            }))
            .unwrap();
            config_of(&spec, native)
        })
}

/// What another webhook does to a pod, as strategic merge patches. Its own names begin with `w`.
pub fn webhook() -> impl Strategy<Value = Vec<Value>> {
    let ours = || {
        let list = proptest::sample::select(&["initContainers", "containers"][..]);
        (list, proptest::sample::select(&["meshwright-proxy", "meshwright-redirect"][..]))
    };
    let in_spec = |field: &str, item: Value| json!({"spec": {field: [item]}});
    let step = prop_oneof![
        Just(json!({"metadata": {"labels": {"w-label": "1", "meshwright.dev/revision": null}}})),
        Just(json!({"metadata": {"annotations": {"w-note": "1"}}})),
        Just(json!({"metadata": {"annotations": {"meshwright.dev/status": null}}})),
        Just(json!({"metadata": {"annotations": {"meshwright.dev/redirect": null}}})),
        Just(in_spec(
            "containers",
            json!({"name": "wapp-0", "image": "w", "livenessProbe": {
            "tcpSocket": {"port": 70}}})
        )),
        Just(in_spec("initContainers", json!({"name": "winit-0", "image": "w"}))),
        Just(in_spec("volumes", json!({"name": "wvolume", "emptyDir": {}}))),
        Just(in_spec("volumes", json!({"name": "meshwright-identity", "$patch": "delete"}))),
        Just(in_spec("imagePullSecrets", json!({"name": "wsecret"}))),
        ours().prop_map(move |(list, name)| in_spec(
            list,
            json!({"name": name, "only": true,
            "image": "mirror/proxy", "env": [{"name": "W", "value": "1"}]})
        )),
        ours().prop_map(move |(list, name)| in_spec(
            list,
            json!({"name": name, "only": true,
            "restartPolicy": null, "readinessProbe": null})
        )),
        ours().prop_map(move |(list, name)| in_spec(
            list,
            json!({"name": name, "only": true,
            "$patch": "delete"})
        )),
    ];
    proptest::collection::vec(step, 0..6)
}

/// Lets the other webhook do its work. What it says of containers that are not there (`only`) it
/// does not say.
pub fn act(webhook: &[Value], pod: &Value) -> Value {
    let mut pod = pod.clone();
    for step in webhook {
        let mut step = step.clone();
        for list in ["initContainers", "containers"] {
            let names: Vec<_> = items(&pod, list).iter().map(|item| item["name"].clone()).collect();
            let Some(Value::Array(wanted)) = step.pointer_mut(&format!("/spec/{list}")) else {
                continue;
            };
            wanted.retain(|item| item["only"].is_null() || names.contains(&item["name"]));
            for item in wanted {
                item.as_object_mut().unwrap().remove("only");
            }
        }
        strategic::merge(pod.as_object_mut().unwrap(), step.as_object().unwrap()).unwrap();
    }
    pod
}

/// The items of a list of the pod's spec.
pub fn items(pod: &Value, field: &str) -> Vec<Value> {
    pod["spec"][field].as_array().cloned().unwrap_or_default()
}
