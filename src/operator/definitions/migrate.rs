//! Upgrades a definition and, where its stored version changes, writes every object anew.
//!
//! An object that is written without a change is stored again all the same if what is stored is in
//! another version than what is to be stored; the API server compares the bytes. When all have been,
//! the definition's status is told, and only then may the old version go.

use std::time::Duration;

use futures::{TryStreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde_json::json;

use super::decide::{Steps, storage};
use crate::api::meshwright::labels::{MANAGED_BY, MANAGER};

/// Objects in one page of a list, of which only the metadata is read.
const PAGE: u32 = 500;
/// Writes under way at once.
const CONCURRENCY: usize = 8;
/// So long may an API server take to store in the new version.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The name under which Helm applies.
const HELM: &str = "helm";

#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct Error {
    action: &'static str,
    source: Box<kube::Error>,
}

pub(super) fn failed(action: &'static str) -> impl Fn(kube::Error) -> Error {
    move |source| Error { action, source: Box::new(source) }
}

/// Upgrades the definition that is `live`.
pub async fn bring_about(
    client: &Client,
    live: &CustomResourceDefinition,
    steps: &Steps,
    settle: Duration,
) -> Result<(), Error> {
    let first = steps.bridge.as_ref().unwrap_or(&steps.target);
    let name = live.name_any();
    if steps.write || steps.bridge.is_some() {
        let before = storage_hash(client, first).await;
        apply(client, first, live).await?;
        if storage(first) != storage(live) {
            stored_anew(client, first, before).await;
        }
        tracing::info!(definition = name, "definition upgraded");
    }
    if steps.migrate {
        tokio::time::sleep(settle).await;
        let count = rewrite(client, first).await?;
        tracing::info!(definition = name, objects = count, "objects stored in the new version");
        let stored = json!({"status": {"storedVersions": [storage(first)]}});
        let api = Api::<CustomResourceDefinition>::all(client.clone());
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(stored))
            .await
            .map_err(failed("say which versions objects are stored in"))?;
    }
    if steps.bridge.is_some() {
        apply(client, &steps.target, live).await?;
    }
    Ok(())
}

/// Applies a definition. One that Helm keeps is applied under Helm's name: else its next upgrade would
/// find fields that are somebody else's, and refuse.
async fn apply(
    client: &Client,
    wanted: &CustomResourceDefinition,
    live: &CustomResourceDefinition,
) -> Result<(), Error> {
    let by_helm = live.labels().get(MANAGED_BY).is_some_and(|by| by == "Helm");
    let params = PatchParams::apply(if by_helm { HELM } else { MANAGER }).force();
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    api.patch(&wanted.name_any(), &params, &Patch::Apply(wanted))
        .await
        .map_err(failed("upgrade the definition"))?;
    Ok(())
}

/// Writes every object as it is. The number of objects.
pub async fn rewrite(client: &Client, crd: &CustomResourceDefinition) -> Result<usize, Error> {
    let resource = resource(crd);
    let all = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let mut page = ListParams::default().limit(PAGE);
    let mut count = 0;
    loop {
        let list = all.list_metadata(&page).await.map_err(failed("list objects"))?;
        count += list.items.len();
        stream::iter(list.items.iter().map(Ok))
            .try_for_each_concurrent(CONCURRENCY, |object| touch(client, &resource, object))
            .await?;
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => return Ok(count),
        }
    }
}

/// A write that changes nothing. Somebody else's write in between does as well.
async fn touch(
    client: &Client,
    resource: &ApiResource,
    object: &PartialObjectMeta<DynamicObject>,
) -> Result<(), Error> {
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let same = json!({"metadata": {
        "uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version,
    }});
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(same)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(failed("store an object in the new version")(error)),
    }
}

fn resource(crd: &CustomResourceDefinition) -> ApiResource {
    let version = storage(crd).unwrap_or_default();
    let kind = GroupVersionKind::gvk(&crd.spec.group, version, &crd.spec.names.kind);
    ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural)
}

/// What the API server's discovery says about the version that it stores; nothing if it does not say.
async fn storage_hash(client: &Client, crd: &CustomResourceDefinition) -> Option<String> {
    let version = resource(crd).api_version;
    let found = client.list_api_group_resources(&version).await.ok()?;
    let plural = &crd.spec.names.plural;
    let resource = found.resources.into_iter().find(|resource| resource.name == *plural)?;
    resource.storage_version_hash
}

/// Waits until the API server stores in the new version: what is written before is stored as before.
async fn stored_anew(client: &Client, crd: &CustomResourceDefinition, before: Option<String>) {
    let changed = async {
        while before.is_some() && storage_hash(client, crd).await == before {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(PATIENCE, changed).await.is_err() {
        tracing::debug!(definition = crd.name_any(), "discovery names no other stored version");
    }
}
