//! The writes of a rollout.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    facts::{List, PodRef},
    renewal::Action,
};
use crate::{
    api::meshwright::labels::{MANAGER, OUT_OF_SERVICE, REPLACED, RESTARTED_AT, RESTARTED_FOR},
    operator::fleet::proxy::Workload,
    webhook::inject::container::PROXY_CONTAINER,
};

/// Does what a plan says, for proxies that are to have this image.
pub async fn act(client: &Client, action: &Action, image: &str) -> kube::Result<()> {
    let now = Timestamp::now();
    match action {
        Action::Restart(workload) => restart(client, workload, image, now).await,
        Action::Evict(pod) => evict(client, pod).await,
        Action::TakeOut(pod) => {
            patch_pod(client, pod, &json!({OUT_OF_SERVICE: now.to_string()}), None).await
        }
        Action::Replace { pod, list, image, before } => {
            // Text in an annotation; what is only strings and a time always becomes JSON.
            let before = serde_json::to_string(before).map_err(kube::Error::SerdeError)?;
            patch_pod(client, pod, &json!({REPLACED: before}), Some((*list, image))).await
        }
        Action::PutBack(pod) => patch_pod(client, pod, &back(), None).await,
        Action::Restore { pod, list, image } => {
            patch_pod(client, pod, &back(), Some((*list, image))).await
        }
    }
}

fn back() -> Value {
    json!({OUT_OF_SERVICE: null, REPLACED: null})
}

async fn restart(
    client: &Client,
    workload: &Workload,
    image: &str,
    now: Timestamp,
) -> kube::Result<()> {
    let annotations = json!({RESTARTED_AT: now.to_string(), RESTARTED_FOR: image});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    match workload.kind.as_str() {
        "Deployment" => merge::<Deployment>(client, workload, &patch).await,
        "StatefulSet" => merge::<StatefulSet>(client, workload, &patch).await,
        "DaemonSet" => merge::<DaemonSet>(client, workload, &patch).await,
        // No plan names another.
        _ => Ok(()),
    }
}

async fn merge<K>(client: &Client, workload: &Workload, patch: &Value) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), &workload.namespace);
    api.patch(&workload.name, &params(), &Patch::Merge(patch)).await.map(drop)
}

async fn evict(client: &Client, pod: &PodRef) -> kube::Result<()> {
    let delete_options = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let params = EvictParams { delete_options: Some(delete_options), ..EvictParams::default() };
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    match api.evict(&pod.name, &params).await {
        // A budget was faster, or the pod is gone.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 429) => {
            tracing::debug!(%pod, message = status.message, "not evicted");
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

/// Changes annotations, and the proxy's image, of this pod and no other of its name.
async fn patch_pod(
    client: &Client,
    pod: &PodRef,
    annotations: &Value,
    image: Option<(List, &String)>,
) -> kube::Result<()> {
    let mut patch = json!({"metadata": {"uid": pod.uid, "annotations": annotations}});
    if let Some((list, image)) = image {
        let container = json!({"name": PROXY_CONTAINER, "image": image});
        patch["spec"] = json!({list.field(): [container]});
    }
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    match api.patch(&pod.name, &params(), &Patch::Strategic(&patch)).await {
        // It is gone, or another has its name: the next step sees it.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}
