use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use serde_json::json;

use super::*;
use crate::api::meshwright::PartialObject;

fn deployment() -> Deployment {
    serde_json::from_value(json!({
        "metadata": {
            "name": "in", "namespace": "edge",
            "labels": {"app.kubernetes.io/managed-by": "meshwright-operator", "meshwright.dev/gateway": "in"},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "in"}},
            "template": {
                "metadata": {"labels": {"app": "in", "team": "net"}},
                "spec": {
                    "containers": [{
                        "name": "meshwright-proxy", "image": "proxy:1",
                        "env": [{"name": "A", "value": "1"}],
                        "ports": [{"containerPort": 15090, "name": "metrics", "protocol": "TCP"}],
                    }],
                    "tolerations": [{"key": "a"}],
                    "volumes": [{"name": "run", "emptyDir": {}}],
                },
            },
        },
    }))
    .unwrap()
}

fn service() -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "in"},
        "spec": {
            "selector": {"app": "in"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                {"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"},
            ],
        },
    }))
    .unwrap()
}

fn patch(kind: PatchedKind, patch: Value) -> ObjectPatch {
    let Value::Object(patch) = patch else { panic!("a patch is an object") };
    ObjectPatch { kind, patch: PartialObject(patch) }
}

fn refused<K: Serialize + DeserializeOwned + fmt::Debug>(
    object: K,
    kind: PatchedKind,
    text: Value,
) -> String {
    patched(object, kind, &[patch(kind, text)]).unwrap_err().to_string()
}

#[test]
fn pods_merge_by_the_keys_of_their_lists() {
    let wanted = json!({"spec": {"replicas": 3, "template": {
        "metadata": {"annotations": {"a": "b"}, "labels": {"team": null}},
        "spec": {
            "containers": [
                {"name": "meshwright-proxy", "env": [{"name": "B", "value": "2"}],
                 "ports": [{"containerPort": 15090, "hostPort": 15090}],
                 "resources": {"limits": {"memory": "1Gi", "cpu": 1}}},
                {"name": "log", "image": "log:1"},
            ],
            "tolerations": [{"key": "b"}],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }}});
    let patches =
        [patch(PatchedKind::Service, json!({"x": 1})), patch(PatchedKind::Deployment, wanted)];
    let after =
        serde_json::to_value(patched(deployment(), PatchedKind::Deployment, &patches).unwrap());
    let after = after.unwrap();
    let pod = &after["spec"]["template"]["spec"];
    assert_eq!(after["spec"]["replicas"], 3);
    assert_eq!(after["spec"]["template"]["metadata"]["labels"], json!({"app": "in"}));
    assert_eq!(pod["containers"][0]["image"], "proxy:1");
    assert_eq!(pod["containers"][0]["env"].as_array().unwrap().len(), 2);
    assert_eq!(
        pod["containers"][0]["ports"],
        json!([{"containerPort": 15090, "hostPort": 15090, "name": "metrics", "protocol": "TCP"}])
    );
    assert_eq!(pod["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
    assert_eq!(pod["containers"][1]["name"], "log");
    assert_eq!(pod["tolerations"], json!([{"key": "b"}]), "one value");
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 2);
}

#[test]
fn ports_of_a_service_merge_by_number() {
    let wanted = json!({"spec": {"type": "NodePort", "ports": [
        {"port": 80, "nodePort": 30080}, {"port": 443, "$patch": "delete"},
        {"port": 9000, "name": "own", "targetPort": 9000},
    ]}});
    let after = patched(service(), PatchedKind::Service, &[patch(PatchedKind::Service, wanted)]);
    let spec = serde_json::to_value(after.unwrap()).unwrap()["spec"].clone();
    assert_eq!(
        spec["ports"],
        json!([
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30080},
            {"name": "own", "port": 9000, "targetPort": 9000},
        ])
    );
    assert_eq!(spec["type"], "NodePort");
}

#[test]
fn other_kinds_merge_too() {
    let account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "in"}, "secrets": [{"name": "a"}],
    }))
    .unwrap();
    let wanted = json!({"secrets": [{"name": "b"}], "metadata": {"annotations": {"role": "arn"}}});
    let kind = PatchedKind::ServiceAccount;
    let account = patched(account, kind, &[patch(kind, wanted)]).unwrap();
    assert_eq!(account.secrets.unwrap().len(), 2);
    assert_eq!(account.metadata.annotations.unwrap()["role"], "arn");

    let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "in"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "in"},
                 "metrics": [{"type": "Resource"}]},
    }))
    .unwrap();
    let wanted =
        json!({"spec": {"maxReplicas": 9, "metrics": [{"type": "Pods"}, {"type": "Object"}]}});
    let kind = PatchedKind::HorizontalPodAutoscaler;
    let scaler = patched(scaler, kind, &[patch(kind, wanted)]).unwrap().spec.unwrap();
    assert_eq!((scaler.max_replicas, scaler.metrics.unwrap().len()), (9, 2));

    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "in"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
    }))
    .unwrap();
    let wanted = json!({"spec": {"minAvailable": null, "maxUnavailable": "10%"}});
    let kind = PatchedKind::PodDisruptionBudget;
    let budget = patched(budget, kind, &[patch(kind, wanted)]).unwrap().spec.unwrap();
    assert!(budget.min_available.is_none() && budget.max_unavailable.is_some());
}

