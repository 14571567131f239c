//! The calls that a rollout of proxies makes, against an API server in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;

use std::sync::{Arc, Mutex};

use api_server::State;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, runtime::watcher};
use meshwright::{
    api::meshwright::{MeshInstallation, RolloutPhase, RolloutStatus},
    operator::{
        context::Context,
        platform::{Platform, WebhookEndpoint},
        rollout::{self},
    },
    webhook::server::Installations,
};
use serde_json::{Value, json};

const PATH: &str = "/apis/meshwright.dev/v1alpha1/meshinstallations/default";
const OLD: &str = "registry.test/meshwright-proxy:1";
const NEW: &str = "registry.test/meshwright-proxy:2";

/// A cluster of Deployments named `web`, each in a namespace of its own, with two pods each.
struct Cluster {
    client: Client,
    state: Arc<Mutex<State>>,
    context: Context,
}

impl Cluster {
    fn new(fleet: &Value, namespaces: &[&str]) -> Self {
        let (client, state) = api_server::start();
        let mut policy = json!({"waveSize": 1, "pause": "0s"});
        json_patch::merge(&mut policy, fleet);
        let installation = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": "default", "uid": "u-1", "generation": 1},
            "spec": {"version": "2", "fleet": policy},
            "status": {
                "observedGeneration": 1, "version": "2",
                "conditions": [{"type": "ControlPlaneReady", "status": "True", "reason": "Available",
                                "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            },
        });
        state.lock().unwrap().objects.insert(PATH.to_owned(), installation);
        for namespace in namespaces {
            let mut state = state.lock().unwrap();
            state.objects.insert(deployment_path(namespace), deployment(namespace));
            for name in ["web-1", "web-2"] {
                state.objects.insert(pod_path(namespace, name), pod(namespace, name, OLD));
            }
        }
        let context = context(client.clone());
        Self { client, state, context }
    }

    /// Another operator comes to lead.
    fn take_over(&mut self) {
        self.context = context(self.client.clone());
    }

    fn change(&self, path: &str, change: &Value) {
        let mut state = self.state.lock().unwrap();
        json_patch::merge(state.objects.get_mut(path).unwrap(), change);
    }

    fn object(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects[path].clone()
    }

    /// One look, with the fleet as it is now; what was written, but for events.
    async fn look(&self) -> Vec<String> {
        let installation: MeshInstallation = serde_json::from_value(self.object(PATH)).unwrap();
        self.context.installations.store(Arc::new(Installations {
            objects: vec![Arc::new(installation)],
            ..Installations::default()
        }));
        let pods: Vec<Value> = {
            let state = self.state.lock().unwrap();
            let pods = state.objects.iter().filter(|(path, _)| path.contains("/pods/"));
            pods.map(|(_, pod)| pod.clone()).collect()
        };
        self.context.fleet.see(watcher::Event::Init);
        for pod in pods {
            let pod = serde_json::from_value(pod).unwrap();
            self.context.fleet.see(watcher::Event::InitApply(pod));
        }
        self.context.fleet.see(watcher::Event::InitDone);
        rollout::look(&self.context).await;
        std::mem::take(&mut self.state.lock().unwrap().writes)
    }

    /// What the reconciliation of the installation does.
    fn store(&self) {
        let published = self.context.rollouts.or("default", None);
        self.change(PATH, &json!({"status": {"rollout": null}}));
        self.change(PATH, &json!({"status": {"rollout": published}}));
    }

    async fn look_and_store(&self) -> Vec<String> {
        let writes = self.look().await;
        self.store();
        writes
    }

    fn status(&self) -> RolloutStatus {
        let rollout = self.object(PATH)["status"]["rollout"].clone();
        serde_json::from_value(rollout).unwrap()
    }

    /// What the Deployment's controller does after a restart.
    fn roll_out(&self, namespace: &str) {
        for name in ["web-1", "web-2"] {
            let path = pod_path(namespace, name);
            let pod = pod(namespace, name, NEW);
            self.state.lock().unwrap().objects.insert(path, pod);
        }
    }

    fn reasons(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let reason = |event: &Value| event["reason"].as_str().unwrap().to_owned();
        state.events.iter().map(reason).collect()
    }
}

fn context(client: Client) -> Context {
    let platform = Platform {
        namespace: "meshwright-system".to_owned(),
        image_registry: "registry.test".to_owned(),
        image_tag: "1".to_owned(),
        image_pull_policy: "Never".to_owned(),
        webhook: WebhookEndpoint::Service,
    };
    Context::new(client, platform)
}

fn deployment_path(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments/web")
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": "web", "generation": 1},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}}},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
                   "availableReplicas": 2},
    })
}

