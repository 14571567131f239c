//! An API server of a few lines behind kube's client: it stores what is applied and notes each write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode, Uri};
use kube::{Client, client::Body};
use serde_json::{Value, json};

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Value>,
    /// `METHOD path` of everything that was not a read.
    pub writes: Vec<String>,
    pub events: Vec<Value>,
    /// Paths whose writes are refused.
    pub forbidden: Vec<String>,
}

/// A client of a new server.
pub fn start() -> (Client, Arc<Mutex<State>>) {
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let state = Arc::new(Mutex::new(State::default()));
    let server = state.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, answer) = server.lock().unwrap().answer(&head.method, &head.uri, &body);
            let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = status;
            send.send_response(response);
        }
    });
    (Client::new(mock, "default"), state)
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16(),
    });
    (status, body)
}

impl State {
    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> (StatusCode, Value) {
        let path = uri.path();
        let events = path.contains("/events");
        if method != Method::GET && !events {
            self.writes.push(format!("{method} {path}"));
            if self.forbidden.iter().any(|forbidden| path.contains(forbidden)) {
                return failure(StatusCode::FORBIDDEN, "Forbidden");
            }
        }
        match *method {
            Method::GET => self.read(path, &Selector::of(uri.query().unwrap_or_default())),
            Method::DELETE => self.delete(path),
            _ if events => {
                let event: Value = serde_json::from_slice(body).unwrap();
                self.events.push(event.clone());
                (StatusCode::CREATED, event)
            }
            _ => self.write(path, serde_json::from_slice(body).unwrap()),
        }
    }

    fn read(&self, path: &str, selector: &Selector) -> (StatusCode, Value) {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let is_list = matches!(
            parts[..],
            ["api", _, _]
                | ["apis", _, _, _]
                | ["api", _, "namespaces", _, _]
                | ["apis", _, _, "namespaces", _, _]
        );
        if !is_list {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        let (prefix, plural) = path.rsplit_once('/').unwrap();
        let is_in =
            |key: &&String| key.starts_with(prefix) && key.split('/').rev().nth(1) == Some(plural);
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, object)| is_in(key) && selector.matches(object))
            .map(|(_, object)| object.clone())
            .collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
        (StatusCode::OK, list)
    }

    /// What has finalizers is only marked.
    fn delete(&mut self, path: &str) -> (StatusCode, Value) {
        let Some(object) = self.objects.get_mut(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        } else {
            self.objects.remove(path);
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        (StatusCode::OK, status)
    }

    fn write(&mut self, path: &str, body: Value) -> (StatusCode, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let stored = self.objects.entry(path.to_owned()).or_insert(Value::Null);
        if body.is_array() {
            let operations: json_patch::Patch = serde_json::from_value(body).unwrap();
            json_patch::patch(stored, &operations).unwrap();
        } else if stored.is_null() {
            *stored = body;
        } else {
            json_patch::merge(stored, &body);
        }
        let answer = stored.clone();
        let metadata = &answer["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if metadata["deletionTimestamp"].is_string() && !held {
            self.objects.remove(path);
        }
        (StatusCode::OK, answer)
    }
}

/// Label and field selectors of a list, as far as these tests need them.
struct Selector {
    labels: Vec<String>,
    name: Option<String>,
}

impl Selector {
    fn of(query: &str) -> Self {
        let decode = |text: &str| {
            let text = text.replace("%3D", "=").replace("%2C", ",").replace("%21", "!");
            text.replace("%2F", "/")
        };
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name))
                .map(decode)
                .unwrap_or_default()
        };
        let labels = parameter("labelSelector=");
        Self {
            labels: labels.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            name: parameter("fieldSelector=").strip_prefix("metadata.name=").map(str::to_owned),
        }
    }

    fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let fits = |requirement: &String| {
            if let Some((key, value)) = requirement.split_once("!=") {
                labels[key] != value
            } else if let Some((key, value)) = requirement.split_once('=') {
                labels[key] == value
            } else {
                labels[requirement.as_str()].is_string()
            }
        };
        let named = self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == *name);
        named && self.labels.iter().all(fits)
    }
}
