//! What the operator makes of Gateways of the Gateway API, and the calls that it takes, against an API
//! server in memory. `golden/operator/gateway-api/CASE.in.yaml` becomes `CASE.out.yaml`, which is all
//! that was made and the Gateway's status; `MESHWRIGHT_UPDATE=1` rewrites the latter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;

use std::{
    env, fs,
    path::Path,
    sync::{Arc, Mutex},
};

use api_server::State;
use arc_swap::ArcSwap;
use k8s_openapi::api::apps::v1::Deployment;
use kube::core::DeserializeGuard;
use meshwright::{
    api::{
        gateway::{Gateway, GatewayClass},
        meshwright::{MeshInstallation, MeshInstallationSpec},
    },
    operator::{
        context::Context,
        gateway_api::{Gateways, reconcile},
        platform::{Platform, WebhookEndpoint},
    },
    webhook::server::Installations,
};
use serde_json::{Value, json};

const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/web";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web-meshwright";
const SERVICE: &str = "/api/v1/namespaces/shop/services/web-meshwright";
const ACCOUNT: &str = "/api/v1/namespaces/shop/serviceaccounts/web-meshwright";
const SCALER: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web-meshwright";
const SIZES: &str = "/api/v1/namespaces/shop/configmaps/sizes";

struct Cluster {
    gateways: Arc<Gateways>,
    state: Arc<Mutex<State>>,
}

impl Cluster {
    fn start() -> Self {
        let (client, state) = api_server::start();
        let mut installation = MeshInstallation::new("default", MeshInstallationSpec::default());
        installation.metadata.uid = Some("m-1".to_owned());
        let installations =
            Installations { objects: vec![Arc::new(installation)], ..Installations::default() };
        let context = Arc::new(Context {
            installations: Arc::new(ArcSwap::from_pointee(installations)),
            ..Context::new(
                client,
                Platform {
                    namespace: "meshwright-system".to_owned(),
                    image_registry: "registry.test".to_owned(),
                    image_tag: "1.2.3".to_owned(),
                    image_pull_policy: "IfNotPresent".to_owned(),
                    webhook: WebhookEndpoint::Service,
                },
            )
        });
        let cluster = Self { gateways: Gateways::new(context), state };
        cluster.class("meshwright", "meshwright.dev/gateway-controller");
        cluster
    }

    fn class(&self, name: &str, controller: &str) {
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": name}, "spec": {"controllerName": controller},
        });
        self.gateways.class_seen(&serde_json::from_value::<GatewayClass>(class).unwrap());
    }

    fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    fn get(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.state.lock().unwrap().objects.get_mut(path).unwrap());
    }

    /// Reconciles the stored Gateway; the error's text, if any, and what was written.
    async fn run(&self) -> (Option<String>, Vec<String>) {
        let object: DeserializeGuard<Gateway> = serde_json::from_value(self.get(GATEWAY)).unwrap();
        let outcome = reconcile(Arc::new(object), self.gateways.clone()).await;
        let writes = std::mem::take(&mut self.state.lock().unwrap().writes);
        (outcome.err().map(|error| error.to_string()), writes)
    }

    /// `TYPE=STATUS/REASON MESSAGE` of the Gateway's conditions.
    fn conditions(&self) -> Vec<String> {
        let conditions = self.get(GATEWAY)["status"]["conditions"].clone();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        let line = |c: &Value| {
            format!(
                "{}={}/{} {}",
                text(c, "type"),
                text(c, "status"),
                text(c, "reason"),
                text(c, "message")
            )
        };
        conditions.as_array().into_iter().flatten().map(line).collect()
    }

    /// The cluster's own controllers do their work.
    fn serve(&self) {
        self.change(DEPLOYMENT, |deployment| {
            deployment["status"] = json!({"availableReplicas": 1});
        });
        self.change(SERVICE, |service| {
            service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        });
        let read = |path| serde_json::from_value(self.get(path)).unwrap();
        self.gateways.child_seen(&read(DEPLOYMENT) as &Deployment);
        self.gateways.child_seen(
            &serde_json::from_value::<k8s_openapi::api::core::v1::Service>(self.get(SERVICE))
                .unwrap(),
        );
    }
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g-1", "generation": 1},
        "spec": {
            "gatewayClassName": "meshwright",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    })
}

