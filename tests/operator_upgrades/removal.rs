//! What goes, in which order, and what is refused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::Client;
use meshwright::operator::{
    apply::Changes,
    installation::FINALIZER,
    removal::{Waits, proceed, uninstall::uninstall},
};
use serde_json::{Value, json};

use crate::{
    api_server::{self, State},
    webhook,
};

const SYSTEM: &str = "meshwright-system";
const INSTALLATIONS: &str = "/apis/meshwright.dev/v1alpha1/meshinstallations";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

fn installation(name: &str, revision: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {
            "name": name, "uid": name, "finalizers": [FINALIZER], "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"revision": revision},
    })
}

fn labelled(name: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace_of(name), "labels": labels}})
}

fn namespace_of(name: &str) -> &str {
    if name.starts_with("web") { "shop" } else { SYSTEM }
}

fn pod(name: &str, revision: &str, installation: Option<&str>) -> (String, Value) {
    let mut labels = json!({"meshwright.dev/revision": revision});
    if let Some(installation) = installation {
        labels["meshwright.dev/installation"] = json!(installation);
    }
    let path = format!("/api/v1/namespaces/{}/pods/{name}", namespace_of(name));
    (path, labelled(name, &labels))
}

/// A cluster with one installation of revision `v1` and what belongs to it and to the mesh.
fn cluster() -> (Client, Arc<Mutex<State>>) {
    let (client, state) = api_server::start();
    let ours = json!({
        "app.kubernetes.io/managed-by": "meshwright-operator",
        "meshwright.dev/installation": "old",
    });
    let system = |group: &str, plural: &str, name: &str| {
        (format!("/{group}/namespaces/{SYSTEM}/{plural}/{name}"), labelled(name, &ours))
    };
    let mut hook = labelled("meshwright-injector-v1", &ours);
    hook["metadata"]["annotations"] = json!({"meshwright.dev/names": "v1,stable"});
    let key = json!({"app.kubernetes.io/managed-by": "meshwright-control-plane"});
    let mut root = labelled("meshwright-ca-root-cert", &json!({}));
    root["metadata"]["namespace"] = json!("shop");
    let objects = [
        (format!("{INSTALLATIONS}/old"), installation("old", "v1", &json!({}))),
        (format!("{WEBHOOKS}/meshwright-injector-v1"), hook),
        system("apis/apps/v1", "deployments", "meshwright-control-plane-v1"),
        system("apis/apps/v1", "deployments", "ingress"),
        system("api/v1", "services", "meshwright-control-plane-v1"),
        system("api/v1", "serviceaccounts", "meshwright-control-plane-v1"),
        ("/api/v1/namespaces/shop/configmaps/meshwright-ca-root-cert".to_owned(), root),
        (
            format!("/api/v1/namespaces/{SYSTEM}/secrets/meshwright-ca"),
            labelled("meshwright-ca", &key),
        ),
        (
            format!(
                "/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/meshwright-control-plane"
            ),
            labelled("meshwright-control-plane", &json!({})),
        ),
    ];
    state.lock().unwrap().objects.extend(objects);
    (client, state)
}

fn add(state: &Mutex<State>, objects: impl IntoIterator<Item = (String, Value)>) {
    state.lock().unwrap().objects.extend(objects);
}

/// Marks the installation as deleted and takes one step of its removal.
async fn step(client: &Client, state: &Mutex<State>) -> (Option<Waits>, Vec<String>) {
    let object = {
        let mut state = state.lock().unwrap();
        let object = state.objects.get_mut(&format!("{INSTALLATIONS}/old")).unwrap();
        // Long ago: nothing waits for heirs that do not come.
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        }
        serde_json::from_value(object.clone()).unwrap()
    };
    let waits = Box::pin(proceed(client, SYSTEM, &object, &mut Changes::default())).await.unwrap();
    let writes = std::mem::take(&mut state.lock().unwrap().writes);
    let names = writes.iter().map(|write| {
        let (verb, path) = write.split_once(' ').unwrap();
        let parts: Vec<_> = path.rsplit('/').take(2).collect();
        format!("{verb} {}/{}", parts[1], parts[0])
    });
    (waits, names.collect())
}

