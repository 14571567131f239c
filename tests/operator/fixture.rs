//! An installation in an API server in memory.

#![allow(dead_code, reason = "each test and benchmark uses a part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use kube::{Client, core::DeserializeGuard};
use meshwright::{
    api::meshwright::MeshInstallation,
    operator::{
        context::Context,
        installation::{FINALIZER, reconcile},
        platform::{Platform, WebhookEndpoint},
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api_server::{self, State};

pub const PATH: &str = "/apis/meshwright.dev/v1alpha1/meshinstallations/default";
pub const CONTROL_PLANE: &str =
    "/apis/apps/v1/namespaces/meshwright-system/deployments/meshwright-control-plane";
pub const SYSTEM: &str = "meshwright-system";

pub struct Fixture {
    pub context: Arc<Context>,
    state: Arc<Mutex<State>>,
}

impl Fixture {
    /// With one installation of this spec, and nothing else.
    pub fn new(spec: &Value) -> Self {
        let (client, state) = api_server::start();
        state.lock().unwrap().objects.insert(PATH.to_owned(), installation(spec));
        Self { context: context(client), state }
    }

    /// Another operator on the same API server, which knows nothing of the first.
    pub fn another(&self) -> Self {
        let client = api_server::client(&self.state);
        Self { context: context(client), state: self.state.clone() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Reconciles the stored installation; the error's text, if any, and what was written.
    pub async fn run(&self) -> (Option<String>, Vec<String>) {
        let stored = self.state().objects[PATH].clone();
        let object: DeserializeGuard<MeshInstallation> = serde_json::from_value(stored).unwrap();
        let outcome = reconcile(Arc::new(object), self.context.clone()).await;
        let writes = std::mem::take(&mut self.state().writes);
        (outcome.err().map(|error| error.to_string()), writes)
    }

    pub fn set_spec(&self, spec: &Value) {
        self.state().objects.get_mut(PATH).unwrap()["spec"] = spec.clone();
    }

    pub fn condition(&self, kind: &str) -> Value {
        let state = self.state();
        let conditions = state.objects[PATH]["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap().clone()
    }

    /// Status and reason of a condition, and whether its message has all of these.
    pub fn says(&self, kind: &str, status: &str, reason: &str, parts: &[&str]) {
        let condition = self.condition(kind);
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!(status), &json!(reason)),
            "{condition}"
        );
        let message = condition["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    /// All Deployments have all their pods.
    pub fn make_available(&self) {
        let mut state = self.state();
        let deployments =
            state.objects.iter_mut().filter(|(path, _)| path.contains("/deployments/"));
        for (_, deployment) in deployments {
            let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
            deployment["status"] = json!({
                "replicas": wanted, "updatedReplicas": wanted, "availableReplicas": wanted,
            });
        }
    }

    /// All objects, without what differs from one run to the next.
    pub fn objects(&self) -> BTreeMap<String, Value> {
        let mut objects = self.state().objects.clone();
        for object in objects.values_mut() {
            object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            let conditions = object["status"]["conditions"].as_array_mut();
            for condition in conditions.into_iter().flatten() {
                condition.as_object_mut().unwrap().remove("lastTransitionTime");
            }
        }
        objects
    }
}

fn context(client: Client) -> Arc<Context> {
    let platform = Platform {
        namespace: SYSTEM.to_owned(),
        image_registry: "registry.test".to_owned(),
        image_tag: "1".to_owned(),
        image_pull_policy: "Never".to_owned(),
        webhook: WebhookEndpoint::Service,
    };
    Arc::new(Context {
        webhook_ca: watch::channel("CA".to_owned()).1,
        ..Context::new(client, platform)
    })
}

pub fn installation(spec: &Value) -> Value {
    json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": "default", "uid": "u-1", "generation": 1, "finalizers": [FINALIZER]},
        "spec": spec,
    })
}
