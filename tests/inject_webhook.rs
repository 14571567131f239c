//! The webhooks' edge: whatever comes in, a well-formed AdmissionReview goes out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;
#[path = "inject/fixture.rs"]
mod fixture;

#[path = "inject/webhook.rs"]
mod webhook;

use http::StatusCode;
use k8s_openapi::ByteString;
use meshwright::webhook::review::BODY_LIMIT;
use serde_json::{Value, json};
use webhook::{pod, post, review, server};

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
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("revision or tag gone"), "{message}");
    assert_eq!(post("/nowhere", "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_tag_is_as_good_as_the_revision() {
    let (_, response) = post("/inject/stable", review("", "Pod", "shop", &pod())).await;
    assert_eq!(response["auditAnnotations"]["injection"], "injected");
    assert_eq!(response["auditAnnotations"]["revision"], "default");
}

fn on_host_network(metadata: &Value) -> Value {
    let mut pod = pod();
    pod["metadata"] = metadata.clone();
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

#[tokio::test]
async fn an_injection_that_was_asked_for_and_did_not_happen_is_an_event() {
    let server = server();
    let replica_set = json!({
        "generateName": "web-5d4f-",
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u-9",
            "controller": true,
        }],
    });
    let asks = |metadata: &Value| review("", "Pod", "shop", &on_host_network(metadata));
    // The second one of the same ReplicaSet is not news.
    for metadata in
        [&replica_set, &replica_set, &json!({"name": "web"}), &json!({"generateName": "web-"})]
    {
        let (_, response) = server.post("/inject", asks(metadata)).await;
        assert_eq!(response["allowed"], true);
        assert_eq!(response["auditAnnotations"]["injection"], "skipped");
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with("the pod gets no proxy: the pod uses the node's network"),
            "{warning}"
        );
    }
    let unreadable = json!({"metadata": {"name": "bad"}, "spec": {"containers": "many"}});
    let (_, denied) = server.post("/inject", review("", "Pod", "shop", &unreadable)).await;
    assert_eq!(denied["auditAnnotations"]["injection"], "denied");

    let events = server.events().await;
    let regarding = |event: &Value| {
        let about = &event["regarding"];
        format!("{} {}", about["kind"].as_str().unwrap(), about["name"].as_str().unwrap())
    };
    let found: Vec<_> = events.iter().map(regarding).collect();
    assert_eq!(found, ["ReplicaSet web-5d4f", "Pod web", "Namespace shop", "Pod bad"]);
    for event in &events {
        assert_eq!(event["type"], "Warning");
    }
    assert_eq!(events[0]["reason"], "InjectionSkipped");
    assert_eq!(events[0]["regarding"]["uid"], "u-9");
    assert_eq!(events[0]["metadata"]["namespace"], "shop");
    let note = events[0]["note"].as_str().unwrap();
    assert!(note.contains("remove spec.hostNetwork"), "{note}");
    assert_eq!(events[3]["reason"], "InjectionFailed");
}

#[tokio::test]
async fn nobody_is_told_of_dry_runs_and_of_pods_that_did_not_ask() {
    let server = server();
    let plain = review("", "Pod", "shop", &on_host_network(&json!({"name": "web"})));
    let mut dry: Value = serde_json::from_str(&plain).unwrap();
    dry["request"]["dryRun"] = json!(true);
    let refuses = on_host_network(&json!({"labels": {"meshwright.dev/inject": "false"}}));
    for body in [
        dry.to_string(),
        review("", "Pod", "shop", &refuses),
        review("", "Pod", "other", &on_host_network(&json!({"name": "web"}))),
        review("", "Pod", "shop", &pod()),
    ] {
        server.post("/inject", body).await;
    }
    assert_eq!(server.events().await, Vec::<Value>::new());
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

/// Found by `inject_fuzz`.
#[tokio::test]
async fn a_hostile_kind_does_not_break_the_line_of_its_refusal() {
    let (_, response) = post("/inject", review("", "a\nb", "shop", &pod())).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert_eq!(message, r#"only pods are injected, this is a "a\nb""#);
}

/// Found by `inject_fuzz`: the reader of JSON quotes what it does not know.
#[tokio::test]
async fn a_hostile_operation_does_not_break_the_line_of_its_refusal() {
    let body = review("", "Pod", "shop", &pod()).replace("CREATE", "a\\nb");
    let (_, response) = post("/inject", body).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("unknown variant `a b`"), "{message}");
}
