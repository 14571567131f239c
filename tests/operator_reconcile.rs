//! The calls that a reconciliation makes, against an API server in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;
#[path = "operator/bad_input.rs"]
mod bad_input;
#[path = "operator/fixture.rs"]
mod fixture;
#[path = "operator/interruption.rs"]
mod interruption;

use fixture::{CONTROL_PLANE, Fixture, PATH, SYSTEM, installation};
use kube::core::DeserializeGuard;
use meshwright::{
    api::meshwright::MeshInstallation,
    operator::installation::{error_policy, reconcile},
};
use serde_json::{Value, json};

#[tokio::test]
async fn the_finalizer_comes_first() {
    let mesh = Fixture::new(&json!({}));
    mesh.state().objects.get_mut(PATH).unwrap()["metadata"]["finalizers"] = Value::Null;
    let (error, writes) = mesh.run().await;
    assert_eq!((error, writes), (None, vec![format!("PATCH {PATH}")]));
}

#[tokio::test]
async fn applies_in_order_and_then_writes_nothing() {
    let mesh = Fixture::new(&json!({"gateways": [{"name": "ingress"}]}));
    let (error, writes) = mesh.run().await;
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
    assert_eq!(mesh.condition("Ready")["status"], "False");
    assert_eq!(mesh.condition("Progressing")["reason"], "RollingOut");

    // However often somebody looks, nothing is written.
    for _ in 0..20 {
        let (error, writes) = mesh.run().await;
        assert_eq!((error, writes), (None, vec![]), "a settled installation writes nothing");
    }

    // A gateway that is not wanted any more goes, with all that belongs to it.
    mesh.set_spec(&json!({}));
    let (_, writes) = mesh.run().await;
    let deleted: Vec<_> = writes.iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted.len(), 3, "{deleted:?}");
    assert!(deleted.iter().all(|write| write.ends_with("/ingress")), "{deleted:?}");
}

/// Exactly these calls, however many gateways there are.
#[tokio::test]
async fn an_unchanged_installation_costs_one_list_for_each_kind() {
    let gateways: Vec<_> = (0..5).map(|n| json!({"name": format!("g{n}")})).collect();
    let mesh = Fixture::new(&json!({"gateways": gateways}));
    mesh.run().await;
    mesh.make_available();
    mesh.run().await;
    mesh.state().calls.clear();
    mesh.run().await;
    let expected = [
        "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/meshwright-operator",
        "GET /apis/meshwright.dev/v1alpha1/meshinstallations/default",
        "GET /api/v1/namespaces/meshwright-system/secrets/meshwright-webhook-tls",
        "GET /api/v1/namespaces/meshwright-system/secrets/meshwright-ca",
        "GET /api/v1/serviceaccounts",
        "GET /apis/rbac.authorization.k8s.io/v1/clusterroles",
        "GET /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "GET /apis/rbac.authorization.k8s.io/v1/roles",
        "GET /apis/rbac.authorization.k8s.io/v1/rolebindings",
        "GET /api/v1/services",
        "GET /apis/apps/v1/deployments",
        "GET /apis/autoscaling/v2/horizontalpodautoscalers",
        "GET /apis/policy/v1/poddisruptionbudgets",
        "GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "GET /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    ];
    assert_eq!(mesh.state().calls, expected);
}

#[tokio::test]
async fn drift_is_repaired() {
    let mesh = Fixture::new(&json!({}));
    mesh.run().await;
    mesh.state().objects.get_mut(CONTROL_PLANE).unwrap()["spec"]["replicas"] = json!(0);
    let (_, writes) = mesh.run().await;
    assert_eq!(writes, [format!("PATCH {CONTROL_PLANE}")]);
    assert_eq!(mesh.state().objects[CONTROL_PLANE]["spec"]["replicas"], 1);
}

/// Each child that is deleted comes back, and nothing else is touched.
#[tokio::test]
async fn whatever_is_deleted_comes_back() {
    let spec = json!({"profile": "ha", "gateways": [{"name": "edge", "namespace": "edge"}]});
    let mesh = Fixture::new(&spec);
    mesh.run().await;
    let before = mesh.objects();
    let children: Vec<_> = before.keys().filter(|path| *path != PATH).cloned().collect();
    assert!(children.len() >= 12, "{children:?}");
    for child in children {
        mesh.state().objects.remove(&child);
        let (error, writes) = mesh.run().await;
        assert_eq!((error, writes), (None, vec![format!("PATCH {child}")]));
    }
    assert_eq!(mesh.objects(), before);
}

/// Fields, items and labels that others add stay, through a drift of ours and a change of the spec.
#[tokio::test]
async fn what_others_own_stays() {
    let mesh = Fixture::new(&json!({}));
    mesh.run().await;
    {
        let mut state = mesh.state();
        let deployment = state.objects.get_mut(CONTROL_PLANE).unwrap();
        deployment["metadata"]["annotations"]["theirs"] = json!("a");
        deployment["metadata"]["labels"]["theirs"] = json!("b");
        deployment["spec"]["minReadySeconds"] = json!(7);
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["containers"].as_array_mut().unwrap().push(json!({"name": "theirs", "image": "x"}));
    }
    assert_eq!(mesh.run().await, (None, vec![]), "additions of others are no drift");
    mesh.state().objects.get_mut(CONTROL_PLANE).unwrap()["spec"]["replicas"] = json!(5);
    mesh.run().await;
    mesh.set_spec(&json!({"version": "2"}));
    mesh.run().await;
    let deployment = mesh.state().objects[CONTROL_PLANE].clone();
    assert_eq!(deployment["metadata"]["annotations"]["theirs"], "a");
    assert_eq!(deployment["metadata"]["labels"]["theirs"], "b");
    assert_eq!(deployment["spec"]["minReadySeconds"], 7);
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0]["image"], "registry.test/meshwright:2");
    assert_eq!(deployment["spec"]["replicas"], 1);
}