#[tokio::test]
async fn the_webhook_goes_first_and_the_mesh_goes_last() {
    let (client, state) = cluster();
    // The control plane's pod still runs when its Deployment is deleted.
    let running = "/api/v1/namespaces/meshwright-system/pods/cp".to_owned();
    let labels = json!({"app": "meshwright-control-plane-v1"});
    add(&state, [(running.clone(), labelled("cp", &labels)), pod("ingress-1", "v1", Some("old"))]);
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, Some(Waits::ControlPlane));
    assert_eq!(
        writes,
        [
            "DELETE mutatingwebhookconfigurations/meshwright-injector-v1",
            "DELETE deployments/ingress",
            "DELETE deployments/meshwright-control-plane-v1",
        ]
    );
    state.lock().unwrap().objects.remove(&running);
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, None);
    assert_eq!(
        writes,
        [
            "DELETE services/meshwright-control-plane-v1",
            "DELETE serviceaccounts/meshwright-control-plane-v1",
            "DELETE configmaps/meshwright-ca-root-cert",
            "DELETE leases/meshwright-control-plane",
            "DELETE secrets/meshwright-ca",
        ]
    );
}

#[tokio::test]
async fn what_another_revision_uses_stays() {
    let (client, state) = cluster();
    add(&state, [(format!("{INSTALLATIONS}/new"), installation("new", "v2", &json!({})))]);
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, None);
    assert!(
        !writes.iter().any(|w| w.contains("meshwright-ca") || w.contains("leases")),
        "{writes:?}"
    );
}

/// Also one that this version cannot read, but not one that was released already.
#[tokio::test]
async fn whoever_stays_needs_the_mesh() {
    let key = "DELETE secrets/meshwright-ca".to_owned();
    for (metadata, spec, is_last) in [
        (json!({"name": "new"}), json!({"revision": 7}), false),
        (json!({"name": "new"}), json!({"revision": "v2"}), false),
        (
            json!({
                "name": "new", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "finalizers": ["somebody/else"],
            }),
            json!({"revision": "v2"}),
            true,
        ),
    ] {
        let (client, state) = cluster();
        let other = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": metadata, "spec": spec,
        });
        add(&state, [(format!("{INSTALLATIONS}/new"), other.clone())]);
        let (waits, writes) = step(&client, &state).await;
        assert_eq!(waits, None);
        assert_eq!(writes.contains(&key), is_last, "{other}: {writes:?}");
    }
}

/// Each selects a name that the other asks for, and neither will select another one.
#[tokio::test]
async fn two_that_leave_do_not_wait_for_each_other() {
    let (client, state) = cluster();
    let mut other = installation("new", "v2", &json!({}));
    other["spec"]["tags"] = json!(["stable"]);
    other["metadata"]["deletionTimestamp"] = json!("2999-01-01T00:00:00Z");
    add(&state, [(format!("{INSTALLATIONS}/new"), other)]);
    let path = format!("{INSTALLATIONS}/old");
    state.lock().unwrap().objects.get_mut(&path).unwrap()["metadata"]["deletionTimestamp"] =
        json!("2999-01-01T00:00:00Z");
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, None);
    assert_eq!(writes[0], "DELETE mutatingwebhookconfigurations/meshwright-injector-v1");
}

#[tokio::test]
async fn the_control_plane_stays_while_pods_need_it() {
    let (client, state) = cluster();
    add(&state, [pod("web-1", "v1", None), pod("web-2", "v2", None)]);
    let (waits, writes) = step(&client, &state).await;
    let Some(Waits::Proxies(remaining)) = waits else { panic!("{waits:?}") };
    assert_eq!(remaining.pods, [("shop".to_owned(), "web-1".to_owned())]);
    assert_eq!(writes, ["DELETE mutatingwebhookconfigurations/meshwright-injector-v1"]);
    let (_, writes) = step(&client, &state).await;
    assert_eq!(writes, [""; 0]);
    // Somebody means it.
    let path = format!("{INSTALLATIONS}/old");
    state.lock().unwrap().objects.get_mut(&path).unwrap()["metadata"]["annotations"] =
        json!({"meshwright.dev/allow-removal": "true"});
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, None);
    assert!(writes.contains(&"DELETE deployments/meshwright-control-plane-v1".to_owned()));
}

