//! Hostile reviews: whatever comes in, a well-formed AdmissionReview with a reason goes out, and nothing
//! panics. A few thousand by default; `MESHWRIGHT_FUZZ_SECONDS=600` goes on for ten minutes
//! (`cargo verify -- fuzz`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;
#[path = "inject/fixture.rs"]
mod fixture;
#[path = "inject/webhook.rs"]
mod webhook;

use std::time::{Duration, Instant};

use http::StatusCode;
use k8s_openapi::ByteString;
use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};
use serde_json::{Value, json};
use webhook::Server;

/// Words that break naive readers: quotes, YAML, numbers out of range, control characters.
const NASTY: [&str; 24] = [
    "",
    " ",
    "\"",
    "'",
    "\n",
    "a\nb: c",
    "- x",
    "{",
    "}",
    "[]",
    "{\"a\":",
    "null",
    "~",
    "true",
    "\u{0}",
    "\u{202e}",
    "999999999999999999999",
    "-1",
    "1e309",
    "&a *a",
    "!!binary x",
    "$(POD_NAME)",
    "{{ .Values }}",
    "../../etc/passwd",
];

/// Keys that injection reads.
const KEYS: [&str; 27] = [
    "sidecar.istio.io/inject",
    "meshwright.dev/inject",
    "meshwright.dev/revision",
    "meshwright.dev/status",
    "meshwright.dev/overrides",
    "meshwright.dev/redirect",
    "inject.istio.io/templates",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyMemoryLimit",
    "sidecar.istio.io/logLevel",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/interceptionMode",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/statsHistogramBuckets",
    "proxy.istio.io/config",
    "proxy.istio.io/overrides",
    "status.sidecar.istio.io/port",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "prometheus.io/scrape",
    "prometheus.io/port",
    "prometheus.istio.io/scrape-targets",
    "kubectl.kubernetes.io/default-container",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(&NASTY[..]).prop_map(str::to_owned),
        2 => ".{0,24}",
        1 => prop::collection::vec(prop::sample::select(&NASTY[..]), 0..6).prop_map(|v| v.concat()),
        1 => (0..200usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        1 => "[0-9]{1,3}m?|[0-9]{1,5}(,[0-9]{1,5}){0,3}|10\\.0\\.[0-9]{1,3}\\.0/[0-9]{1,3}",
    ]
}

/// Any JSON.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Places of a pod that something else is put in.
const PLACES: [&str; 16] = [
    "/metadata",
    "/metadata/labels",
    "/metadata/annotations",
    "/metadata/ownerReferences",
    "/spec",
    "/spec/containers",
    "/spec/containers/0",
    "/spec/containers/0/name",
    "/spec/containers/0/env",
    "/spec/containers/0/ports",
    "/spec/containers/0/readinessProbe",
    "/spec/containers/0/readinessProbe/httpGet/port",
    "/spec/containers/0/lifecycle",
    "/spec/initContainers",
    "/spec/volumes",
    "/spec/nodeSelector",
];

fn pod() -> impl Strategy<Value = Value> {
    let annotations = prop::collection::btree_map(prop::sample::select(&KEYS[..]), text(), 0..4);
    let labels = prop::collection::btree_map(prop::sample::select(&KEYS[..3]), text(), 0..2);
    let replaced = prop::collection::vec((prop::sample::select(&PLACES[..]), json()), 0..3);
    (annotations, labels, replaced).prop_map(|(annotations, labels, replaced)| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "labels": labels, "annotations": annotations, "ownerReferences": []},
            "spec": {
                "containers": [{
                    "name": "web", "image": "web:1", "env": [], "ports": [], "lifecycle": {},
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                }],
                "initContainers": [], "volumes": [], "nodeSelector": {},
            },
        });
        for (place, value) in replaced {
            if let Some(target) = pod.pointer_mut(place) {
                *target = value;
            }
        }
        pod
    })
}

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Nothing,
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    Repeat(prop::sample::Index, usize),
    /// Brackets, deeper than anybody means.
    Nest(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Damage::Nothing),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        1 => (place(), 1..64usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => (place(), 1..5000usize).prop_map(|(at, depth)| Damage::Nest(at, depth)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let length = bytes.len();
    match damage {
        Damage::Nothing => {}
        Damage::Cut(at) => bytes.truncate(at.index(length)),
        Damage::Byte(at, byte) => bytes[at.index(length)] = *byte,
        Damage::Repeat(at, count) => {
            let at = at.index(length);
            let part = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, part);
        }
        Damage::Nest(at, depth) => {
            let at = at.index(length);
            bytes.splice(at..at, std::iter::repeat_n(b'[', *depth));
        }
    }
    bytes
}

fn review() -> impl Strategy<Value = Vec<u8>> {
    let kind =
        prop_oneof![9 => Just(json!({"group": "", "version": "v1", "kind": "Pod"})), 1 => json()];
    let object = prop_oneof![9 => pod(), 1 => json()];
    (kind, object, prop::sample::select(vec!["shop", "kube-system", "", "none"]), damage())
        .prop_map(|(kind, object, namespace, damage)| {
            let review = json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": {
                    "uid": "u-1", "kind": kind, "namespace": namespace, "operation": "CREATE",
                    "object": object, "oldObject": null,
                },
            });
            damaged(review.to_string().into_bytes(), &damage)
        })
}

/// What must be true of every answer.
async fn is_well_answered(server: &Server, body: Vec<u8>) -> Result<(), TestCaseError> {
    let question = serde_json::from_slice::<Value>(&body).ok();
    let (status, answer) = server.post("/inject/default", body).await;
    prop_assert!(answer["uid"].is_string() && answer["allowed"].is_boolean(), "{}", answer);
    prop_assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{}", answer);
    if answer["allowed"] == false {
        let reason = answer["status"]["message"].as_str().unwrap_or_default();
        prop_assert!(!reason.is_empty(), "{}", answer);
        prop_assert!(!reason.contains('\n'), "one line: {:?}", reason);
        return Ok(());
    }
    prop_assert!(answer["auditAnnotations"]["reason"].is_string(), "{}", answer);
    if answer["patch"].is_string() {
        let patch: ByteString = serde_json::from_value(answer["patch"].clone()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch.0).unwrap();
        let mut pod = question.unwrap()["request"]["object"].clone();
        prop_assert!(json_patch::patch(&mut pod, &patch).is_ok(), "the patch does not apply");
    }
    Ok(())
}

#[test]
fn hostile_reviews_are_well_answered() {
    let seconds = std::env::var("MESHWRIGHT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { webhook::server() });
    loop {
        let mut runner = TestRunner::new(Config { cases: 3000, ..Config::default() });
        let outcome =
            runner.run(&review(), |body| runtime.block_on(is_well_answered(&server, body)));
        if let Err(TestError::Fail(reason, body)) = outcome {
            panic!("{reason}\n{}", String::from_utf8_lossy(&body));
        }
        if Instant::now() >= until {
            break;
        }
    }
}
