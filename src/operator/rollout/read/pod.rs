//! What a pod says of its proxy.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;

use crate::{
    api::meshwright::labels::{OUT_OF_SERVICE, REPLACED},
    operator::{
        fleet::{
            image::{Pin, Wanted},
            pod::InjectedPod,
        },
        rollout::facts::{self, Container, List, PodRef},
    },
    webhook::inject::container::{PROXY_CONTAINER, REDIRECT_CONTAINER},
};

/// Reasons for which a container waits that will not go by themselves.
const BROKEN: [&str; 6] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// `None` for one that is over or on its way out.
pub(super) fn facts(pod: &Pod, wanted: &Wanted) -> Option<facts::Pod> {
    let status = pod.status.clone().unwrap_or_default();
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.type_ == "Ready");
    let ready = condition.is_some_and(|condition| condition.status == "True");
    let since = condition.and_then(|c| c.last_transition_time.as_ref()).map(|time| time.0);
    let annotation = |name: &str| pod.annotations().get(name);
    Some(facts::Pod {
        at: PodRef {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
        },
        created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
        ready,
        unready_since: since.filter(|_| !ready),
        address: status.pod_ip.clone().unwrap_or_default(),
        proxy: proxy(pod, wanted),
        // One that cannot be read was not written by us; the pod is touched as if for the first time.
        out_of_service: annotation(OUT_OF_SERVICE).and_then(|text| text.parse().ok()),
        replaced: annotation(REPLACED).and_then(|text| serde_json::from_str(text).ok()),
    })
}

fn proxy(pod: &Pod, wanted: &Wanted) -> Option<Container> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let lists = [(List::InitContainers, init), (List::Containers, &spec.containers)];
    let (list, container) = lists.into_iter().find_map(|(list, containers)| {
        Some((list, containers.iter().find(|container| container.name == PROXY_CONTAINER)?))
    })?;
    let statuses = status.and_then(|status| match list {
        List::InitContainers => status.init_container_statuses.as_ref(),
        List::Containers => status.container_statuses.as_ref(),
    });
    let status = statuses.into_iter().flatten().find(|status| status.name == PROXY_CONTAINER);
    let running = status.and_then(|status| status.state.as_ref()?.running.as_ref()).is_some();
    Some(Container {
        list,
        wanted: image_for(pod, wanted, container.image.as_deref().unwrap_or_default()),
        image: container.image.clone().unwrap_or_default(),
        id: status.and_then(|status| status.container_id.clone()).unwrap_or_default(),
        ready: running && status.is_some_and(|status| status.ready),
        waiting: ours_broken(pod),
        can_leave: container.readiness_probe.is_some(),
    })
}

/// The image that the pod would have now; what it has where that is as good.
fn image_for(pod: &Pod, wanted: &Wanted, image: &str) -> String {
    let pin = Pin::of(&InjectedPod { metadata: pod.metadata.clone(), ..InjectedPod::default() });
    if wanted.is_current(image, pin.as_ref()) {
        image.to_owned()
    } else {
        wanted.image(pin.as_ref()).into_owned()
    }
}

/// What keeps the proxy from starting. The container that redirects comes before it and has its image:
/// where that does not pull, the proxy's own has nothing to say yet.
fn ours_broken(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.find_map(|container| {
        let ours = [PROXY_CONTAINER, REDIRECT_CONTAINER].contains(&container.name.as_str());
        if ours { broken(container) } else { None }
    })
}

