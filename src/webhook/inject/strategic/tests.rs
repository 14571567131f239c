use proptest::prelude::*;
use serde_json::json;

use super::*;

fn merged(target: Value, patch: Value) -> Value {
    try_merged(target, patch).unwrap()
}

fn try_merged(target: Value, patch: Value) -> Result<Value, String> {
    let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else { panic!() };
    merge(&mut target, &patch).map_err(|error| error.to_string())?;
    Ok(target.into())
}

#[test]
fn objects_merge_by_field_and_null_takes_one_away() {
    let pod = json!({"spec": {"hostname": "a", "subdomain": "b", "dnsConfig": {"options": [1]}}});
    let patch =
        json!({"spec": {"hostname": "c", "subdomain": null, "dnsConfig": {"searches": []}}});
    let wanted = json!({"spec": {"hostname": "c", "dnsConfig": {"options": [1], "searches": []}}});
    assert_eq!(merged(pod, patch), wanted);
}

#[test]
fn containers_merge_by_name_and_their_lists_by_their_own_keys() {
    let pod = json!({"containers": [
        {"name": "web", "image": "web:1", "args": ["a", "b"],
         "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
         "volumeMounts": [{"mountPath": "/a", "name": "x"}],
         "ports": [{"containerPort": 53, "protocol": "UDP"}]},
    ]});
    let patch = json!({"containers": [
        {"name": "web", "args": ["c"],
         "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
         "volumeMounts": [{"mountPath": "/a", "name": "y"}],
         "ports": [{"containerPort": 53}]},
        {"name": "log", "image": "log:1"},
    ]});
    let wanted = json!({"containers": [
        {"name": "web", "image": "web:1", "args": ["c"],
         "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"},
                 {"name": "C", "value": "4"}],
         "volumeMounts": [{"mountPath": "/a", "name": "y"}],
         "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]},
        {"name": "log", "image": "log:1"},
    ]});
    assert_eq!(merged(pod, patch), wanted);
}

#[test]
fn a_port_without_a_protocol_is_a_tcp_port() {
    let pod = json!({"ports": [{"containerPort": 80}]});
    let patch = json!({"ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]});
    let wanted = json!({"ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]});
    assert_eq!(merged(pod, patch), wanted);
}

#[test]
fn other_keyed_lists() {
    let pod = json!({
        "imagePullSecrets": [{"name": "a"}],
        "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a"]}],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
    });
    let patch = json!({
        "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
        "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["b"]}],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2}],
    });
    let wanted = json!({
        "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
        "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["b"]}],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1},
            {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2}],
    });
    assert_eq!(merged(pod, patch), wanted);
}

#[test]
fn tolerations_are_one_value() {
    let pod = json!({"tolerations": [{"key": "a"}]});
    assert_eq!(
        merged(pod, json!({"tolerations": [{"key": "b"}]})),
        json!({"tolerations": [{"key": "b"}]})
    );
}

#[test]
fn patch_delete_takes_an_item_or_an_object_away() {
    let pod = json!({"volumes": [{"name": "a"}, {"name": "b"}], "affinity": {"podAffinity": {}}});
    let patch = json!({
        "volumes": [{"name": "a", "$patch": "delete"}, {"name": "c", "$patch": "delete"}],
        "affinity": {"$patch": "delete"},
    });
    assert_eq!(merged(pod, patch), json!({"volumes": [{"name": "b"}]}));
}

#[test]
fn patch_replace_starts_anew() {
    let pod = json!({"env": [{"name": "A"}], "securityContext": {"runAsUser": 1}});
    let patch = json!({
        "env": [{"$patch": "replace"}, {"name": "B"}],
        "securityContext": {"$patch": "replace", "fsGroup": 2},
    });
    assert_eq!(
        merged(pod, patch),
        json!({"env": [{"name": "B"}], "securityContext": {"fsGroup": 2}})
    );
}

