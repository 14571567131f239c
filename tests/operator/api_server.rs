//! An API server of a few lines behind kube's client: it stores what is applied, as server-side apply
//! does, and what is patched, as the kind of patch says, and notes each call.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Map, Value, json};

/// Lists in which everybody has items of their own, with what tells those apart.
const SHARED: [(&str, &str); 6] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("ports", "name"),
    ("webhooks", "name"),
    ("ownerReferences", "uid"),
];

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Value>,
    /// `METHOD path` of every call.
    pub calls: Vec<String>,
    /// `METHOD path` of everything that was not a read.
    pub writes: Vec<String>,
    pub events: Vec<Value>,
    /// Paths whose writes are refused.
    pub forbidden: Vec<String>,
    /// `METHOD path` (a part of it) that is answered with this code and message.
    pub refusals: Vec<(String, u16, String)>,
    /// Calls, answered or not.
    pub attempts: usize,
    /// How many more calls are answered; all of them if none is given.
    pub calls_left: Option<usize>,
    /// What each manager applied last, by path and manager.
    applied: BTreeMap<(String, String), Value>,
    version: u64,
}

/// A client of a new server.
pub fn start() -> (Client, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    (client(&state), state)
}

/// One more client of a server.
pub fn client(state: &Arc<Mutex<State>>) -> Client {
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = state.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let query = head.uri.query().unwrap_or_default();
            let content = head.headers.get(http::header::CONTENT_TYPE);
            let content = content.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let write = Write { query, content, body: &body };
            let answer = server.lock().unwrap().answer(&head.method, head.uri.path(), write);
            // Without an answer the connection breaks.
            let Some((status, answer)) = answer else { continue };
            let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = status;
            send.send_response(response);
        }
    });
    Client::new(mock, "default")
}

type Answer = (StatusCode, Value);

/// What a request has besides its path.
#[derive(Clone, Copy)]
struct Write<'a> {
    query: &'a str,
    /// Its Content-Type, which says how a patch is to be understood.
    content: &'a str,
    body: &'a [u8],
}

fn failure(status: StatusCode, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": message, "code": status.as_u16(),
    });
    (status, body)
}

/// A collection: where its objects are, and which selector they must match.
struct Collection<'a> {
    root: String,
    namespace: Option<&'a str>,
    plural: &'a str,
}

fn collection(path: &str) -> Option<Collection<'_>> {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let roots = if parts.first() == Some(&"api") { 2 } else { 3 };
    let (root, rest) = (parts.get(..roots)?, parts.get(roots..)?);
    let root = format!("/{}/", root.join("/"));
    match rest {
        [plural] => Some(Collection { root, namespace: None, plural }),
        ["namespaces", namespace, plural] => {
            Some(Collection { root, namespace: Some(namespace), plural })
        }
        _ => None,
    }
}

impl Collection<'_> {
    fn has(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.root) else { return false };
        match rest.split('/').collect::<Vec<_>>()[..] {
            [plural, _] => self.namespace.is_none() && plural == self.plural,
            ["namespaces", namespace, plural, _] => {
                self.namespace.is_none_or(|asked| asked == namespace) && plural == self.plural
            }
            _ => false,
        }
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pair =
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name)?;
    Some(pair.1.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!"))
}

/// Label and field selectors of a list, as far as these tests need them.
struct Selector {
    labels: Vec<String>,
    name: Option<String>,
}

impl Selector {
    fn of(query: &str) -> Self {
        let labels = parameter(query, "labelSelector").unwrap_or_default();
        let fields = parameter(query, "fieldSelector").unwrap_or_default();
        Self {
            labels: labels.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            name: fields.strip_prefix("metadata.name=").map(str::to_owned),
        }
    }

    fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let fits = |requirement: &String| {
            if let Some((key, value)) = requirement.split_once("!=") {
                labels[key] != value
            } else if let Some((key, value)) = requirement.split_once('=') {
                labels[key] == value.trim_start_matches('=')
            } else {
                labels[requirement.as_str()].is_string()
            }
        };
        let named = self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == *name);
        named && self.labels.iter().all(fits)
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, request: Write<'_>) -> Option<Answer> {
        let events = path.contains("/events");
        self.attempts += 1;
        if let Some(left) = &mut self.calls_left {
            *left = left.checked_sub(1)?;
        }
        let call = format!("{method} {path}");
        self.calls.push(call.clone());
        if method != Method::GET && !events {
            self.writes.push(call.clone());
            if self.forbidden.iter().any(|forbidden| path.contains(forbidden)) {
                return Some(failure(StatusCode::FORBIDDEN, "Forbidden"));
            }
        }
        if let Some((_, code, message)) =
            self.refusals.iter().find(|(part, ..)| call.contains(part))
        {
            return Some(failure(StatusCode::from_u16(*code).unwrap(), message));
        }
        Some(match *method {
            Method::GET => self.read(path, request.query),
            Method::DELETE => self.delete(path),
            _ if events => {
                let event: Value = serde_json::from_slice(request.body).unwrap();
                self.events.push(event.clone());
                (StatusCode::CREATED, event)
            }
            _ => self.write(path, request),
        })
    }

    fn read(&self, path: &str, query: &str) -> Answer {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let Some(collection) = collection(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let selector = Selector::of(query);
        let found = self
            .objects
            .iter()
            .filter(|(key, object)| collection.has(key) && selector.matches(object));
        let items: Vec<_> = found.map(|(_, object)| object.clone()).collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
        (StatusCode::OK, list)
    }

    /// What has finalizers is only marked.
    fn delete(&mut self, path: &str) -> Answer {
        let Some(object) = self.objects.get_mut(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        if object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        } else {
            self.objects.remove(path);
            self.applied.retain(|(applied, _), _| applied != path);
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        (StatusCode::OK, status)
    }

    fn write(&mut self, path: &str, request: Write<'_>) -> Answer {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let before = self.objects.get(path).cloned().unwrap_or(Value::Null);
        let mut after = before.clone();
        let body: Value = serde_json::from_slice(request.body).unwrap();
        match request.content {
            "application/apply-patch+yaml" => {
                let manager = parameter(request.query, "fieldManager").unwrap();
                let key = (path.to_owned(), manager);
                let last = self.applied.insert(key, body.clone()).unwrap_or(Value::Null);
                apply("", &mut after, &last, &body);
            }
            "application/json-patch+json" => {
                let operations: json_patch::Patch = serde_json::from_value(body).unwrap();
                json_patch::patch(&mut after, &operations).unwrap();
            }
            "application/strategic-merge-patch+json" => merge_strategically("", &mut after, &body),
            "application/merge-patch+json" => json_patch::merge(&mut after, &body),
            // Created, or written as a whole.
            "application/json" => after = body,
            other => panic!("a write of type {other}"),
        }
        if after != before {
            self.version += 1;
            after["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.objects.insert(path.to_owned(), after.clone());
        }
        let metadata = &after["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if metadata["deletionTimestamp"].is_string() && !held {
            self.objects.remove(path);
        }
        (StatusCode::OK, after)
    }
}

/// Server-side apply: what the manager applied last and does not apply now goes, what it applies is
/// set, and the rest belongs to others.
fn apply(field: &str, live: &mut Value, last: &Value, new: &Value) {
    match new {
        Value::Object(new) => {
            if !live.is_object() {
                *live = json!({});
            }
            let nothing = Map::new();
            let (live, last) =
                (live.as_object_mut().unwrap(), last.as_object().unwrap_or(&nothing));
            live.retain(|name, _| new.contains_key(name) || !last.contains_key(name));
            for (name, value) in new {
                let mine = last.get(name).unwrap_or(&Value::Null);
                apply(name, live.entry(name).or_insert(Value::Null), mine, value);
            }
        }
        Value::Array(new) => match SHARED.iter().find(|(list, _)| *list == field) {
            Some((_, key)) if live.is_array() => {
                apply_items(live.as_array_mut().unwrap(), last, new, key);
            }
            _ => *live = json!(new),
        },
        _ => *live = new.clone(),
    }
}

fn apply_items(live: &mut Vec<Value>, last: &Value, new: &[Value], key: &str) {
    let last = last.as_array().cloned().unwrap_or_default();
    let has = |items: &[Value], item: &Value| items.iter().any(|other| other[key] == item[key]);
    live.retain(|item| has(new, item) || !has(&last, item));
    for item in new {
        let mine = last.iter().find(|other| other[key] == item[key]).unwrap_or(&Value::Null);
        match live.iter_mut().find(|other| other[key] == item[key]) {
            Some(found) => apply("", found, mine, item),
            None => live.push(item.clone()),
        }
    }
}

/// Strategic merge patch: as a merge patch, but items of lists that are shared are merged by their keys.
fn merge_strategically(field: &str, live: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            if !live.is_object() {
                *live = json!({});
            }
            let live = live.as_object_mut().unwrap();
            for (name, value) in patch {
                if value.is_null() {
                    live.remove(name);
                } else {
                    merge_strategically(name, live.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        Value::Array(patch) => match SHARED.iter().find(|(list, _)| *list == field) {
            Some((_, key)) if live.is_array() => {
                let live = live.as_array_mut().unwrap();
                for item in patch {
                    match live.iter_mut().find(|other| other[key] == item[key]) {
                        Some(found) => merge_strategically("", found, item),
                        None => live.push(item.clone()),
                    }
                }
            }
            _ => *live = json!(patch),
        },
        _ => *live = patch.clone(),
    }
}
