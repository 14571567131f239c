//! While a tag moves, two webhooks select the same pods: a pod gets one proxy all the same, of the
//! revision that has the tag.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use http::Request;
use k8s_openapi::{ByteString, api::core::v1::Namespace};
use kube::{
    core::PartialObjectMeta,
    runtime::{events::Recorder, reflector, watcher},
};
use meshwright::webhook::{
    events::Events,
    inject::InjectConfig,
    metrics::Metrics,
    server::{Installations, Namespaces, Webhooks, router},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    api_server, fixture,
    webhook::{pod, review},
};

/// A replica that takes this revision, of `v1` and `v2`, for the one that has the tag `stable`, which
/// the namespace `shop` asks for.
fn replica(holder: &str) -> Router {
    let (client, state) = api_server::start();
    let (cache, mut writer) = reflector::store();
    let mut shop = PartialObjectMeta::<Namespace>::default();
    shop.metadata.name = Some("shop".to_owned());
    shop.metadata.labels =
        Some([("meshwright.dev/revision".to_owned(), "stable".to_owned())].into());
    writer.apply_watcher_event(&watcher::Event::Apply(shop));
    // The API server knows the namespace as the cache does.
    let object = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "shop", "labels": {"meshwright.dev/revision": "stable"}},
    });
    state.lock().unwrap().objects.insert("/api/v1/namespaces/shop".to_owned(), object);
    let config = |revision: &str| {
        let tags = if revision == holder { vec!["stable".to_owned()] } else { Vec::new() };
        let config = InjectConfig { revision: revision.to_owned(), tags, ..fixture::config() };
        (revision.to_owned(), config)
    };
    let inject = [config("v1"), config("v2")].into();
    let recorder = Recorder::new(client.clone(), "meshwright-operator".into());
    router(Webhooks {
        installations: Arc::new(ArcSwap::from_pointee(Installations {
            objects: Vec::new(),
            inject,
        })),
        namespaces: Namespaces { cache, client },
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        events: Events::new(recorder).0,
    })
}

/// What the webhook at this path makes of a pod, and for which revision.
async fn ask(replica: &Router, path: &str, pod: &mut Value) -> (String, String) {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(review("", "Pod", "shop", pod)))
        .unwrap();
    let response = replica.clone().oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let answer = serde_json::from_slice::<Value>(&body).unwrap()["response"].take();
    assert_eq!(answer["allowed"], true, "{answer}");
    if !answer["patch"].is_null() {
        let bytes: ByteString = serde_json::from_value(answer["patch"].clone()).unwrap();
        let changes: json_patch::Patch = serde_json::from_slice(&bytes.0).unwrap();
        json_patch::patch(pod, &changes).unwrap();
    }
    let note = |name: &str| answer["auditAnnotations"][name].as_str().unwrap().to_owned();
    (note("injection"), note("revision"))
}

#[tokio::test]
async fn whichever_replica_is_asked_first_decides_alone() {
    let replicas = [replica("v1"), replica("v2")];
    let calls = [(0, "/inject/v1"), (0, "/inject/v2"), (1, "/inject/v1"), (1, "/inject/v2")];
    for (first, first_at) in calls {
        for (second, second_at) in calls {
            let mut pod = pod();
            let holder = ["v1", "v2"][first];
            let asked = ask(&replicas[first], first_at, &mut pod).await;
            assert_eq!(asked, ("injected".to_owned(), holder.to_owned()), "{first_at}");
            let after_one = pod.clone();
            ask(&replicas[second], second_at, &mut pod).await;
            assert_eq!(pod, after_one, "{first_at} of {first}, then {second_at} of {second}");
            assert_eq!(pod["metadata"]["labels"]["meshwright.dev/revision"], holder);
        }
    }
}
