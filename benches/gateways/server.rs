//! An API server of a few lines that stores what is applied, answers watches, and plays the cluster's
//! own controllers.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways";

struct Server {
    store: Mutex<Store>,
    /// How many changes there have been.
    version: watch::Sender<usize>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    /// Path, kind of change and object, in order: a resource version is a place in it.
    changes: Vec<(String, &'static str, Arc<Value>)>,
    calls: BTreeMap<String, usize>,
}

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Arc::new(Server { store: Mutex::default(), version: watch::channel(0).0 });
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let routes = Router::new().fallback(answer).with_state(server.clone());
    std::thread::spawn(move || runtime.block_on(async { axum::serve(listener, routes).await }));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some(count) = line.strip_prefix("gateways ") {
            server.gateways(count.parse()?);
        }
        let calls = std::mem::take(&mut server.store().calls);
        writeln!(out, "{}", serde_json::to_string(&calls)?)?;
        out.flush()?;
    }
    Ok(())
}

impl Server {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates Gateways, and waits until all are programmed.
    fn gateways(&self, count: usize) {
        self.store().calls.clear();
        for number in 0..count {
            let name = format!("gateway-{number}");
            let gateway = json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": name, "namespace": "default", "generation": 1},
                "spec": {
                    "gatewayClassName": "meshwright",
                    "listeners": [
                        {"name": "http", "port": 80, "protocol": "HTTP"},
                        {"name": "https", "port": 443, "protocol": "HTTPS"},
                    ],
                },
            });
            self.put(&format!("{GATEWAYS}/{name}"), gateway);
        }
        let programmed = |gateway: &Value| {
            let mut conditions = gateway["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|c| c["type"] == "Programmed" && c["status"] == "True")
        };
        loop {
            let done = {
                let store = self.store();
                store
                    .objects
                    .range(GATEWAYS.to_owned()..)
                    .take_while(|(path, _)| path.starts_with(GATEWAYS))
                    .filter(|(_, gateway)| programmed(gateway))
                    .count()
            };
            if done == count {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stores an object, if it is another than before; what is stored then.
    fn put(&self, path: &str, mut object: Value) -> Value {
        let mut store = self.store();
        let before = store.objects.get(path);
        if before == Some(&object) {
            return object;
        }
        let change = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let version = store.changes.len() + 1;
        let metadata = &mut object["metadata"];
        if change == "ADDED" {
            metadata["uid"] = json!(format!("uid-{version}"));
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        metadata["resourceVersion"] = json!(version.to_string());
        store.objects.insert(path.to_owned(), object.clone());
        store.changes.push((path.to_owned(), change, Arc::new(object.clone())));
        drop(store);
        self.version.send_replace(version);
        object
    }

    fn apply(&self, path: &str, wanted: &Value) -> Value {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let before = self.store().objects.get(path).cloned();
        let known = before.is_some();
        let mut object = before.unwrap_or_else(|| wanted.clone());
        json_patch::merge(&mut object, wanted);
        let answer = self.put(path, object.clone());
        if !known {
            self.play(path, answer.clone());
        }
        answer
    }

    /// What the cluster's own controllers make of a new object.
    fn play(&self, path: &str, mut object: Value) {
        match object["kind"].as_str() {
            Some("Deployment") => {
                object["status"] = json!({"replicas": 1, "availableReplicas": 1});
            }
            Some("Service") => {
                object["spec"]["clusterIP"] = json!("10.0.0.1");
                object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
            }
            _ => return,
        }
        self.put(path, object);
    }

    /// All objects of a kind, wherever they are.
    fn list(&self, path: &str, selector: &str) -> Response {
        let store = self.store();
        let found = store.objects.iter();
        let items: Vec<&Value> = found
            .filter(|(key, object)| is_of(path, key) && selected(selector, object))
            .map(|(_, object)| object)
            .collect();
        let version = store.changes.len().to_string();
        json_answer(
            StatusCode::OK,
            &json!({
                "kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": version}, "items": items,
            }),
        )
    }
}

/// Whether an object's path is one of a list over all namespaces.
fn is_of(list: &str, object: &str) -> bool {
    let Some((group, plural)) = list.rsplit_once('/') else { return false };
    let mut parts = object.rsplit('/');
    object.starts_with(group) && parts.nth(1) == Some(plural)
}

fn selected(selector: &str, object: &Value) -> bool {
    let wanted = |term: &str| {
        let (key, value) = term.split_once('=').unwrap_or((term, ""));
        object["metadata"]["labels"][key] == value
    };
    selector.is_empty() || selector.split(',').all(wanted)
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

async fn answer(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let path = uri.path();
    let empty = String::new();
    let selector = query.get("labelSelector").unwrap_or(&empty);
    if query.contains_key("watch") {
        let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        return watch(server, path.to_owned(), selector.clone(), from);
    }
    *server.store().calls.entry(called(&method, path)).or_default() += 1;
    let sent = || serde_json::from_slice::<Value>(&body).unwrap_or_default();
    match method {
        Method::GET if path == "/apis/gateway.networking.k8s.io/v1" => discovery(),
        Method::GET => {
            let found = server.store().objects.get(path).cloned();
            match found {
                Some(object) => json_answer(StatusCode::OK, &object),
                None if is_list(path) => server.list(path, selector),
                None => json_answer(
                    StatusCode::NOT_FOUND,
                    &json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "not found", "reason": "NotFound", "code": 404,
                    }),
                ),
            }
        }
        Method::PATCH => json_answer(StatusCode::OK, &server.apply(path, &sent())),
        _ => json_answer(StatusCode::CREATED, &sent()),
    }
}

/// `VERB KIND`, or `VERB KIND/status`.
fn called(method: &Method, path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let kind = match parts.iter().position(|part| *part == "namespaces") {
        Some(at) => parts.get(at + 2).copied().unwrap_or_default(),
        None => parts.last().copied().unwrap_or_default(),
    };
    let status = if path.ends_with("/status") { "/status" } else { "" };
    format!("{method} {kind}{status}")
}

/// `/api/v1/KIND` or `/apis/GROUP/VERSION/KIND`.
fn is_list(path: &str) -> bool {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    matches!(parts[..], ["api", _, _] | ["apis", _, _, _])
}

fn discovery() -> Response {
    let resource = json!({
        "name": "gatewayclasses", "singularName": "", "kind": "GatewayClass", "namespaced": false,
        "verbs": ["get"],
    });
    json_answer(
        StatusCode::OK,
        &json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "gateway.networking.k8s.io/v1", "resources": [resource],
        }),
    )
}

/// Changes since then, a line each, as long as somebody listens.
fn watch(server: Arc<Server>, path: String, selector: String, from: usize) -> Response {
    let changes = server.version.subscribe();
    let lines = stream::unfold((server, changes, from), move |(server, mut changes, mut at)| {
        let (path, selector) = (path.clone(), selector.clone());
        async move {
            loop {
                let mut text = String::new();
                {
                    let store = server.store();
                    for (key, change, object) in &store.changes[at.min(store.changes.len())..] {
                        if is_of(&path, key) && selected(&selector, object) {
                            text.push_str(&json!({"type": change, "object": **object}).to_string());
                            text.push('\n');
                        }
                    }
                    at = store.changes.len();
                }
                if !text.is_empty() {
                    let line = Ok::<_, std::convert::Infallible>(text);
                    return Some((line, (server, changes, at)));
                }
                changes.wait_for(|version| *version > at).await.ok()?;
            }
        }
    });
    let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(lines)).into_response()
}
