//! What other webhooks broke in a pod that carries our annotation.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{container::PROXY_CONTAINER, status::Status};
use crate::api::meshwright::labels;

/// What is wrong with an injected pod so that it cannot work, in words for people. The proxy as an
/// init container must stay: without its restart policy, which programs from before Kubernetes 1.28
/// drop, the pod waits for its end forever.
pub fn damage(pod: &Pod) -> Option<String> {
    let status: Status =
        serde_json::from_str(pod.metadata.annotations.as_ref()?.get(labels::STATUS)?).ok()?;
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let proxy = init.iter().find(|container| container.name == PROXY_CONTAINER);
    if proxy.is_some_and(|proxy| proxy.restart_policy.as_deref() != Some("Always")) {
        return Some(format!(
            "init container {PROXY_CONTAINER} has lost its restartPolicy: Always, so the pod waits forever for its end; \
             a webhook that runs after Meshwright's and does not know the field dropped it: update that webhook, or set the annotation meshwright.dev/native-sidecar: \"false\""
        ));
    }
    let missing = |wanted: &[String], containers: &[Container]| {
        wanted.iter().find(|name| containers.iter().all(|c| c.name != **name)).cloned()
    };
    let gone = missing(&status.added.init_containers, init)
        .or_else(|| missing(&status.added.containers, &spec.containers))?;
    Some(format!(
        "container {gone}, which injection added, is gone: a webhook that runs after Meshwright's took it away"
    ))
}
