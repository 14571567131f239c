//! Properties of injection: it changes nothing twice, and keeps what it does not own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;

use fixture::{config, namespace};
use meshwright::webhook::inject::inject;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

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

fn pod() -> impl Strategy<Value = Value> {
    let containers = || proptest::collection::vec(container(), 1..4);
    let scrape = proptest::option::of((any::<bool>(), 1_u16..15000));
    let volumes = proptest::collection::vec(name(), 0..3);
    (containers(), containers(), strings(), strings(), scrape, volumes).prop_map(
        |(apps, inits, labels, mut annotations, scrape, volumes)| {
            if let Some((scrape, port)) = scrape {
                annotations["prometheus.io/scrape"] = scrape.to_string().into();
                annotations["prometheus.io/port"] = port.to_string().into();
            }
            let all = distinct([apps.clone(), inits].concat());
            let (apps, inits) = all.split_at(distinct(apps).len());
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

/// Everything of a container that injection must not touch.
fn own_fields(container: &Value) -> Value {
    let mut container = container.clone();
    let probes = ["/readinessProbe", "/livenessProbe", "/startupProbe"];
    for probe in probes.into_iter().chain(["/lifecycle/preStop", "/lifecycle/postStart"]) {
        if let Some(Value::Object(probe)) = container.pointer_mut(probe) {
            for handler in ["httpGet", "tcpSocket", "grpc"] {
                probe.remove(handler);
            }
        }
    }
    container
}

proptest! {
    #[test]
    fn a_second_injection_changes_nothing(pod in pod()) {
        let once = inject(&pod, &namespace(), &config()).unwrap().pod;
        let twice = inject(&once, &namespace(), &config()).unwrap().pod;
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn the_users_fields_stay(pod in pod()) {
        let after = inject(&pod, &namespace(), &config()).unwrap().pod;
        prop_assert_eq!(&after["spec"]["x"], &pod["spec"]["x"]);
        let list = |pod: &Value, field: &str| pod["spec"][field].as_array().unwrap().clone();
        let fields = |list: Vec<Value>| list.iter().map(own_fields).collect::<Vec<_>>();
        prop_assert_eq!(fields(list(&after, "containers")), fields(list(&pod, "containers")));
        let inits = list(&after, "initContainers");
        prop_assert_eq!(&inits[0]["name"], "meshwright-redirect");
        prop_assert_eq!(&inits[1]["name"], "meshwright-proxy");
        prop_assert_eq!(fields(inits[2..].to_vec()), fields(list(&pod, "initContainers")));
        for volume in list(&pod, "volumes") {
            prop_assert!(list(&after, "volumes").contains(&volume));
        }
        for (key, value) in pod["metadata"]["labels"].as_object().unwrap() {
            prop_assert_eq!(&after["metadata"]["labels"][key], value);
        }
    }

    #[test]
    fn what_was_rewritten_can_be_put_back(pod in pod()) {
        let mut off = config();
        off.proxy.defaults.rewrite_probes = false;
        let direct = inject(&pod, &namespace(), &off).unwrap().pod;
        let rewritten = inject(&pod, &namespace(), &config()).unwrap().pod;
        let back = inject(&rewritten, &namespace(), &off).unwrap().pod;
        prop_assert_eq!(&back["spec"]["containers"], &pod["spec"]["containers"]);
        prop_assert_eq!(&back["spec"]["containers"], &direct["spec"]["containers"]);
        prop_assert_eq!(&back["spec"]["initContainers"], &direct["spec"]["initContainers"]);
    }

    #[test]
    fn the_patch_leads_from_the_one_to_the_other(pod in pod()) {
        let after = inject(&pod, &namespace(), &config()).unwrap().pod;
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &json_patch::diff(&pod, &after)).unwrap();
        prop_assert_eq!(patched, after);
    }

    #[test]
    fn no_json_makes_it_panic(
        text in r#"\{"(metadata|spec)":(null|\[\]|\{\}|1|"x"),"spec":(null|\[\]|\{"containers":(null|\{\}|\[null\]|\[\{\}\])\})\}"#
    ) {
        if let Ok(pod) = serde_json::from_str::<Value>(&text) {
            drop(inject(&pod, &namespace(), &config()));
        }
    }
}