fn pod(namespace: &str, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
            "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f", "meshwright.dev/revision": "default"},
            "annotations": {"meshwright.dev/status": "{}"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f",
                                 "uid": "r", "controller": true}],
        },
        "spec": {
            "initContainers": [{"name": "meshwright-proxy", "image": image,
                                "restartPolicy": "Always", "readinessProbe": {}}],
            "containers": [{"name": "web"}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True",
                            "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            "initContainerStatuses": [proxy_status("containerd://1", true)],
        },
    })
}

fn proxy_status(id: &str, ready: bool) -> Value {
    json!({"name": "meshwright-proxy", "ready": ready, "restartCount": 0, "image": "",
           "imageID": "", "containerID": id, "state": {"running": {}}})
}

fn restart(namespace: &str) -> Vec<String> {
    vec![format!("PATCH {}", deployment_path(namespace))]
}

const NOTHING: Vec<String> = Vec::new();

#[tokio::test]
async fn a_rolling_upgrade_makes_these_calls_and_no_others() {
    let cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a", "b"]);
    assert_eq!(cluster.look_and_store().await, NOTHING, "the wave is written down first");
    let status = cluster.status();
    assert_eq!((status.phase, status.wave, status.waves), (RolloutPhase::Rolling, 1, 2));
    assert_eq!(status.workloads, ["Deployment a/web"]);
    assert_eq!((status.version.as_str(), status.image.as_str()), ("2", NEW));

    assert_eq!(cluster.look_and_store().await, restart("a"));
    let annotations =
        cluster.object(&deployment_path("a"))["spec"]["template"]["metadata"]["annotations"]
            .clone();
    assert_eq!(annotations["meshwright.dev/restarted-for"], NEW);
    assert!(annotations["meshwright.dev/restarted-at"].is_string());

    // It is on its way.
    cluster.change(&deployment_path("a"), &json!({"metadata": {"generation": 2}}));
    assert_eq!(cluster.look_and_store().await, NOTHING);
    assert!(cluster.status().message.contains("has not seen its last change"));

    cluster.change(&deployment_path("a"), &json!({"status": {"observedGeneration": 2}}));
    cluster.roll_out("a");
    while cluster.status().wave == 1 {
        assert_eq!(cluster.look_and_store().await, NOTHING);
    }
    assert_eq!(cluster.status().summary, "2/4");
    assert_eq!(cluster.look_and_store().await, restart("b"));
    cluster.roll_out("b");
    while cluster.status().phase == RolloutPhase::Rolling {
        assert_eq!(cluster.look_and_store().await, NOTHING);
    }
    let status = cluster.status();
    assert_eq!((status.phase, status.summary.as_str()), (RolloutPhase::Done, "4/4"));
    assert_eq!(cluster.look_and_store().await, NOTHING, "it is over");
    let expected = [
        "RolloutWaveStarted",
        "RolloutWaveReady",
        "RolloutWaveStarted",
        "RolloutWaveReady",
        "RolloutDone",
    ];
    assert_eq!(cluster.reasons(), expected);
}

#[tokio::test]
async fn what_is_not_stored_is_not_done() {
    let cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a"]);
    for _ in 0..3 {
        assert_eq!(cluster.look().await, NOTHING);
    }
    cluster.store();
    assert_eq!(cluster.look().await, restart("a"));
}

#[tokio::test]
async fn another_operator_goes_on_where_the_first_one_was() {
    let mut cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a", "b"]);
    cluster.look_and_store().await;
    // Before the restart: the second one does it.
    cluster.take_over();
    assert_eq!(cluster.look_and_store().await, restart("a"));
    // After it: nobody does it again.
    cluster.take_over();
    cluster.change(&deployment_path("a"), &json!({"metadata": {"generation": 2}}));
    assert_eq!(cluster.look_and_store().await, NOTHING);
    assert_eq!((cluster.status().wave, cluster.status().phase), (1, RolloutPhase::Rolling));
}

#[tokio::test]
async fn a_budget_without_room_is_honoured_and_named() {
    let cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a"]);
    let path = "/apis/policy/v1/namespaces/a/poddisruptionbudgets/keep";
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"namespace": "a", "name": "keep", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 2},
        "status": {"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2,
                   "disruptionsAllowed": 0, "expectedPods": 2},
    });
    cluster.state.lock().unwrap().objects.insert(path.to_owned(), budget);
    for _ in 0..3 {
        assert_eq!(cluster.look_and_store().await, NOTHING);
    }
    assert_eq!(cluster.status().phase, RolloutPhase::Waiting);
    let message = cluster.status().message;
    assert!(message.contains("PodDisruptionBudget a/keep allows no disruption"), "{message}");
    cluster.change(path, &json!({"status": {"disruptionsAllowed": 1}}));
    cluster.look_and_store().await;
    assert_eq!(cluster.look_and_store().await, restart("a"));
}

