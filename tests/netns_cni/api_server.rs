//! An API server of a few lines, on a real port: the daemon is a process of its own.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// What it holds, and what was asked of it.
pub struct Contents {
    pods: Vec<Value>,
    pub daemonset: bool,
    /// `METHOD path` and the body of everything that was not a read.
    pub writes: Vec<(String, Value)>,
    events: broadcast::Sender<Value>,
}

#[derive(Clone)]
pub struct ApiServer(Arc<Mutex<Contents>>);

impl ApiServer {
    /// Starts it on a free port; gives the port. It lives as long as the test.
    pub fn start() -> (Self, u16) {
        let events = broadcast::channel(64).0;
        let contents = Contents { pods: Vec::new(), daemonset: true, writes: Vec::new(), events };
        let this = Self(Arc::new(Mutex::new(contents)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = this.router();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        (this, port)
    }

    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    /// Stores a pod, and tells whoever watches.
    pub fn put(&self, pod: &Value) {
        let mut contents = self.contents();
        let uid = &pod["metadata"]["uid"];
        let known = contents.pods.iter().any(|old| old["metadata"]["uid"] == *uid);
        let kind = if known { "MODIFIED" } else { "ADDED" };
        contents.pods.retain(|old| old["metadata"]["uid"] != *uid);
        contents.pods.push(pod.clone());
        // Nobody may watch yet.
        drop(contents.events.send(json!({"type": kind, "object": pod})));
    }

    /// Reasons of the events that were published.
    pub fn events(&self) -> Vec<String> {
        let contents = self.contents();
        let reasons = contents.writes.iter().filter_map(|(_, body)| body["reason"].as_str());
        reasons.map(str::to_owned).collect()
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/pods", get(pods))
            .route("/api/v1/namespaces/{namespace}/pods/{name}", get(pod).delete(write))
            .route("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}", get(daemonset))
            .route("/api/v1/nodes/{name}", get(node).patch(write))
            .fallback(write)
            .with_state(self.clone())
    }
}

/// A node with our taint and another one.
async fn node(Path(name): Path<String>) -> Json<Value> {
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    Json(json!({
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "resourceVersion": "7"},
        "spec": {"taints": [taint("meshwright.dev/cni-not-ready"), taint("gpu")]},
    }))
}

async fn pods(
    State(server): State<ApiServer>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert_eq!(query["fieldSelector"], "spec.nodeName=node1");
    let (items, events) = {
        let contents = server.contents();
        (contents.pods.clone(), contents.events.subscribe())
    };
    if query.contains_key("watch") {
        let known =
            futures::stream::iter(items).map(|pod| json!({"type": "MODIFIED", "object": pod}));
        let new = futures::stream::unfold(events, |mut events| async {
            events.recv().await.ok().map(|event| (event, events))
        });
        let lines = known.chain(new).map(|event| Ok::<_, Infallible>(format!("{event}\n")));
        return Body::from_stream(lines).into_response();
    }
    let metadata = json!({"resourceVersion": "1"});
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}))
        .into_response()
}

async fn pod(
    State(server): State<ApiServer>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let contents = server.contents();
    let metadata =
        |pod: &&Value| pod["metadata"]["namespace"] == namespace && pod["metadata"]["name"] == name;
    match contents.pods.iter().find(metadata) {
        Some(pod) => Json(pod.clone()).into_response(),
        None => not_found(),
    }
}

async fn daemonset(State(server): State<ApiServer>) -> Response {
    if !server.contents().daemonset {
        return not_found();
    }
    let spec = json!({"selector": {}, "template": {}});
    Json(json!({"metadata": {"name": "meshwright-cni"}, "spec": spec})).into_response()
}

async fn write(State(server): State<ApiServer>, method: Method, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    server.contents().writes.push((format!("{method} {}", uri.path()), body.clone()));
    if method == Method::DELETE {
        return Json(
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        )
        .into_response();
    }
    Json(body).into_response()
}

fn not_found() -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "not found", "reason": "NotFound", "code": 404,
    });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
