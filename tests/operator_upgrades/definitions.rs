//! Definitions in the cluster come to the operator's version, with what is stored.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::{Client, ResourceExt};
use meshwright::{
    api::{crd::Source, meshwright::labels::DEFINITIONS},
    operator::definitions::{Report, State, pass},
};
use serde_json::{Value, json};

use crate::api_server;

const NAME: &str = "meshinstallations.meshwright.dev";
const PATH: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/meshinstallations.meshwright.dev";
const OBJECT: &str = "/apis/meshwright.dev/v1alpha1/meshinstallations/default";

type Server = Arc<Mutex<api_server::State>>;

/// Our definition as an operator of this version left it.
fn definition(version: &str, stored: &[&str]) -> Value {
    let mut crd = serde_json::to_value(&Source::Meshwright.definitions()[0]).unwrap();
    crd["metadata"]["annotations"][DEFINITIONS] = json!(version);
    crd["status"] = json!({"storedVersions": stored});
    crd
}

/// With another version that objects are stored in.
fn older(mut crd: Value) -> Value {
    let mut version = crd["spec"]["versions"][0].clone();
    version["name"] = json!("v1alpha0");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(version);
    crd
}

fn cluster(crd: Value) -> (Client, Server) {
    let (client, state) = api_server::start();
    let object = json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": "default", "uid": "u-1", "resourceVersion": "7"}, "spec": {},
    });
    state.lock().unwrap().objects.extend([(PATH.to_owned(), crd), (OBJECT.to_owned(), object)]);
    (client, state)
}

/// One look at our own definition: what became of it, and what was written.
async fn look(client: &Client, state: &Server) -> (State, Vec<String>) {
    let ours = Source::Meshwright.definitions();
    let Report(report) = pass(client, &ours, Duration::ZERO).await;
    let (name, outcome) = report[0].clone();
    assert_eq!(name, ours[0].name_any());
    (outcome, std::mem::take(&mut state.lock().unwrap().writes))
}

#[tokio::test]
async fn what_is_current_is_not_written() {
    let (client, state) = cluster(definition(env!("CARGO_PKG_VERSION"), &["v1alpha1"]));
    assert_eq!(look(&client, &state).await, (State::Current, vec![]));
}

#[tokio::test]
async fn an_older_one_is_upgraded_once() {
    let mut crd = definition("0.0.1", &["v1alpha1"]);
    crd["spec"]["versions"][0]["schema"] = json!({});
    crd["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
    let (client, state) = cluster(crd);
    assert_eq!(look(&client, &state).await, (State::Current, vec![format!("PATCH {PATH}")]));
    assert_eq!(look(&client, &state).await, (State::Current, vec![]));
    let state = state.lock().unwrap();
    let upgraded = &state.objects[PATH];
    assert_eq!(upgraded["metadata"]["annotations"][DEFINITIONS], env!("CARGO_PKG_VERSION"));
    assert_eq!(upgraded["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
}

#[tokio::test]
async fn a_newer_one_is_left_and_reported() {
    let (client, state) = cluster(definition("99.1.0", &["v1alpha1"]));
    let (outcome, writes) = look(&client, &state).await;
    assert_eq!((outcome.clone(), writes), (State::Newer("99.1.0".to_owned()), vec![]));
    let finding = Report(vec![(NAME.to_owned(), outcome)]).finding();
    assert_eq!((finding.status, finding.reason), (Some(false), "NewerDefinitions"));
    assert!(finding.message.contains("upgrade the operator"), "{}", finding.message);
}

#[tokio::test]
async fn objects_are_stored_anew_before_their_version_goes() {
    let (client, state) = cluster(older(definition("0.0.1", &["v1alpha0", "v1alpha1"])));
    let (outcome, writes) = look(&client, &state).await;
    assert_eq!(outcome, State::Current);
    let expected = [
        // Both versions are served, the new one is stored.
        format!("PATCH {PATH}"),
        format!("PATCH {OBJECT}"),
        format!("PATCH {PATH}/status"),
        // Nothing is stored in the old one any more.
        format!("PATCH {PATH}"),
    ];
    assert_eq!(writes, expected);
    {
        let state = state.lock().unwrap();
        assert_eq!(state.objects[PATH]["status"]["storedVersions"], json!(["v1alpha1"]));
        let versions = state.objects[PATH]["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1);
        assert_eq!(state.objects[OBJECT]["spec"], json!({}), "as it was");
    }
    assert_eq!(look(&client, &state).await, (State::Current, vec![]));
}

#[tokio::test]
async fn without_the_right_to_it_the_reason_is_said_and_it_heals() {
    let (client, state) = cluster(definition("0.0.1", &["v1alpha1"]));
    state.lock().unwrap().forbidden.push("customresourcedefinitions".to_owned());
    let (outcome, _) = look(&client, &state).await;
    let State::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("upgrade the definition") && error.contains("Forbidden"), "{error}");
    state.lock().unwrap().forbidden.clear();
    assert_eq!(look(&client, &state).await.0, State::Current);
}

#[tokio::test]
async fn what_is_not_in_the_cluster_is_not_made() {
    let (client, state) = api_server::start();
    assert_eq!(look(&client, &state).await, (State::Absent, vec![]));
}