fn with_parameters() -> Value {
    let mut gateway = gateway();
    gateway["spec"]["infrastructure"] =
        json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "sizes"}});
    gateway
}

fn config_map(data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "sizes", "namespace": "shop"}, "data": data,
    })
}

fn patches(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| format!("PATCH {path}")).collect()
}

/// The path of an object.
fn path(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind").to_lowercase());
    let root = if version.contains('/') { "/apis" } else { "/api" };
    format!(
        "{root}/{version}/namespaces/{}/{kind}s/{}",
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

#[tokio::test]
async fn objects_are_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/operator/gateway-api");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let Some(case) = file.file_name().unwrap().to_str().unwrap().strip_suffix(".in.yaml")
        else {
            continue;
        };
        cases += 1;
        let cluster = Cluster::start();
        let given: Vec<Value> =
            serde_saphyr::from_multiple(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut before = Vec::new();
        for object in given {
            if object["kind"] == "GatewayClass" {
                cluster.gateways.class_seen(&serde_json::from_value(object).unwrap());
                continue;
            }
            before.push(path(&object));
            cluster.put(&path(&object), object);
        }
        let (error, _) = cluster.run().await;
        assert_eq!(error, None, "{case}");
        let mut text = String::new();
        for (path, mut object) in cluster.state.lock().unwrap().objects.clone() {
            if path == GATEWAY {
                object = json!({"kind": "Gateway", "status": object["status"]});
                for condition in object["status"]["conditions"].as_array_mut().unwrap() {
                    condition.as_object_mut().unwrap().remove("lastTransitionTime");
                }
            } else if before.contains(&path) {
                continue;
            }
            if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
                annotations.as_object_mut().unwrap().remove("meshwright.dev/applied");
            }
            text.push_str("---\n");
            text.push_str(serde_saphyr::to_string(&object).unwrap().trim_end());
            text.push('\n');
        }
        let golden = folder.join(format!("{case}.out.yaml"));
        if env::var_os("MESHWRIGHT_UPDATE").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), text, "{case}");
    }
    assert!(cases >= 6, "only {cases} cases were found");
}

#[tokio::test]
async fn applies_in_order_and_then_writes_nothing() {
    let cluster = Cluster::start();
    cluster.put(GATEWAY, gateway());
    let status = format!("{GATEWAY}/status");
    let (error, writes) = cluster.run().await;
    assert_eq!((error, writes), (None, patches(&[ACCOUNT, SERVICE, DEPLOYMENT, &status])));
    assert!(cluster.conditions()[0].starts_with("Programmed=False/AddressNotAssigned"));
    assert_eq!(cluster.run().await, (None, vec![]), "a settled Gateway writes nothing");

    cluster.serve();
    assert_eq!(cluster.run().await, (None, patches(&[&status])));
    assert!(cluster.conditions()[0].starts_with("Programmed=True/Programmed"));
    assert_eq!(cluster.get(GATEWAY)["status"]["addresses"][0]["value"], "192.0.2.1");
    assert_eq!(cluster.run().await, (None, vec![]));
}

#[tokio::test]
async fn what_is_deleted_or_changed_comes_back() {
    let cluster = Cluster::start();
    cluster.put(GATEWAY, gateway());
    cluster.run().await;
    let deployment: Deployment = serde_json::from_value(cluster.get(DEPLOYMENT)).unwrap();
    cluster.state.lock().unwrap().objects.remove(DEPLOYMENT);
    cluster.gateways.child_gone(&deployment);
    assert_eq!(cluster.run().await, (None, patches(&[DEPLOYMENT])));

    cluster.change(DEPLOYMENT, |deployment| deployment["spec"]["replicas"] = json!(5));
    let changed: Deployment = serde_json::from_value(cluster.get(DEPLOYMENT)).unwrap();
    cluster.gateways.child_seen(&changed);
    assert_eq!(cluster.run().await, (None, patches(&[DEPLOYMENT])));
    assert_eq!(cluster.get(DEPLOYMENT)["spec"]["replicas"], 1);
    // What others add is theirs.
    cluster
        .change(DEPLOYMENT, |deployment| deployment["metadata"]["annotations"]["x"] = json!("y"));
    let changed: Deployment = serde_json::from_value(cluster.get(DEPLOYMENT)).unwrap();
    cluster.gateways.child_seen(&changed);
    assert_eq!(cluster.run().await, (None, vec![]));
}