#[test]
fn what_is_ours_stays_ours() {
    let kind = PatchedKind::Deployment;
    let cases = [
        (json!({"metadata": {"name": "x"}}), "metadata.name: cannot be patched"),
        (json!({"metadata": {"namespace": "x"}}), "metadata.namespace: cannot be patched"),
        (json!({"metadata": {"finalizers": ["x"]}}), "metadata.finalizers: cannot be patched"),
        (json!({"metadata": {"labels": {"$patch": "replace"}}}), "metadata.labels.app.kubernetes"),
        (json!({"metadata": {"$patch": "replace"}}), "metadata.$patch: cannot be patched"),
        (json!({"metadata": {"labels": {"meshwright.dev/x": "y"}}}), "metadata.labels.meshwright"),
        (json!({"spec": {"selector": {"matchLabels": {"b": "c"}}}}), "spec.selector: cannot be"),
        (json!({"spec": {"selector": null}}), "spec.selector: cannot be"),
        (
            json!({"spec": {"template": {"metadata": {"labels": {"app": "x"}}}}}),
            "spec.template.metadata.labels.app: cannot be",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "meshwright-proxy", "$patch": "delete"}]}}}}),
            "spec.template.spec.containers: the container \"meshwright-proxy\" cannot",
        ),
        (json!({"status": {"replicas": 1}}), "status: is not for patches"),
        (json!({"kind": "Service"}), "kind: is \"Service\", and the patch is for a Deployment"),
        (json!({"apiVersion": "v1"}), "apiVersion: is \"v1\"; it is apps/v1"),
        (json!({"$patch": "delete"}), "$patch: the object as a whole"),
    ];
    for (text, expected) in cases {
        let found = refused(deployment(), kind, text.clone());
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn nothing_is_dropped_in_silence() {
    let kind = PatchedKind::Deployment;
    let cases = [
        (json!({"spec": {"replica": 3}}), "spec.replica: a Deployment has no such field"),
        (
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "meshwright-proxy", "imaeg": "x"}]}}}}),
            "spec.template.spec.containers[0].imaeg: a Deployment has no such field",
        ),
        (json!({"spec": {"replicas": "three"}}), "spec.replicas: "),
        (
            json!({"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {
                "containers": [{"name": "log", "image": 5}]}}}}),
            "spec.template.spec.containers[0].image: ",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}),
            "spec.template.spec.containers[0]: has no name, by which it is merged",
        ),
    ];
    for (text, expected) in cases {
        let found = refused(deployment(), kind, text.clone());
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn an_error_names_its_patch() {
    let kind = PatchedKind::Service;
    let patches = [
        patch(kind, json!({"spec": {"type": "NodePort"}})),
        patch(PatchedKind::Deployment, json!({})),
        patch(kind, json!({"spec": {"selector": {"app": "other"}}})),
    ];
    let error = patched(service(), kind, &patches).unwrap_err();
    assert_eq!(error.path(), "patches[2].patch.spec.selector");
    assert!(patched(service(), kind, &patches[..2]).is_ok());
}