/// The number of pods that run is not reset to one while the autoscaler takes over.
#[tokio::test]
async fn autoscaling_takes_over_what_runs() {
    let mesh = Fixture::new(&json!({"controlPlane": {"replicas": 3}}));
    mesh.run().await;
    let entry = json!({
        "manager": "meshwright-operator", "operation": "Apply",
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
    });
    mesh.state().objects.get_mut(CONTROL_PLANE).unwrap()["metadata"]["managedFields"] =
        json!([entry]);
    let scaled = json!({"controlPlane": {"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}});
    mesh.set_spec(&scaled);
    let (_, writes) = mesh.run().await;
    let deployment = format!("PATCH {CONTROL_PLANE}");
    assert_eq!(writes[..2], [deployment.clone(), deployment], "kept, then given up");
    let autoscaler = format!(
        "/apis/autoscaling/v2/namespaces/{SYSTEM}/horizontalpodautoscalers/meshwright-control-plane"
    );
    assert!(mesh.state().objects.contains_key(&autoscaler));
    // And back.
    mesh.set_spec(&json!({}));
    let (_, writes) = mesh.run().await;
    assert!(writes.contains(&format!("DELETE {autoscaler}")), "{writes:?}");
    assert_eq!(mesh.state().objects[CONTROL_PLANE]["spec"]["replicas"], 1);
}

#[tokio::test]
async fn readiness_follows_the_deployments() {
    let mesh = Fixture::new(&json!({}));
    mesh.run().await;
    mesh.make_available();
    let (_, writes) = mesh.run().await;
    assert_eq!(writes, [format!("PATCH {PATH}/status")]);
    assert_eq!(mesh.condition("Ready")["status"], "True");
    assert_eq!(mesh.condition("Degraded")["status"], "False");
    assert_eq!(mesh.condition("SpecAccepted")["status"], "True");
    let reasons: Vec<_> = mesh.state().events.iter().map(|event| event["reason"].clone()).collect();
    assert!(reasons.contains(&json!("Ready")), "{reasons:?}");
}

#[tokio::test]
async fn certificates_are_in_the_status() {
    let mesh = Fixture::new(&json!({}));
    let now = time::OffsetDateTime::now_utc();
    let bundle = meshwright::webhook::certificate::Bundle::issue(
        &["meshwright-operator.meshwright-system.svc".to_owned()].into(),
        now,
        None,
    )
    .unwrap();
    let data = json!({"tls.crt": k8s_openapi::ByteString(bundle.certificate.into_bytes())});
    let path = format!("/api/v1/namespaces/{SYSTEM}/secrets/meshwright-webhook-tls");
    mesh.state().objects.insert(path, json!({"metadata": {"name": "x"}, "data": data}));
    mesh.run().await;
    let status = mesh.state().objects[PATH]["status"].clone();
    assert_eq!(status["certificates"][0]["name"], "webhook");
    assert!(status["certificates"][0]["notAfter"].as_str().unwrap().starts_with("20"));
    assert_eq!(mesh.condition("CertificatesValid")["status"], "True");
}

#[tokio::test]
async fn a_refusal_is_tried_again_later_and_later() {
    let mesh = Fixture::new(&json!({}));
    mesh.state().forbidden.push("/deployments/".to_owned());
    let object: DeserializeGuard<MeshInstallation> =
        serde_json::from_value(installation(&json!({}))).unwrap();
    let object = std::sync::Arc::new(object);
    let context = mesh.context.clone();
    let error = reconcile(object.clone(), context.clone()).await.unwrap_err();
    let again = |error| format!("{:?}", error_policy(object.clone(), error, context.clone()));
    assert!(again(&error).contains("1s") && again(&error).contains("2s"));
    for _ in 0..9 {
        again(&error);
    }
    assert!(again(&error).contains("30s"), "{}", again(&error));
}

#[tokio::test]
async fn webhook_configurations_go_before_anything_else() {
    let mesh = Fixture::new(&json!({}));
    mesh.run().await;
    mesh.state().objects.get_mut(PATH).unwrap()["metadata"]["deletionTimestamp"] =
        json!("2026-01-01T00:00:00Z");
    let (error, writes) = mesh.run().await;
    assert_eq!(error, None);
    let deleted: Vec<_> = writes.iter().filter_map(|write| write.strip_prefix("DELETE ")).collect();
    let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/meshwright-injector-default";
    assert_eq!(deleted[..2], [webhook, CONTROL_PLANE]);
    let finalizer = format!("PATCH {PATH}");
    assert_eq!(writes.last(), Some(&finalizer), "all is gone before it is released");
}