#[test]
fn retain_keys_leaves_one_source_of_a_volume() {
    let pod = json!({"volumes": [{"name": "a", "emptyDir": {"medium": "Memory"}}]});
    let patch = json!({"volumes": [
        {"name": "a", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]});
    assert_eq!(
        merged(pod, patch),
        json!({"volumes": [{"name": "a", "secret": {"secretName": "s"}}]})
    );
}

#[test]
fn set_element_order_moves_the_items_that_it_names() {
    let pod = json!({"containers": [{"name": "a"}, {"name": "x"}, {"name": "b"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c"}],
    });
    let wanted =
        json!({"containers": [{"name": "c"}, {"name": "x"}, {"name": "b"}, {"name": "a"}]});
    assert_eq!(merged(pod, patch), wanted);
}

#[test]
fn plain_values_merge_as_a_set_where_kubernetes_says_so() {
    let pod = json!({"finalizers": ["a", "b"]});
    let patch = json!({"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]});
    assert_eq!(merged(pod, patch), json!({"finalizers": ["b", "c"]}));
}

#[test]
fn what_cannot_be_merged_is_named() {
    for (patch, error) in [
        (json!({"containers": {"a": 1}}), "containers: must be a list"),
        (json!({"containers": "web"}), "containers: must be a list"),
        (json!({"containers": ["web"]}), "containers[0]: must be an object"),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "spec.containers[0]: has no name, by which it is merged",
        ),
        (
            json!({"containers": [{"name": "web", "env": [{"value": "1"}]}]}),
            "containers[web].env[0]: has no name, by which it is merged",
        ),
        (json!({"$patch": "remove"}), "$patch is \"remove\"; it can be merge, replace or delete"),
        (json!({"$retain": []}), "$retain: there is no such directive"),
        (json!({"$retainKeys": "name"}), "$retainKeys: must be a list"),
    ] {
        let pod = json!({"containers": [{"name": "web"}]});
        assert_eq!(try_merged(pod, patch), Err(error.to_owned()));
    }
}

#[test]
fn a_label_may_be_called_like_a_list() {
    let pod = json!({"labels": {"env": "test"}});
    assert_eq!(
        merged(pod, json!({"labels": {"env": "prod", "ports": "many"}})),
        json!({"labels": {"env": "prod", "ports": "many"}})
    );
}

#[test]
fn fill_adds_what_is_missing_and_changes_nothing() {
    let mut pod = json!({
        "spec": {
            "initContainers": null,
            "containers": [
                {"name": "proxy", "image": "mirror/proxy", "env": [{"name": "A", "value": "own"}],
                 "resources": {"limits": {"cpu": 1}}}],
            "volumes": [{"name": "run", "hostPath": {"path": "/run"}}],
        },
    });
    let from = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "initContainers": [{"name": "redirect"}],
            "containers": [
                {"name": "proxy", "image": "proxy", "restartPolicy": "Always",
                 "env": [{"name": "A", "valueFrom": {}}, {"name": "B"}],
                 "resources": {"requests": {"cpu": 1}}}],
            "volumes": [{"name": "run", "emptyDir": {}}, {"name": "identity"}],
        },
    });
    let wanted = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "initContainers": [{"name": "redirect"}],
            "containers": [
                {"name": "proxy", "image": "mirror/proxy", "restartPolicy": "Always",
                 "env": [{"name": "A", "value": "own"}, {"name": "B"}],
                 "resources": {"limits": {"cpu": 1}}}],
            "volumes": [{"name": "run", "hostPath": {"path": "/run"}}, {"name": "identity"}],
        },
    });
    fill(pod.as_object_mut().unwrap(), from.as_object().unwrap());
    assert_eq!(pod, wanted);
}

fn named(field: &'static str) -> impl Strategy<Value = Value> {
    let directive = proptest::option::weighted(0.2, Just("delete"));
    let item = ("[a-c]", directive, 0..3).prop_map(move |(name, directive, value)| {
        let mut item = json!({"name": name, field: value});
        if let Some(directive) = directive {
            item["$patch"] = directive.into();
        }
        item
    });
    proptest::collection::vec(item, 0..4).prop_map(|mut items| {
        let mut seen = std::collections::BTreeSet::new();
        items.retain(|item| seen.insert(item["name"].to_string()));
        items.into()
    })
}

fn patch() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![Just(Value::Null), (0..3).prop_map(Value::from)];
    (named("image"), named("value"), scalar).prop_map(|(containers, volumes, scalar)| {
        json!({"spec": {"containers": containers, "volumes": volumes, "hostname": scalar}})
    })
}

/// A patch without directives is an object like any other.
fn pod() -> impl Strategy<Value = Value> {
    patch().prop_map(|patch| merged(json!({}), patch))
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(pod in pod(), patch in patch()) {
        let once = merged(pod, patch.clone());
        prop_assert_eq!(merged(once.clone(), patch), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(pod in pod()) {
        prop_assert_eq!(merged(pod.clone(), json!({})), pod);
    }

    #[test]
    fn what_a_patch_says_holds_afterwards(pod in pod(), wanted in pod()) {
        let after = merged(pod, wanted.clone());
        for item in wanted["spec"]["containers"].as_array().unwrap() {
            prop_assert!(after["spec"]["containers"].as_array().unwrap().contains(item));
        }
    }

    #[test]
    fn filling_keeps_every_item(mut pod in pod(), from in pod()) {
        let before = pod.clone();
        fill(pod.as_object_mut().unwrap(), from.as_object().unwrap());
        for item in before["spec"]["containers"].as_array().unwrap() {
            prop_assert!(pod["spec"]["containers"].as_array().unwrap().contains(item));
        }
        for item in from["spec"]["containers"].as_array().unwrap() {
            let names: Vec<_> = pod["spec"]["containers"].as_array().unwrap().iter()
                .map(|item| item["name"].clone()).collect();
            prop_assert!(names.contains(&item["name"]));
        }
    }
}
