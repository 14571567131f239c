//! Tells the cluster about pods that were to be injected and are not: Events of the object behind the
//! pod, where whoever misses the proxy looks first.
//!
//! Reviews do not wait for that. What the API server cannot take in time is dropped.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    inject::{self, Decision},
    review::Request,
};
use crate::runtime::events::publish;

const QUEUE: usize = 256;
/// How long the same is not said again about the same object.
const SILENCE: Duration = Duration::from_mins(1);

/// An injection that somebody asked for and that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incident {
    /// Of the Event.
    pub reason: &'static str,
    /// Why, and what to do.
    pub note: String,
}

impl Incident {
    /// What there is to tell about an outcome.
    pub fn of(outcome: &Result<inject::Verdict, inject::Error>) -> Option<Self> {
        match outcome {
            Ok(inject::Verdict { decision: Decision::Skip(reason), .. }) if reason.was_asked() => {
                Some(Self { reason: "InjectionSkipped", note: reason.to_string() })
            }
            Ok(_) => None,
            Err(error) => Some(Self { reason: "InjectionFailed", note: error.to_string() }),
        }
    }
}

/// An incident, and the object that the Event is about.
#[derive(Clone, Debug)]
pub struct Notice {
    pub about: ObjectReference,
    pub incident: Incident,
}

/// Where notices go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Notice>);

impl Events {
    /// The queue, and what posts from it until nobody can send any more.
    pub fn new(recorder: Recorder) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), post(recorder, receiver))
    }

    /// Hands a notice over, or drops it where too many wait.
    pub fn post(&self, notice: Notice) {
        if self.0.try_send(notice).is_err() {
            tracing::debug!("too many events wait: one was dropped");
        }
    }
}

async fn post(recorder: Recorder, mut notices: mpsc::Receiver<Notice>) {
    let mut recent = Recent::default();
    while let Some(Notice { about, incident }) = notices.recv().await {
        if !recent.is_news(&about, &incident, Instant::now()) {
            continue;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: incident.reason.to_owned(),
            note: Some(incident.note),
            action: "Inject".to_owned(),
            secondary: None,
        };
        publish(&recorder, &about, event).await;
    }
}

/// What was said in the last minute. A pod that cannot be created is tried again and again.
#[derive(Default)]
struct Recent(HashMap<(String, Incident), Instant>);

impl Recent {
    fn is_news(&mut self, about: &ObjectReference, incident: &Incident, now: Instant) -> bool {
        self.0.retain(|_, said| now.duration_since(*said) < SILENCE);
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let object = [&about.kind, &about.namespace, &about.name, &about.uid].map(text).join("/");
        let key = (object, incident.clone());
        if self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

/// The object to which an Event about a pod belongs: what controls the pod, else the pod if it has a
/// name yet, else its namespace.
pub fn regarding(request: &Request) -> ObjectReference {
    let metadata = &request.object["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let controller =
        owners.into_iter().flatten().find(|owner| owner["controller"] == Value::Bool(true));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(controller) = controller {
        return ObjectReference {
            api_version: text(&controller["apiVersion"]),
            kind: text(&controller["kind"]),
            name: text(&controller["name"]),
            uid: text(&controller["uid"]),
            namespace: Some(request.namespace.clone()),
            ..ObjectReference::default()
        };
    }
    let core = |kind: &str, name: &str, namespace: Option<&String>| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace: namespace.cloned(),
        ..ObjectReference::default()
    };
    match metadata["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => core("Pod", name, Some(&request.namespace)),
        None => core("Namespace", &request.namespace, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_same_once_a_minute() {
        let about = |name: &str| ObjectReference {
            name: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        let incident = |note: &str| Incident { reason: "InjectionSkipped", note: note.to_owned() };
        let mut recent = Recent::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(recent.is_news(&about("web"), &incident("a"), at(0)));
        assert!(!recent.is_news(&about("web"), &incident("a"), at(59)));
        assert!(recent.is_news(&about("web"), &incident("b"), at(59)));
        assert!(recent.is_news(&about("db"), &incident("a"), at(59)));
        assert!(recent.is_news(&about("web"), &incident("a"), at(60)));
        // What is over is forgotten: a year of churn takes no memory.
        assert!(recent.is_news(&about("web"), &incident("c"), at(1_000)));
        assert_eq!(recent.0.len(), 1);
    }
}
