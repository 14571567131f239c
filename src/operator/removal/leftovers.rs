//! What belongs to the mesh as a whole: made by control planes and by the operator itself, without an
//! owner that would take it along.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;

use super::{Error, failed};
use crate::{
    api::{
        gateway::GatewayClass,
        meshwright::labels::{KEEP, MANAGED_BY, MANAGER},
    },
    ca, control_plane,
    operator::{
        apply::{self, Changes},
        gateway_api::CLASS,
        platform::OPERATOR,
    },
    webhook::certificate::keeper,
};

/// Deletions under way at once: a cluster may have thousands of namespaces.
const CONCURRENCY: usize = 16;
/// Helm's way to say that something is to be kept.
const HELM_POLICY: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// What control planes made: the root certificate in every namespace, the lease by which one of them
/// leads, and the CA's key, if it was made by us and nobody said that it shall stay.
pub async fn of_mesh(client: &Client, namespace: &str, changes: &mut Changes) -> Result<(), Error> {
    root_certificates(client, changes).await?;
    delete::<Lease>(client, namespace, control_plane::LEASE, None, changes).await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    // Only a get by name is granted, and its metadata is all that is read.
    let secret =
        secrets.get_metadata_opt(ca::SECRET).await.map_err(failed("read the CA's Secret"))?;
    if let Some(secret) = secret.filter(may_go) {
        // Not another one that somebody has put there in the meantime.
        delete::<Secret>(client, namespace, ca::SECRET, secret.uid(), changes).await?;
    }
    Ok(())
}

/// A plugged-in CA is its owner's. Ours stays where its annotations say so.
fn may_go(secret: &PartialObjectMeta<Secret>) -> bool {
    let annotation = |key: &str| secret.annotations().get(key).map(String::as_str);
    let ours = secret.labels().get(MANAGED_BY).is_some_and(|by| by == ca::MANAGER);
    ours && annotation(KEEP) != Some("true") && annotation(HELM_POLICY.0) != Some(HELM_POLICY.1)
}

async fn root_certificates(client: &Client, changes: &mut Changes) -> Result<(), Error> {
    let named = format!("metadata.name={}", ca::ROOT_CONFIG_MAP);
    let api = Api::<ConfigMap>::all(client.clone());
    let maps = api.list_metadata(&ListParams::default().fields(&named)).await;
    let namespaces: Vec<_> = maps
        .map_err(failed("list the root certificates"))?
        .items
        .iter()
        .filter_map(ResourceExt::namespace)
        .collect();
    let delete_in = |namespace: String| {
        let client = client.clone();
        async move {
            let mut changes = Changes::default();
            delete::<ConfigMap>(&client, &namespace, ca::ROOT_CONFIG_MAP, None, &mut changes)
                .await
                .map(|()| changes)
        }
    };
    let deleted: Vec<Changes> =
        stream::iter(namespaces).map(delete_in).buffer_unordered(CONCURRENCY).try_collect().await?;
    if deleted.iter().any(|deleted| deleted.summary().is_some()) {
        changes.push(format!("ConfigMap {} in every namespace", ca::ROOT_CONFIG_MAP));
    }
    Ok(())
}

/// Webhook configurations of whatever the operator made, and its own.
pub async fn webhooks(client: &Client, changes: &mut Changes) -> Result<(), Error> {
    let ours = format!("{MANAGED_BY}={MANAGER}");
    apply::orphans::<MutatingWebhookConfiguration>(client, &ours, &[], changes).await?;
    apply::orphans::<ValidatingWebhookConfiguration>(client, &ours, &[], changes).await?;
    Ok(())
}

/// What the operator made beside installations, once it does not run any more: gateways of the
/// Gateway API, their class, its certificate and its lease.
pub async fn of_operator(
    client: &Client,
    namespace: &str,
    changes: &mut Changes,
) -> Result<(), Error> {
    let ours = format!("{MANAGED_BY}={MANAGER}");
    changes.extend(apply::delete_all(client, &ours).await?);
    let classes = Api::<GatewayClass>::all(client.clone());
    // Also gone where the Gateway API is not installed.
    gone(classes.delete(CLASS, &DeleteParams::default()).await.map(drop), "delete GatewayClass")?;
    delete::<Secret>(client, namespace, keeper::SECRET, None, changes).await?;
    delete::<Lease>(client, namespace, OPERATOR, None, changes).await
}

async fn delete<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<String>,
    changes: &mut Changes,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned,
    K: std::fmt::Debug,
{
    let only = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
    let params = DeleteParams { preconditions: only, ..DeleteParams::background() };
    let deleted = Api::<K>::namespaced(client.clone(), namespace).delete(name, &params).await;
    if gone(deleted.map(drop), "delete what control planes made")? {
        changes.push(format!("{} {namespace}/{name}", K::kind(&())));
    }
    Ok(())
}

/// Whether it was there. What is not there any more need not be deleted.
fn gone(outcome: Result<(), kube::Error>, action: &'static str) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(failed(action)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_key_of_others_and_one_that_shall_stay_are_kept() {
        let secret = |labels: Value, annotations: Value| -> PartialObjectMeta<Secret> {
            let metadata =
                json!({"name": "meshwright-ca", "labels": labels, "annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let ours = || json!({MANAGED_BY: ca::MANAGER});
        assert!(may_go(&secret(ours(), json!({}))));
        assert!(may_go(&secret(ours(), json!({KEEP: "false"}))));
        assert!(!may_go(&secret(ours(), json!({KEEP: "true"}))));
        assert!(!may_go(&secret(ours(), json!({"helm.sh/resource-policy": "keep"}))));
        assert!(!may_go(&secret(json!({}), json!({}))));
        assert!(!may_go(&secret(json!({MANAGED_BY: "cert-manager"}), json!({}))));
    }
}
