//! What goes wrong at run time: each gives a condition with reason and message, the rest goes on, and
//! it heals when the cause is gone.

use serde_json::{Value, json};

use crate::fixture::{CONTROL_PLANE, Fixture, PATH, SYSTEM};

fn two_gateways() -> Value {
    json!({"gateways": [{"name": "edge", "namespace": "edge"}, {"name": "inner"}]})
}

fn edge(plural: &str) -> String {
    let group = if plural == "deployments" { "apis/apps/v1" } else { "api/v1" };
    format!("/{group}/namespaces/edge/{plural}/edge")
}

/// Everything but what is of the gateway `edge`.
fn the_rest_is_there(mesh: &Fixture) {
    let state = mesh.state();
    for path in [
        CONTROL_PLANE,
        "/apis/apps/v1/namespaces/meshwright-system/deployments/inner",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/meshwright-injector-default",
    ] {
        assert!(state.objects.contains_key(path), "{path} was held up");
    }
}

async fn heals(mesh: &Fixture) {
    mesh.state().refusals.clear();
    mesh.state().forbidden.clear();
    assert_eq!(mesh.run().await.0, None);
    mesh.make_available();
    assert_eq!(mesh.run().await.0, None);
    mesh.says("Ready", "True", "Ready", &[]);
    mesh.says("Degraded", "False", "AsExpected", &[]);
}

#[tokio::test]
async fn a_right_that_is_taken_away() {
    let mesh = Fixture::new(&two_gateways());
    let message = r#"deployments.apps "edge" is forbidden: User "system:serviceaccount:meshwright-system:meshwright-operator" cannot patch resource "deployments" in API group "apps" in the namespace "edge""#;
    mesh.state().refusals.push((format!("PATCH {}", edge("deployments")), 403, message.to_owned()));
    let (error, _) = mesh.run().await;
    assert!(error.unwrap().contains("cannot patch resource"));
    the_rest_is_there(&mesh);
    let parts = ["patch", "\"deployments\"", "namespace \"edge\""];
    mesh.says("GatewaysReady", "False", "Forbidden", &parts);
    mesh.says("Degraded", "True", "Forbidden", &parts);
    mesh.says("Ready", "False", "Forbidden", &parts);
    mesh.says("WebhookReady", "True", "Registered", &[]);
    heals(&mesh).await;
}

#[tokio::test]
async fn a_right_to_list_that_is_taken_away() {
    let mesh = Fixture::new(&two_gateways());
    mesh.run().await;
    mesh.make_available();
    mesh.run().await;
    let message = r#"services is forbidden: User "operator" cannot list resource "services" in API group "" at the cluster scope"#;
    mesh.state().refusals.push(("GET /api/v1/services".to_owned(), 403, message.to_owned()));
    mesh.state().objects.remove(CONTROL_PLANE);
    mesh.run().await;
    assert!(mesh.state().objects.contains_key(CONTROL_PLANE), "drift is still undone");
    assert!(mesh.state().objects.contains_key(&edge("services")), "and nothing is deleted");
    mesh.says("Degraded", "True", "Forbidden", &["list", "services"]);
    heals(&mesh).await;
}