#[tokio::test]
async fn a_wave_that_fails_stops_says_why_and_goes_on_when_told() {
    let cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a", "b"]);
    cluster.look_and_store().await;
    cluster.look_and_store().await;
    cluster.change(&deployment_path("a"), &json!({"status": {"updatedReplicas": 1}}));
    let mut broken = pod("a", "web-3", NEW);
    // Made by the restart; the restart has the clock's time.
    broken["metadata"]["creationTimestamp"] = json!(Timestamp::now().to_string());
    broken["status"]["conditions"][0]["status"] = json!("False");
    broken["status"]["initContainerStatuses"][0]["ready"] = json!(false);
    broken["status"]["initContainerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    cluster.state.lock().unwrap().objects.insert(pod_path("a", "web-3"), broken);
    for _ in 0..3 {
        assert_eq!(cluster.look_and_store().await, NOTHING, "nothing more is touched");
    }
    let status = cluster.status();
    assert_eq!((status.phase, status.wave), (RolloutPhase::Stopped, 1));
    for part in ["Deployment a/web", "pod a/web-3", "ImagePullBackOff: no such image"] {
        assert!(status.message.contains(part), "{part} is missing in {}", status.message);
    }
    assert_eq!(cluster.reasons(), ["RolloutWaveStarted", "RolloutStopped"]);
    let resume = json!({"metadata": {"annotations": {"meshwright.dev/resume-rollout": "1"}}});
    cluster.change(PATH, &resume);
    cluster.look_and_store().await;
    assert_eq!((cluster.status().phase, cluster.status().wave), (RolloutPhase::Rolling, 2));
}

#[tokio::test]
async fn in_place_touches_pods_and_not_their_owners() {
    let cluster = Cluster::new(&json!({"strategy": "InPlace"}), &["a"]);
    cluster.look_and_store().await;
    let (first, second) = (pod_path("a", "web-1"), pod_path("a", "web-2"));
    assert_eq!(cluster.look_and_store().await, [format!("PATCH {first}")]);
    assert!(
        cluster.object(&first)["metadata"]["annotations"]["meshwright.dev/out-of-service"]
            .is_string()
    );
    assert_eq!(cluster.look_and_store().await, NOTHING, "it leaves service");

    cluster.change(
        &first,
        &json!({"status": {
            "conditions": [{"type": "Ready", "status": "False",
                            "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            "initContainerStatuses": [proxy_status("containerd://1", false)],
        }}),
    );
    assert_eq!(cluster.look_and_store().await, [format!("PATCH {first}")]);
    let patched = cluster.object(&first);
    assert_eq!(patched["spec"]["initContainers"][0]["image"], NEW);
    let replaced = patched["metadata"]["annotations"]["meshwright.dev/replaced"].as_str().unwrap();
    assert!(replaced.contains(OLD) && replaced.contains("containerd://1"), "{replaced}");
    assert_eq!(cluster.look_and_store().await, NOTHING, "the new proxy starts");

    let mut renewed = pod("a", "web-1", NEW);
    renewed["metadata"]["annotations"] = patched["metadata"]["annotations"].clone();
    renewed["status"]["initContainerStatuses"] = json!([proxy_status("containerd://2", true)]);
    cluster.state.lock().unwrap().objects.insert(first.clone(), renewed);
    assert_eq!(cluster.look_and_store().await, [format!("PATCH {first}")], "it comes back");
    assert_eq!(
        cluster.object(&first)["metadata"]["annotations"],
        json!({"meshwright.dev/status": "{}"})
    );
    assert_eq!(cluster.look_and_store().await, [format!("PATCH {second}")], "then the next");
}

#[tokio::test]
async fn pods_come_back_when_nobody_asks_for_a_rollout_any_more() {
    let cluster = Cluster::new(&json!({"strategy": "InPlace"}), &["a"]);
    cluster.look_and_store().await;
    cluster.look_and_store().await;
    cluster.change(PATH, &json!({"spec": {"fleet": {"strategy": "OnRestart"}}}));
    let path = pod_path("a", "web-1");
    assert_eq!(cluster.look_and_store().await, [format!("PATCH {path}")]);
    assert_eq!(cluster.look_and_store().await, NOTHING);
    assert_eq!(cluster.object(PATH)["status"]["rollout"], Value::Null);
    assert_eq!(
        cluster.object(&path)["metadata"]["annotations"],
        json!({"meshwright.dev/status": "{}"})
    );
}

#[tokio::test]
async fn proxies_do_not_lead_their_control_plane() {
    let cluster = Cluster::new(&json!({"strategy": "Rolling"}), &["a"]);
    cluster.change(PATH, &json!({"status": {"version": "1"}}));
    for _ in 0..3 {
        assert_eq!(cluster.look_and_store().await, NOTHING);
    }
    assert_eq!(cluster.status().message, "the control plane does not run version 2 yet");
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_looked_at() {
    let cluster = Cluster::new(&json!({}), &["a"]);
    assert_eq!(cluster.look().await, NOTHING);
    let known = RolloutStatus { wave: 7, ..RolloutStatus::default() };
    let kept = cluster.context.rollouts.or("default", Some(&known));
    assert_eq!(kept, Some(known), "what is known stays");
}
