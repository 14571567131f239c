//! The webhooks' edge: whatever comes in, a well-formed AdmissionReview goes out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use k8s_openapi::{ByteString, api::core::v1::Namespace};
use kube::{
    Client,
    client::Body as KubeBody,
    core::PartialObjectMeta,
    runtime::{reflector, watcher},
};
use meshwright::webhook::{
    metrics::Metrics,
    review::BODY_LIMIT,
    server::{Installations, Namespaces, Webhooks, router},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The webhooks with one installation, a cache that knows `shop` as not labelled yet, and an API
/// server that knows better.
fn webhooks() -> Router {
    let (mock, mut handle) = tower_test::mock::pair::<Request<KubeBody>, Response<KubeBody>>();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let labels = match name.as_str() {
                "shop" => json!({"meshwright.dev/injection": "enabled"}),
                _ => json!({}),
            };
            let object = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": name, "labels": labels},
            });
            send.send_response(Response::new(KubeBody::from(object.to_string().into_bytes())));
        }
    });
    let (cache, mut writer) = reflector::store();
    let mut shop = PartialObjectMeta::<Namespace>::default();
    shop.metadata.name = Some("shop".to_owned());
    writer.apply_watcher_event(&watcher::Event::Apply(shop));
    let installations = Installations {
        objects: Vec::new(),
        inject: [("default".to_owned(), fixture::config())].into(),
    };
    router(Webhooks {
        installations: Arc::new(ArcSwap::from_pointee(installations)),
        namespaces: Namespaces { cache, client: Client::new(mock, "default") },
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
    })
}

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request =
        Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let response = webhooks().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    (status, review["response"].clone())
}

fn review(group: &str, kind: &str, namespace: &str, object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": "x"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {},
            "object": object,
            "oldObject": null,
        },
    })
    .to_string()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

#[tokio::test]
async fn injects_by_a_patch_and_tells_the_audit_log() {
    let (status, response) = post("/inject", review("", "Pod", "shop", &pod())).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&response["allowed"], &response["uid"]), (&json!(true), &json!("u-1")));
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response["auditAnnotations"]["injection"], "injected");
    // Bytes travel as base64.
    let patch: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch.0).unwrap();
    let mut patched = pod();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "meshwright-proxy");
}

#[tokio::test]
async fn leaves_alone_who_did_not_ask_and_says_why() {
    let (status, response) = post("/inject", review("", "Pod", "other", &pod())).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(true)));
    assert!(response["patch"].is_null());
    assert_eq!(response["auditAnnotations"]["injection"], "skipped");
    let reason = response["auditAnnotations"]["reason"].as_str().unwrap();
    assert!(reason.contains("neither the namespace nor the pod"), "{reason}");
}

#[tokio::test]
async fn malformed_reviews_are_errors_not_crashes() {
    let whole = review("", "Pod", "shop", &pod());
    let truncated = whole[..whole.len() / 2].to_owned();
    let no_request = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
    let other_version = whole.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let deep = "[".repeat(100_000);
    for path in ["/inject", "/inject/default", "/validate"] {
        for body in [
            "",
            "{",
            "null",
            "[]",
            "\u{0}",
            &truncated,
            &no_request.to_string(),
            &other_version,
            &deep,
        ] {
            let (status, response) = post(path, body.to_owned()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body:.60}");
            assert_eq!(response["allowed"], false);
            assert!(!response["status"]["message"].as_str().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn oversized_reviews_are_refused() {
    let (status, response) = post("/inject", vec![b' '; BODY_LIMIT + 1]).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(false)));
}

#[tokio::test]
async fn other_kinds_and_unreadable_pods_are_denied_with_a_reason() {
    for (group, kind, object) in [
        ("apps", "Deployment", json!({"kind": "Deployment"})),
        ("", "Pod", json!({"spec": {"containers": "many"}})),
        ("", "Pod", json!("a pod")),
    ] {
        let (status, response) = post("/inject", review(group, kind, "shop", &object)).await;
        assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(false)), "{object}");
        assert!(!response["status"]["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_unknown_revision_is_left_to_the_failure_policy() {
    let (status, response) = post("/inject/gone", review("", "Pod", "shop", &pod())).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert_eq!(post("/nowhere", "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_invalid_installation_is_refused_with_the_field_and_the_reason() {
    let object = json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": "mesh"}, "spec": {"proxy": {"certificateTtl": "1s"}},
    });
    let ask = |object: &Value| {
        post("/validate", review("meshwright.dev", "MeshInstallation", "", object))
    };
    let (status, response) = ask(&object).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(false)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.proxy.certificateTtl: "), "{message}");
    // On its way out, nothing may hold it up.
    let mut leaving = object.clone();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(ask(&leaving).await.1["allowed"], true);
}

#[tokio::test]
async fn istio_kinds_are_checked_and_what_we_do_not_act_on_is_a_warning() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"hosts": ["web"], "noSuchField": 1, "http": [{"route": [{"destination": {"host": "web"}}]}]},
    });
    let body = review("networking.istio.io", "VirtualService", "shop", &object);
    let (_, response) = post("/validate", body).await;
    assert_eq!(response["allowed"], true, "{response}");
    let warnings = response["warnings"].to_string();
    assert!(warnings.contains("noSuchField"), "{warnings}");
}