#[tokio::test]
async fn a_namespace_that_is_not_there() {
    let mesh = Fixture::new(&two_gateways());
    let message = r#"namespaces "edge" not found"#;
    mesh.state().refusals.push(("/namespaces/edge/".to_owned(), 404, message.to_owned()));
    mesh.run().await;
    the_rest_is_there(&mesh);
    mesh.says("GatewaysReady", "False", "NamespaceMissing", &["namespace edge does not exist"]);
    let condition = mesh.condition("GatewaysReady");
    let said = condition["message"].as_str().unwrap().matches("does not exist").count();
    assert_eq!(said, 1, "once, not for each object: {condition}");
    heals(&mesh).await;
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted() {
    let mesh = Fixture::new(&two_gateways());
    let message = r#"serviceaccounts "edge" is forbidden: unable to create new content in namespace edge because it is being terminated"#;
    mesh.state().refusals.push((
        "PATCH /api/v1/namespaces/edge/".to_owned(),
        403,
        message.to_owned(),
    ));
    mesh.run().await;
    the_rest_is_there(&mesh);
    mesh.says("GatewaysReady", "False", "NamespaceTerminating", &["edge"]);
    heals(&mesh).await;
}

/// A quota on objects refuses the object; one on pods shows at the Deployment.
#[tokio::test]
async fn a_quota_that_is_reached() {
    let mesh = Fixture::new(&two_gateways());
    let message = r#"services "edge" is forbidden: exceeded quota: q, requested: services=1, used: services=1, limited: services=1"#;
    mesh.state().refusals.push((format!("PATCH {}", edge("services")), 403, message.to_owned()));
    mesh.run().await;
    the_rest_is_there(&mesh);
    assert!(mesh.state().objects.contains_key(&edge("deployments")), "the gateway itself goes on");
    mesh.says("GatewaysReady", "False", "QuotaExceeded", &["limited: services=1"]);
    heals(&mesh).await;

    mesh.state().objects.get_mut(&edge("deployments")).unwrap()["status"] = json!({
        "conditions": [{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "pods \"edge-1\" is forbidden: exceeded quota: pods, limited: pods=0",
        }],
    });
    assert_eq!(mesh.run().await.0, None, "nothing to be done about it but wait");
    mesh.says("GatewaysReady", "False", "QuotaExceeded", &["edge/edge", "limited: pods=0"]);
    mesh.says("Degraded", "True", "QuotaExceeded", &["limited: pods=0"]);
    mesh.says("ControlPlaneReady", "True", "Available", &[]);
    heals(&mesh).await;
}

#[tokio::test]
async fn an_image_that_does_not_pull() {
    let mesh = Fixture::new(&two_gateways());
    mesh.run().await;
    mesh.make_available();
    mesh.run().await;
    let pod = "/api/v1/namespaces/edge/pods/edge-1";
    mesh.state().objects.insert(
        pod.to_owned(),
        json!({
            "metadata": {
                "name": "edge-1", "namespace": "edge", "labels": {"meshwright.dev/gateway": "edge"},
            },
            "status": {"containerStatuses": [{
                "name": "meshwright-proxy", "image": "registry.test/proxy:9", "imageID": "",
                "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
            }]},
        }),
    );
    // The old pod goes on serving.
    mesh.state().objects.get_mut(&edge("deployments")).unwrap()["status"] =
        json!({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 1});
    mesh.run().await;
    mesh.says("Degraded", "True", "ImagePullFailed", &["registry.test/proxy:9", "not found"]);
    mesh.says("GatewaysReady", "True", "Available", &[]);
    // None does.
    mesh.state().objects.get_mut(&edge("deployments")).unwrap()["status"] = json!({});
    mesh.run().await;
    mesh.says("GatewaysReady", "False", "ImagePullFailed", &["edge/edge: 0 of 1 available"]);
    mesh.says("Ready", "False", "ImagePullFailed", &[]);
    mesh.state().objects.remove(pod);
    heals(&mesh).await;
}

/// What the API server will not change is made anew.
#[tokio::test]
async fn an_immutable_field_that_somebody_changed() {
    let mesh = Fixture::new(&two_gateways());
    mesh.run().await;
    mesh.state().objects.get_mut(CONTROL_PLANE).unwrap()["spec"]["selector"] =
        json!({"matchLabels": {"app": "theirs"}});
    let message = "Deployment.apps \"meshwright-control-plane\" is invalid: spec.selector: Invalid value: field is immutable";
    mesh.state().refusals.push((format!("PATCH {CONTROL_PLANE}"), 422, message.to_owned()));
    let (error, writes) = mesh.run().await;
    assert!(error.unwrap().contains("immutable"), "as long as the API server refuses");
    assert!(writes.contains(&format!("DELETE {CONTROL_PLANE}")), "{writes:?}");
    mesh.says("ControlPlaneReady", "False", "ImmutableField", &["spec.selector"]);
    heals(&mesh).await;
    let selector = mesh.state().objects[CONTROL_PLANE]["spec"]["selector"].clone();
    assert_eq!(selector["matchLabels"]["app"], "meshwright-control-plane");
}

/// A Service is not deleted: it might come back with another address.
#[tokio::test]
async fn an_immutable_field_of_a_service_is_said() {
    let mesh = Fixture::new(&two_gateways());
    mesh.run().await;
    let service = edge("services");
    mesh.state().objects.get_mut(&service).unwrap()["spec"]["ports"] = json!([]);
    let message = "Service \"edge\" is invalid: spec.loadBalancerClass: may not change once set";
    mesh.state().refusals.push((format!("PATCH {service}"), 422, message.to_owned()));
    let (_, writes) = mesh.run().await;
    assert!(!writes.iter().any(|write| write.starts_with("DELETE")), "{writes:?}");
    mesh.says("GatewaysReady", "False", "ImmutableField", &["loadBalancerClass"]);
    heals(&mesh).await;
}

/// One gateway that cannot be built holds up no other, and what it has stays.
#[tokio::test]
async fn a_gateway_port_twice() {
    let mesh = Fixture::new(&two_gateways());
    mesh.run().await;
    let before = mesh.state().objects[&edge("services")].clone();
    let port = |name: &str, port: i32| json!({"name": name, "port": port});
    let mut spec = two_gateways();
    spec["gateways"][0]["ports"] = json!([port("a", 80), port("b", 80)]);
    spec["gateways"][1]["ports"] = json!([port("c", 81)]);
    mesh.set_spec(&spec);
    let (_, writes) = mesh.run().await;
    assert!(!writes.iter().any(|write| write.starts_with("DELETE")), "{writes:?}");
    assert_eq!(mesh.state().objects[&edge("services")], before);
    let inner = format!("/api/v1/namespaces/{SYSTEM}/services/inner");
    assert_eq!(mesh.state().objects[&inner]["spec"]["ports"][0]["port"], 81);
    mesh.says("SpecAccepted", "False", "Invalid", &["spec.gateways[0].ports[1].port"]);
    mesh.says("GatewaysReady", "False", "Invalid", &["spec.gateways[0]"]);
    mesh.set_spec(&two_gateways());
    heals(&mesh).await;
    mesh.says("SpecAccepted", "True", "Valid", &[]);
}

#[tokio::test]
async fn what_is_invalid_as_a_whole_is_said_and_nothing_is_touched() {
    for (spec, field) in [
        (json!({"proxy": {"certificateTtl": "1s"}}), "spec.proxy.certificateTtl"),
        (
            json!({"controlPlane": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}}),
            "spec.controlPlane.resources.requests.cpu",
        ),
    ] {
        let mesh = Fixture::new(&spec);
        let (error, writes) = mesh.run().await;
        assert!(error.unwrap().contains(field));
        assert_eq!(writes, [format!("PATCH {PATH}/status")]);
        mesh.says("Degraded", "True", "Invalid", &[field]);
        mesh.says("SpecAccepted", "False", "Invalid", &[field]);
        mesh.set_spec(&json!({}));
        heals(&mesh).await;
    }
}