#[tokio::test]
async fn names_that_others_ask_for_go_over_first() {
    let (client, state) = cluster();
    let mut heir = installation("new", "v2", &json!({}));
    heir["spec"]["tags"] = json!(["v1"]);
    add(&state, [(format!("{INSTALLATIONS}/new"), heir)]);
    let path = format!("{INSTALLATIONS}/old");
    // Far in the future, so that whatever this machine's clock says it was deleted just now.
    state.lock().unwrap().objects.get_mut(&path).unwrap()["metadata"]["deletionTimestamp"] =
        json!("2999-01-01T00:00:00Z");
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, Some(Waits::Heirs(vec![("v1".to_owned(), "new".to_owned())])));
    assert_eq!(writes, [""; 0]);
    let mut hook = labelled(
        "meshwright-injector-v2",
        &json!({
            "app.kubernetes.io/managed-by": "meshwright-operator",
            "meshwright.dev/installation": "new",
        }),
    );
    hook["metadata"]["annotations"] = json!({"meshwright.dev/names": "v2,v1"});
    add(&state, [(format!("{WEBHOOKS}/meshwright-injector-v2"), hook)]);
    let (waits, writes) = step(&client, &state).await;
    assert_eq!(waits, None);
    assert_eq!(writes[0], "DELETE mutatingwebhookconfigurations/meshwright-injector-v1");
    assert!(!writes.iter().any(|write| write.contains("injector-v2")));
}

#[tokio::test]
async fn uninstalling_without_an_operator_leaves_nothing() {
    let (client, state) = cluster();
    let ours = json!({"app.kubernetes.io/managed-by": "meshwright-operator"});
    add(
        &state,
        [
            (
                "/apis/apps/v1/namespaces/shop/deployments/web-gateway".to_owned(),
                labelled("web-gateway", &ours),
            ),
            (
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses/meshwright".to_owned(),
                json!({"metadata": {"name": "meshwright"}, "spec": {"controllerName": "x"}}),
            ),
            (
                format!("/api/v1/namespaces/{SYSTEM}/secrets/meshwright-webhook-tls"),
                labelled("meshwright-webhook-tls", &ours),
            ),
        ],
    );
    uninstall(&client, SYSTEM, Duration::from_mins(1)).await.unwrap();
    let state = state.lock().unwrap();
    // The mock makes what is patched; a real API server would say that there is no operator to stop.
    let operator = "/apis/apps/v1/namespaces/meshwright-system/deployments/meshwright-operator";
    let left: Vec<_> = state.objects.keys().filter(|path| *path != operator).collect();
    assert_eq!(left, [""; 0]);
    let position = |part: &str| state.writes.iter().position(|write| write.contains(part)).unwrap();
    assert!(position("meshwright-injector-v1") < position("deployments/meshwright-control-plane"));
    assert!(position("meshwright-operator") < position("web-gateway"));
}

#[tokio::test]
async fn uninstalling_is_refused_before_anything_is_changed() {
    let (client, state) = cluster();
    add(&state, [pod("web-1", "v1", None)]);
    let error = uninstall(&client, SYSTEM, Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.contains("shop/web-1") && error.contains("MeshInstallation old"), "{error}");
    assert_eq!(state.lock().unwrap().writes, [""; 0]);
}

/// The review of a deletion.
fn deletion(installation: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": "DELETE", "name": "old", "namespace": "",
            "kind": {"group": "meshwright.dev", "version": "v1alpha1", "kind": "MeshInstallation"},
            "userInfo": {}, "object": null, "oldObject": installation,
        },
    })
    .to_string()
}

#[tokio::test]
async fn deleting_a_revision_that_has_proxies_is_forbidden_with_their_names() {
    let server = webhook::server();
    let old = installation("old", "v1", &json!({}));
    let (_, answer) = server.post("/validate", deletion(&old)).await;
    assert_eq!(answer["allowed"], true, "it has none");
    let many = (0..12).map(|i| pod(&format!("web-{i:02}"), "v1", None));
    add(&server.state, many.chain([pod("ingress-1", "v1", Some("old"))]));
    let (_, answer) = server.post("/validate", deletion(&old)).await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(403)));
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("12 pods: shop/web-00, "), "{message}");
    assert!(message.contains("shop/web-09 and 2 more"), "{message}");
    assert!(!message.contains("ingress"), "its own gateways do not count: {message}");
    assert!(message.contains("meshwright.dev/allow-removal=true"), "{message}");
    let meant = installation("old", "v1", &json!({"meshwright.dev/allow-removal": "true"}));
    assert_eq!(server.post("/validate", deletion(&meant)).await.1["allowed"], true);
    let other = installation("new", "v2", &json!({}));
    assert_eq!(server.post("/validate", deletion(&other)).await.1["allowed"], true);
}
