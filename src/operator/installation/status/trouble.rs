//! What keeps the pods of a Deployment from running, as the Deployment and the pods say.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::rollout;
use crate::operator::apply::{Error, Key};

/// Why a Deployment does not get where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub deployment: Key,
    /// Of a condition.
    pub reason: &'static str,
    pub message: String,
}

/// Looks at the Deployments that are not where they should be. Their pods are read only then.
pub async fn look(
    client: &Client,
    deployments: &[Deployment],
    failures: &mut Vec<Error>,
) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for deployment in deployments.iter().filter(|deployment| !rollout::is_settled(deployment)) {
        let by_pods = match pods(client, deployment).await {
            Ok(pods) => of_pods(&pods),
            Err(error) => {
                failures.push(error);
                None
            }
        };
        // What the pods say is nearer to the cause than that a rollout got stuck.
        let of_deployment = rollout::failure(deployment);
        let (first, second) = match of_deployment {
            Some(("RolloutStuck", _)) => (by_pods, of_deployment),
            _ => (of_deployment, by_pods),
        };
        if let Some((reason, said)) = first.or(second) {
            let message = format!("{}: {said}", rollout::name(deployment));
            troubles.push(Trouble { deployment: Key::of(deployment), reason, message });
        }
    }
    troubles
}

async fn pods(client: &Client, deployment: &Deployment) -> Result<Vec<Pod>, Error> {
    let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.as_ref());
    let selector: Vec<_> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let namespace = deployment.namespace().unwrap_or_default();
    let params = ListParams::default().labels(&selector.join(","));
    match Api::<Pod>::namespaced(client.clone(), &namespace).list(&params).await {
        Ok(list) => Ok(list.items),
        Err(error) => {
            let object = Key { namespace: Some(namespace), ..Key::kind("Pod") };
            Err(Error::api("list", object, error))
        }
    }
}

type Finding = (&'static str, String);

/// The first trouble of pods that are to stay.
fn of_pods(pods: &[Pod]) -> Option<Finding> {
    let staying = || pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let containers = |pod: &Pod| -> Vec<ContainerStatus> {
        let status = pod.status.clone().unwrap_or_default();
        let inits = status.init_container_statuses.unwrap_or_default();
        inits.into_iter().chain(status.container_statuses.unwrap_or_default()).collect()
    };
    staying()
        .find_map(|pod| {
            containers(pod).iter().find_map(|container| of_container(&pod.name_any(), container))
        })
        .or_else(|| staying().find_map(unscheduled))
}

fn of_container(pod: &str, container: &ContainerStatus) -> Option<Finding> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let (name, image) = (&container.name, &container.image);
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable" => {
            Some(("ImagePullFailed", format!("pod {pod} cannot pull image {image}: {said}")))
        }
        "CrashLoopBackOff" => {
            let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let code = ended.map(|ended| format!(" with exit code {}", ended.exit_code));
            let code = code.unwrap_or_default();
            Some(("CrashLooping", format!("container {name} of pod {pod} keeps ending{code}")))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some((
            "ContainerRefused",
            format!("container {name} of pod {pod} cannot start: {said}"),
        )),
        _ => None,
    }
}

fn unscheduled(pod: &Pod) -> Option<Finding> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let said = condition.message.as_deref().unwrap_or_default();
    Some(("Unschedulable", format!("no node takes pod {}: {said}", pod.name_any())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn waiting(reason: &str) -> Value {
        json!({"containerStatuses": [{
            "name": "c", "image": "i:1", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": reason, "message": "because"}},
            "lastState": {"terminated": {"exitCode": 3}},
        }]})
    }

    #[test]
    fn pods_say_why_they_do_not_run() {
        let reason = |status: Value| of_pods(&[pod(&status)]);
        let (kind, message) = reason(waiting("ImagePullBackOff")).unwrap();
        assert_eq!(kind, "ImagePullFailed");
        assert!(message.contains("i:1") && message.contains("because"), "{message}");
        let (kind, message) = reason(waiting("CrashLoopBackOff")).unwrap();
        assert!(kind == "CrashLooping" && message.contains("exit code 3"), "{message}");
        assert_eq!(reason(waiting("ContainerCreating")), None);
        let unscheduled = json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu",
        }]});
        assert_eq!(reason(unscheduled).unwrap().0, "Unschedulable");
    }

    #[test]
    fn pods_that_go_do_not_count() {
        let mut going = pod(&waiting("ImagePullBackOff"));
        going.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(of_pods(&[going]), None);
    }
}