/// A spec that a newer version wrote.
#[tokio::test]
async fn a_spec_that_cannot_be_read() {
    let mesh = Fixture::new(&json!({}));
    mesh.run().await;
    mesh.make_available();
    mesh.run().await;
    let before = mesh.objects();
    mesh.set_spec(&json!({"profile": "enormous"}));
    let (error, writes) = mesh.run().await;
    assert!(error.unwrap().contains("enormous"));
    assert_eq!(writes, [format!("PATCH {PATH}/status")], "all that runs goes on");
    mesh.says("Degraded", "True", "Unreadable", &["enormous"]);
    mesh.says("Ready", "False", "Unreadable", &[]);
    let status = mesh.state().objects[PATH]["status"].clone();
    assert_eq!(status["version"], before[PATH]["status"]["version"], "what was known stays");
    assert_eq!(mesh.run().await.1, Vec::<String>::new(), "said once");
    mesh.set_spec(&json!({}));
    heals(&mesh).await;
}

#[tokio::test]
async fn fields_of_a_newer_version_are_named() {
    let mesh = Fixture::new(&json!({"proxy": {"teleport": true}, "ambient": {}}));
    assert_eq!(mesh.run().await.0, None);
    mesh.says("SpecAccepted", "False", "UnknownFields", &["spec.proxy.teleport", "spec.ambient"]);
    mesh.set_spec(&json!({}));
    heals(&mesh).await;
}

/// Two that want the same revision: the older one goes on, the younger one says why it does not.
#[tokio::test]
async fn conflicting_revisions() {
    let mesh = Fixture::new(&json!({}));
    let mut older = crate::fixture::installation(&json!({}));
    older["metadata"]["name"] = json!("older");
    older["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let older = std::sync::Arc::new(serde_json::from_value(older).unwrap());
    let known =
        meshwright::webhook::server::Installations { objects: vec![older], ..Default::default() };
    mesh.context.installations.store(std::sync::Arc::new(known));
    let (error, writes) = mesh.run().await;
    assert!(error.unwrap().contains("spec.revision"));
    assert_eq!(writes, [format!("PATCH {PATH}/status")]);
    mesh.says("Degraded", "True", "Invalid", &["MeshInstallation older has revision default"]);
    mesh.context.installations.store(std::sync::Arc::default());
    heals(&mesh).await;
}