#[tokio::test]
async fn parameters_come_late_break_and_heal() {
    let cluster = Cluster::start();
    cluster.put(GATEWAY, with_parameters());
    let status = format!("{GATEWAY}/status");
    assert_eq!(cluster.run().await, (None, patches(&[&status])), "nothing is made of half of it");
    let conditions = cluster.conditions();
    let expected = "Accepted=False/InvalidParameters spec.infrastructure.parametersRef: there is no \
                    ConfigMap shop/sizes: create it";
    assert!(conditions[0].starts_with(expected), "{conditions:?}");
    assert_eq!(cluster.run().await, (None, vec![]));

    let good = json!({"horizontalPodAutoscaler": "spec: {minReplicas: 2}"});
    cluster.put(SIZES, config_map(&good));
    cluster.gateways.parameters_changed("shop", "sizes");
    let (_, writes) = cluster.run().await;
    assert_eq!(writes, patches(&[ACCOUNT, SERVICE, DEPLOYMENT, SCALER, BUDGET, &status]));
    // The control plane has the word again.
    let conditions = cluster.conditions();
    assert!(conditions.iter().any(|c| c.starts_with("Accepted=Unknown/Pending")), "{conditions:?}");

    let bad = json!({"deployment": "spec: {selector: {matchLabels: {a: b}}}"});
    cluster.put(SIZES, config_map(&bad));
    cluster.gateways.parameters_changed("shop", "sizes");
    assert_eq!(cluster.run().await, (None, patches(&[&status])), "what runs goes on");
    let conditions = cluster.conditions();
    let expected = "ConfigMap shop/sizes, key deployment, spec.selector: cannot be patched";
    assert!(conditions[0].contains(expected), "{conditions:?}");

    cluster.put(SIZES, config_map(&json!({})));
    cluster.gateways.parameters_changed("shop", "sizes");
    let (_, writes) = cluster.run().await;
    let mut deleted: Vec<_> = writes.iter().filter(|w| w.starts_with("DELETE")).collect();
    deleted.sort();
    assert_eq!(deleted, [&format!("DELETE {SCALER}"), &format!("DELETE {BUDGET}")]);
}

const BUDGET: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/web-meshwright";

#[tokio::test]
async fn what_somebody_else_made_is_never_taken_over() {
    let cluster = Cluster::start();
    cluster.put(GATEWAY, gateway());
    let own = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web-meshwright", "namespace": "shop"}, "spec": {"ports": []}});
    cluster.put(SERVICE, own.clone());
    let (error, _) = cluster.run().await;
    let message = "Service shop/web-meshwright is there already and was not made for this Gateway";
    assert!(error.unwrap().starts_with(message));
    assert!(cluster.conditions()[0].starts_with(&format!("Programmed=False/Invalid {message}")));
    assert_eq!(cluster.get(SERVICE), own);
    cluster.state.lock().unwrap().objects.remove(SERVICE);
    assert_eq!(cluster.run().await.0, None, "it heals");
}

#[tokio::test]
async fn a_class_of_somebody_else_takes_everything_away() {
    let cluster = Cluster::start();
    cluster.class("other", "example.com/other");
    cluster.put(GATEWAY, gateway());
    cluster.run().await;
    cluster.change(GATEWAY, |gateway| gateway["spec"]["gatewayClassName"] = json!("other"));
    let (error, mut writes) = cluster.run().await;
    writes.sort();
    let mut expected: Vec<_> =
        [ACCOUNT, SERVICE, DEPLOYMENT].iter().map(|path| format!("DELETE {path}")).collect();
    expected.push(format!("PATCH {GATEWAY}/status"));
    expected.sort();
    assert_eq!((error, writes), (None, expected));
    assert_eq!(cluster.run().await, (None, vec![]));
}

#[tokio::test]
async fn refusals_have_a_reason() {
    let cluster = Cluster::start();
    cluster.put(GATEWAY, gateway());
    cluster.state.lock().unwrap().forbidden.push("/deployments/".to_owned());
    let (error, _) = cluster.run().await;
    assert!(error.is_some());
    assert!(
        cluster.conditions()[0].starts_with("Programmed=False/Pending cannot apply Deployment")
    );
}