fn broken(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| BROKEN.contains(reason))?;
    Some(match &waiting.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::meshwright::MeshInstallation,
        operator::platform::{Images, WebhookEndpoint},
    };

    fn wanted() -> Wanted {
        let spec = serde_json::from_value(json!({"proxy": {"image": "proxy:2"}})).unwrap();
        let platform = Images::default().platform("mesh".to_owned(), WebhookEndpoint::Service);
        Wanted::of(&MeshInstallation::new("default", spec), &platform)
    }

    fn pod(changes: &Value) -> Option<facts::Pod> {
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u1",
                         "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {
                "initContainers": [{"name": "meshwright-proxy", "image": "proxy:1",
                                    "restartPolicy": "Always", "readinessProbe": {}}],
                "containers": [{"name": "web"}],
            },
            "status": {
                "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True",
                                "lastTransitionTime": "2026-11-21T10:00:05Z"}],
                "initContainerStatuses": [{
                    "name": "meshwright-proxy", "ready": true, "restartCount": 0,
                    "image": "", "imageID": "", "containerID": "containerd://1",
                    "state": {"running": {}},
                }],
            },
        });
        json_patch::merge(&mut object, changes);
        facts(&serde_json::from_value(object).unwrap(), &wanted())
    }

    #[test]
    fn reads_a_pod_with_a_native_sidecar() {
        let pod = pod(&json!({})).unwrap();
        let proxy = pod.proxy.clone().unwrap();
        assert!(pod.ready && pod.outdated());
        assert_eq!(proxy.wanted, "proxy:2");
        assert!(!pod.in_flight() && pod.broken().is_none() && pod.unready_since.is_none());
        assert_eq!((proxy.list, proxy.id.as_str()), (List::InitContainers, "containerd://1"));
        assert!(proxy.ready && proxy.can_leave);
    }

    #[test]
    fn pods_on_their_way_out_do_not_count() {
        assert!(pod(&json!({"status": {"phase": "Failed"}})).is_none());
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-11-21T10:00:00Z"}});
        assert!(pod(&leaving).is_none());
    }

    #[test]
    fn a_pod_that_names_its_image_has_the_right_one() {
        let named = |image: &str| {
            let annotations = json!({"meshwright.dev/proxy-image": image});
            pod(&json!({"metadata": {"annotations": annotations}})).unwrap()
        };
        assert!(!named("proxy:1").outdated());
        assert_eq!(named("mine/proxy:7").proxy.unwrap().wanted, "mine/proxy:7");
    }

    /// Seen in a cluster: the pod waits in `Init:ImagePullBackOff`, for the container before the proxy.
    #[test]
    fn sees_that_the_image_does_not_pull() {
        let waiting =
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let status = |name: &str, state: Value| {
            json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
                   "state": state})
        };
        let pod = pod(&json!({"status": {"initContainerStatuses": [
            status("meshwright-redirect", waiting),
            status("meshwright-proxy", json!({"waiting": {"reason": "PodInitializing"}})),
        ]}}))
        .unwrap();
        assert!(pod.broken().unwrap().ends_with("ImagePullBackOff: no such image"));
    }

    #[test]
    fn reads_how_far_a_replacement_is() {
        let replaced =
            r#"{"image":"proxy:0","container":"containerd://0","at":"2026-11-21T10:01:00Z"}"#;
        let annotations = json!({OUT_OF_SERVICE: "2026-11-21T10:00:30Z", REPLACED: replaced});
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"},
                             "running": null});
        let pod = pod(&json!({
            "metadata": {"annotations": annotations},
            "status": {
                "conditions": [{"type": "Ready", "status": "False",
                                "lastTransitionTime": "2026-11-21T10:00:50Z"}],
                "initContainerStatuses": [{
                    "name": "meshwright-proxy", "ready": false, "restartCount": 0,
                    "image": "", "imageID": "", "containerID": "containerd://0", "state": waiting,
                }],
            },
        }))
        .unwrap();
        assert_eq!(pod.out_of_service.unwrap().to_string(), "2026-11-21T10:00:30Z");
        assert_eq!(pod.unready_since.unwrap().to_string(), "2026-11-21T10:00:50Z");
        assert_eq!(pod.replaced.as_ref().unwrap().image, "proxy:0");
        assert!(pod.broken().unwrap().ends_with("ImagePullBackOff: no such image"));
    }
}
