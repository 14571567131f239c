//! An API server of a few lines behind kube's client: it stores what is applied and notes each write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
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
            let (status, answer) =
                server.lock().unwrap().answer(&head.method, head.uri.path(), &body);
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
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let events = path.contains("/events");
        if method != Method::GET && !events {
            self.writes.push(format!("{method} {path}"));
            if self.forbidden.iter().any(|forbidden| path.contains(forbidden)) {
                return failure(StatusCode::FORBIDDEN, "Forbidden");
            }
        }
        match *method {
            Method::GET => self.read(path),
            Method::DELETE => {
                self.objects.remove(path);
                (
                    StatusCode::OK,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
                )
            }
            _ if events => {
                let event: Value = serde_json::from_slice(body).unwrap();
                self.events.push(event.clone());
                (StatusCode::CREATED, event)
            }
            _ => self.write(path, serde_json::from_slice(body).unwrap()),
        }
    }

    fn read(&self, path: &str) -> (StatusCode, Value) {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let parts: Vec<_> = path.split('/').skip(1).collect();
        if let ["api", _, "namespaces", _, _] | ["apis", _, _, "namespaces", _, _] = parts[..] {
            // A list in one namespace.
            let named = |key: &str| {
                key.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned)
            };
            let is_in = |key: &String| named(key).is_some_and(|name| !name.contains('/'));
            let items: Vec<_> =
                self.objects.iter().filter(|(key, _)| is_in(key)).map(|(_, o)| o.clone()).collect();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
            return (StatusCode::OK, list);
        }
        if !matches!(parts[..], ["api", _, _] | ["apis", _, _, _]) {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        // A list over all namespaces.
        let (prefix, plural) = path.rsplit_once('/').unwrap();
        let is_in =
            |key: &&String| key.starts_with(prefix) && key.split('/').rev().nth(1) == Some(plural);
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, object)| {
                is_in(key)
                    && object["metadata"]["labels"]["meshwright.dev/installation"].is_string()
            })
            .map(|(_, object)| object.clone())
            .collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
        (StatusCode::OK, list)
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
        (StatusCode::OK, stored.clone())
    }
}
