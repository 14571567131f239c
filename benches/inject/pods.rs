//! Pods as the API server shows them to a webhook.

use bytes::Bytes;
use serde_json::{Value, json};

/// A pod of a Deployment with one container, with what admission has added by then.
pub fn one_container() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "cart-7d9c6b9f4d-",
            "namespace": "shop",
            "labels": {
                "app": "cart", "version": "v1", "pod-template-hash": "7d9c6b9f4d",
            },
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d9c6b9f4d",
                "uid": "4c4a0fd0-8a8a-4f5e-9d3e-0d9b6a1c2b3d",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [container()],
            "volumes": [token_volume()],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "cart",
            "serviceAccount": "cart",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {
                    "key": "node.kubernetes.io/not-ready", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 300,
                },
                {
                    "key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 300,
                },
            ],
            "priority": 0,
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    })
}

fn container() -> Value {
    json!({
        "name": "cart",
        "image": "registry.example/shop/cart:1.42.0",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [
            {"name": "DATABASE", "value": "postgres://db.shop:5432/cart"},
            {"name": "NODE", "valueFrom": {"fieldRef": {
                "apiVersion": "v1", "fieldPath": "spec.nodeName",
            }}},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
            "failureThreshold": 3,
        },
        "volumeMounts": [token_mount()],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    })
}

fn token_mount() -> Value {
    json!({
        "name": "kube-api-access-x7k2p", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    })
}

fn token_volume() -> Value {
    json!({
        "name": "kube-api-access-x7k2p",
        "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {
                "name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
            {"downwardAPI": {"items": [{
                "path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            }]}},
        ]},
    })
}

/// The same with many environment variables: 64 KB with 2,000.
pub fn with_variables(count: usize) -> Value {
    let mut pod = one_container();
    let variable = |n: usize| json!({"name": format!("V{n:04}"), "value": "01234"});
    pod["spec"]["containers"][0]["env"] = (0..count).map(variable).collect();
    pod
}

/// The question about a pod.
pub fn review(pod: &Value) -> Bytes {
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind, "resource": resource,
            "requestKind": kind, "requestResource": resource,
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "0f3b9ec1-54c2-4ef4-8f16-7c0d6b7f5a3e",
                "groups": [
                    "system:serviceaccounts", "system:serviceaccounts:kube-system",
                    "system:authenticated",
                ],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    });
    review.to_string().into()
}
