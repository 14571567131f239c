//! The webhooks with a fake API server behind them, and reviews to send them. A test that includes this
//! has the modules `api_server` and `fixture` beside it.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Namespace;
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

use crate::{api_server, fixture};

/// The webhooks, the API server behind them, and what posts events until the webhooks are gone.
pub struct Server {
    pub routes: Router,
    pub state: Arc<Mutex<api_server::State>>,
    posting: tokio::task::JoinHandle<()>,
}

/// Webhooks with one installation (tag `stable`), a cache that knows `shop` as not labelled yet, and
/// an API server that knows better.
pub fn server() -> Server {
    let (client, state) = api_server::start();
    for (name, labels) in
        [("shop", json!({"meshwright.dev/injection": "enabled"})), ("other", json!({}))]
    {
        let object = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name, "labels": labels},
        });
        state.lock().unwrap().objects.insert(format!("/api/v1/namespaces/{name}"), object);
    }
    let (cache, mut writer) = reflector::store();
    let mut shop = PartialObjectMeta::<Namespace>::default();
    shop.metadata.name = Some("shop".to_owned());
    writer.apply_watcher_event(&watcher::Event::Apply(shop));
    let config = InjectConfig { tags: vec!["stable".to_owned()], ..fixture::config() };
    let installations =
        Installations { objects: Vec::new(), inject: [("default".to_owned(), config)].into() };
    let (events, posting) =
        Events::new(Recorder::new(client.clone(), "meshwright-operator".into()));
    let routes = router(Webhooks {
        installations: Arc::new(ArcSwap::from_pointee(installations)),
        namespaces: Namespaces { cache, client },
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        events,
    });
    Server { routes, state, posting: tokio::spawn(posting) }
}

impl Server {
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let review: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(review["kind"], "AdmissionReview");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        (status, review["response"].clone())
    }

    /// The events that were written, once everything that was handed over is.
    pub async fn events(self) -> Vec<Value> {
        drop(self.routes);
        self.posting.await.unwrap();
        self.state.lock().unwrap().events.clone()
    }
}

pub async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    server().post(path, body).await
}

pub fn review(group: &str, kind: &str, namespace: &str, object: &Value) -> String {
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

pub fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}
