//! The calls that a reconciliation makes, against an API server in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use api_server::State;
use arc_swap::ArcSwap;
use kube::{Client, core::DeserializeGuard, runtime::events::Recorder};
use meshwright::{
    api::meshwright::MeshInstallation,
    operator::{
        context::{Backoff, Context},
        installation::{FINALIZER, error_policy, reconcile},
        platform::{Platform, WebhookEndpoint},
    },
    webhook::server::Installations,
};
use serde_json::{Value, json};
use tokio::sync::watch;

const PATH: &str = "/apis/meshwright.dev/v1alpha1/meshinstallations/default";
const CONTROL_PLANE: &str =
    "/apis/apps/v1/namespaces/meshwright-system/deployments/meshwright-control-plane";

fn context(client: Client) -> Arc<Context> {
    Arc::new(Context {
        recorder: Recorder::new(client.clone(), "meshwright-operator".into()),
        client,
        platform: Platform {
            namespace: "meshwright-system".to_owned(),
            image_registry: "registry.test".to_owned(),
            image_tag: "1".to_owned(),
            image_pull_policy: "Never".to_owned(),
            webhook: WebhookEndpoint::Service,
        },
        backoff: Backoff::default(),
        installations: Arc::new(ArcSwap::from_pointee(Installations::default())),
        changed: watch::channel(()).1,
        fleet: watch::channel(BTreeMap::new()).1,
        definitions: watch::channel(meshwright::operator::definitions::Report::default()).1,
        webhook_ca: watch::channel("CA".to_owned()).1,
        turn: tokio::sync::Mutex::default(),
    })
}

fn installation(spec: &Value) -> Value {
    json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": "default", "uid": "u-1", "generation": 1, "finalizers": [FINALIZER]},
        "spec": spec,
    })
}

/// Reconciles the stored installation; the error's text, if any, and what was written.
async fn run(context: &Arc<Context>, state: &Arc<Mutex<State>>) -> (Option<String>, Vec<String>) {
    let stored = state.lock().unwrap().objects[PATH].clone();
    let object: DeserializeGuard<MeshInstallation> = serde_json::from_value(stored).unwrap();
    let outcome = reconcile(Arc::new(object), context.clone()).await;
    let writes = std::mem::take(&mut state.lock().unwrap().writes);
    (outcome.err().map(|error| error.to_string()), writes)
}

fn condition(state: &Mutex<State>, kind: &str) -> Value {
    let state = state.lock().unwrap();
    let conditions = state.objects[PATH]["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap().clone()
}

#[tokio::test]
async fn the_finalizer_comes_first() {
    let (client, state) = api_server::start();
    let mut object = installation(&json!({}));
    object["metadata"]["finalizers"] = Value::Null;
    state.lock().unwrap().objects.insert(PATH.to_owned(), object);
    let (error, writes) = run(&context(client), &state).await;
    assert_eq!((error, writes), (None, vec![format!("PATCH {PATH}")]));
}

#[tokio::test]
async fn applies_in_order_and_then_writes_nothing() {
    let (client, state) = api_server::start();
    let object = installation(&json!({"gateways": [{"name": "ingress"}]}));
    state.lock().unwrap().objects.insert(PATH.to_owned(), object);
    let context = context(client);

    let (error, writes) = run(&context, &state).await;
    assert_eq!(error, None);
    let kinds: Vec<_> = writes.iter().map(|write| write.rsplit('/').nth(1).unwrap()).collect();
    let expected = [
        "serviceaccounts",
        "serviceaccounts",
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
        "services",
        "services",
        "deployments",
        "deployments",
        "mutatingwebhookconfigurations",
        "default",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(condition(&state, "Ready")["status"], "False");
    assert_eq!(condition(&state, "Progressing")["reason"], "RollingOut");

    let (error, writes) = run(&context, &state).await;
    assert_eq!((error, writes), (None, vec![]), "a settled installation writes nothing");

    // A gateway that is not wanted any more goes, with all that belongs to it.
    state.lock().unwrap().objects.get_mut(PATH).unwrap()["spec"] = json!({});
    let (_, writes) = run(&context, &state).await;
    let deleted: Vec<_> = writes.iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted.len(), 3, "{deleted:?}");
    assert!(deleted.iter().all(|write| write.ends_with("/ingress")), "{deleted:?}");
}

#[tokio::test]
async fn drift_is_repaired() {
    let (client, state) = api_server::start();
    state.lock().unwrap().objects.insert(PATH.to_owned(), installation(&json!({})));
    let context = context(client);
    run(&context, &state).await;
    state.lock().unwrap().objects.get_mut(CONTROL_PLANE).unwrap()["spec"]["replicas"] = json!(0);
    let (_, writes) = run(&context, &state).await;
    assert_eq!(writes, [format!("PATCH {CONTROL_PLANE}")]);
}

#[tokio::test]
async fn readiness_follows_the_deployments() {
    let (client, state) = api_server::start();
    state.lock().unwrap().objects.insert(PATH.to_owned(), installation(&json!({})));
    let context = context(client);
    run(&context, &state).await;
    state.lock().unwrap().objects.get_mut(CONTROL_PLANE).unwrap()["status"] =
        json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
    let (_, writes) = run(&context, &state).await;
    assert_eq!(writes, [format!("PATCH {PATH}/status")]);
    assert_eq!(condition(&state, "Ready")["status"], "True");
    assert_eq!(condition(&state, "Degraded")["status"], "False");
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_status() {
    let (client, state) = api_server::start();
    let object = installation(&json!({"proxy": {"certificateTtl": "1s"}}));
    state.lock().unwrap().objects.insert(PATH.to_owned(), object);
    let (error, writes) = run(&context(client), &state).await;
    assert!(error.unwrap().contains("spec.proxy.certificateTtl"));
    assert_eq!(writes, [format!("PATCH {PATH}/status")]);
    assert_eq!(condition(&state, "Degraded")["reason"], "Invalid");
}

#[tokio::test]
async fn a_refusal_is_said_and_tried_again_later() {
    let (client, state) = api_server::start();
    state.lock().unwrap().objects.insert(PATH.to_owned(), installation(&json!({})));
    state.lock().unwrap().forbidden.push("/deployments/".to_owned());
    let context = context(client);
    let object: DeserializeGuard<MeshInstallation> =
        serde_json::from_value(state.lock().unwrap().objects[PATH].clone()).unwrap();
    let object = Arc::new(object);
    let error = reconcile(object.clone(), context.clone()).await.unwrap_err();
    assert_eq!(condition(&state, "Degraded")["reason"], "ApplyFailed");
    let again = |error| format!("{:?}", error_policy(object.clone(), error, context.clone()));
    assert!(again(&error).contains("1s") && again(&error).contains("2s"));
}

#[tokio::test]
async fn webhook_configurations_go_before_anything_else() {
    let (client, state) = api_server::start();
    state.lock().unwrap().objects.insert(PATH.to_owned(), installation(&json!({})));
    let context = context(client);
    run(&context, &state).await;
    state.lock().unwrap().objects.get_mut(PATH).unwrap()["metadata"]["deletionTimestamp"] =
        json!("2026-01-01T00:00:00Z");
    let (error, writes) = run(&context, &state).await;
    assert_eq!(error, None);
    let deleted: Vec<_> = writes.iter().filter_map(|write| write.strip_prefix("DELETE ")).collect();
    let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/meshwright-injector-default";
    assert_eq!(deleted[..2], [webhook, CONTROL_PLANE]);
    let finalizer = format!("PATCH {PATH}");
    assert_eq!(writes.last(), Some(&finalizer), "all is gone before it is released");
}
