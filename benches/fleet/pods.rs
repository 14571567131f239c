//! Pods as the API server sends them, with all that injection and the kubelet write.

use serde_json::{Value, json};

pub const IMAGE: &str = "registry.example.com/mesh/meshwright-proxy:1.4.0";

/// Of 50 namespaces, with workloads of 5 pods.
pub fn names(number: usize) -> (String, String) {
    let (namespace, workload) = (number % 50, number / 5);
    (format!("team-{namespace}"), format!("service-{workload}-6d4b75cb6d-{number:05x}"))
}

/// `from` to `to` of `count` pods.
pub fn page(from: usize, to: usize, count: usize) -> String {
    // Not as one value: that would take more memory than what is measured.
    let items: Vec<String> = (from..to).map(|number| pod(number, 1).to_string()).collect();
    let next = if to < count { to.to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": "1000", "continue": next});
    let items = items.join(",");
    format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#)
}

/// A line of a watch.
pub fn change(number: usize, version: usize) -> String {
    let event = json!({"type": "MODIFIED", "object": pod(number, version + 1001)});
    format!("{event}\n")
}

fn pod(number: usize, version: usize) -> Value {
    let (namespace, name) = names(number);
    let workload = name.rsplitn(3, '-').last().unwrap_or_default().to_owned();
    let ready = if version.is_multiple_of(7) { "False" } else { "True" };
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": if kind == "Ready" { ready } else { "True" },
            "lastProbeTime": null, "lastTransitionTime": "2026-11-21T10:00:05Z",
        })
    };
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{number:012x}"),
            "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": {
                "app": workload, "pod-template-hash": "6d4b75cb6d",
                "meshwright.dev/revision": "default",
                "service.istio.io/canonical-name": workload,
                "service.istio.io/canonical-revision": "latest",
            },
            "annotations": {
                "meshwright.dev/status": json!({
                    "revision": "default", "hash": "0123456789abcdef",
                    "initContainers": ["meshwright-redirect", "meshwright-proxy"],
                    "volumes": ["meshwright-run", "meshwright-identity", "meshwright-podinfo"],
                }).to_string(),
                "prometheus.io/scrape": "true", "prometheus.io/port": "15020",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-6d4b75cb6d"),
                "uid": "11111111-0000-4000-8000-000000000000", "controller": true,
                "blockOwnerDeletion": true,
            }],
            "managedFields": managed_fields(),
        },
        "spec": {
            "initContainers": [container("meshwright-redirect", IMAGE), container("meshwright-proxy", IMAGE)],
            "containers": [container("app", "registry.example.com/team/app:7")],
            "nodeName": format!("node-{}", number % 200), "serviceAccountName": "app",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "volumes": (0..6).map(|n| json!({"name": format!("volume-{n}"), "emptyDir": {"medium": "Memory"}})).collect::<Vec<_>>(),
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.168.0.1", "qosClass": "Burstable",
            "conditions": conditions,
            "containerStatuses": [{
                "name": "app", "ready": true, "restartCount": 0, "started": true,
                "image": "registry.example.com/team/app:7",
                "imageID": "registry.example.com/team/app@sha256:0123456789abcdef0123456789abcdef",
                "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef",
                "state": {"running": {"startedAt": "2026-11-21T10:00:04Z"}},
            }],
        },
    })
}

fn container(name: &str, image: &str) -> Value {
    let variable =
        |n: usize| json!({"name": format!("VARIABLE_{n}"), "value": "some text of some length"});
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
        "env": (0..25).map(variable).collect::<Vec<_>>(),
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "volumeMounts": (0..6).map(|n| json!({"name": format!("volume-{n}"), "mountPath": format!("/mnt/{n}")})).collect::<Vec<_>>(),
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1337},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    })
}

/// As large as what the kubelet and the controller leave behind.
fn managed_fields() -> Value {
    let fields: serde_json::Map<String, Value> = (0..40)
        .map(|n| {
            (
                format!("k:{{\"name\":\"VARIABLE_{n}\"}}"),
                json!({".": {}, "f:name": {}, "f:value": {}}),
            )
        })
        .collect();
    json!([
        {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields},
        {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": "status"},
    ])
}
