//! Writes objects by server-side apply, and only where that changes something.
//!
//! An annotation holds the hash of what was last applied. Where it is the same and the live object
//! still has all that we want, nothing is sent: a settled installation causes no writes.

use std::{fmt::Debug, marker::PhantomData};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::objects::{Applied, Objects, Prepared};
use crate::api::meshwright::labels::MANAGER;

/// Hash of what was applied last.
const APPLIED: &str = "meshwright.dev/applied";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {object}: {source}")]
    Api { action: &'static str, object: String, source: Box<kube::Error> },
    #[error("{object} cannot be written as JSON: {source}")]
    Encode { object: String, source: serde_json::Error },
}

impl Error {
    /// Whether the API server refuses it, so that trying again soon will not help.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                matches!(&**source, kube::Error::Api(s) if matches!(s.code, 400 | 403 | 404 | 422))
            }
            Self::Encode { .. } => true,
        }
    }
}

/// Objects of the API that we apply whole.
pub trait Applicable:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
    /// The API for objects in this namespace; of the cluster for kinds without one.
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self>;
}

macro_rules! applicable {
    ($scope:ty: $($kind:ty),+ $(,)?) => {$(
        impl Applicable for $kind {
            fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
                <$scope as ScopedApi<$kind>>::api(client, namespace)
            }
        }
    )+};
}

trait ScopedApi<K> {
    fn api(client: &Client, namespace: Option<&str>) -> Api<K>;
}

impl<K: Resource<DynamicType = (), Scope = Self>> ScopedApi<K> for NamespaceResourceScope {
    fn api(client: &Client, namespace: Option<&str>) -> Api<K> {
        match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

impl<K: Resource<DynamicType = (), Scope = Self>> ScopedApi<K> for ClusterResourceScope {
    fn api(client: &Client, _: Option<&str>) -> Api<K> {
        Api::all(client.clone())
    }
}

applicable!(NamespaceResourceScope:
    k8s_openapi::api::core::v1::ServiceAccount,
    k8s_openapi::api::core::v1::Service,
    k8s_openapi::api::apps::v1::Deployment,
    k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler,
    k8s_openapi::api::policy::v1::PodDisruptionBudget,
    k8s_openapi::api::rbac::v1::Role,
    k8s_openapi::api::rbac::v1::RoleBinding,
);
applicable!(ClusterResourceScope:
    k8s_openapi::api::rbac::v1::ClusterRole,
    k8s_openapi::api::rbac::v1::ClusterRoleBinding,
    k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration,
    k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration,
);

/// What an application of objects did, for events.
#[derive(Debug, Default)]
pub struct Changes(Vec<String>);

impl Changes {
    /// `Deployment a/b, Service a/c`; `None` if nothing was written.
    pub fn summary(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(", "))
    }

    pub(super) fn push(&mut self, what: String) {
        self.0.push(what);
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

impl Objects<Prepared> {
    /// Applies everything: first what others refer to (accounts, roles), then Services, which have
    /// their address by the time that a proxy looks for it, then Deployments, and the webhook
    /// configurations last, since they point at what came before.
    pub async fn apply(self, client: &Client) -> Result<(Objects<Applied>, Changes), Error> {
        // Without `..`: a new kind of object fails to compile here instead of never being applied.
        let Self {
            service_accounts,
            cluster_roles,
            cluster_role_bindings,
            roles,
            role_bindings,
            services,
            deployments,
            horizontal_pod_autoscalers,
            pod_disruption_budgets,
            mutating_webhooks,
            validating_webhooks,
            state: PhantomData,
        } = self;
        let mut changes = Changes::default();
        let applied = Objects {
            service_accounts: all(client, service_accounts, &mut changes).await?,
            cluster_roles: all(client, cluster_roles, &mut changes).await?,
            cluster_role_bindings: all(client, cluster_role_bindings, &mut changes).await?,
            roles: all(client, roles, &mut changes).await?,
            role_bindings: all(client, role_bindings, &mut changes).await?,
            services: all(client, services, &mut changes).await?,
            deployments: all(client, deployments, &mut changes).await?,
            horizontal_pod_autoscalers: all(client, horizontal_pod_autoscalers, &mut changes)
                .await?,
            pod_disruption_budgets: all(client, pod_disruption_budgets, &mut changes).await?,
            mutating_webhooks: all(client, mutating_webhooks, &mut changes).await?,
            validating_webhooks: all(client, validating_webhooks, &mut changes).await?,
            state: PhantomData,
        };
        Ok((applied, changes))
    }
}

impl Objects<Applied> {
    /// Deletes what carries these labels and is not among the applied: webhook configurations
    /// first, accounts last.
    pub async fn prune(&self, client: &Client, selector: &str) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        orphans(client, selector, &self.mutating_webhooks, &mut changes).await?;
        orphans(client, selector, &self.validating_webhooks, &mut changes).await?;
        orphans(client, selector, &self.horizontal_pod_autoscalers, &mut changes).await?;
        orphans(client, selector, &self.pod_disruption_budgets, &mut changes).await?;
        orphans(client, selector, &self.deployments, &mut changes).await?;
        orphans(client, selector, &self.services, &mut changes).await?;
        orphans(client, selector, &self.role_bindings, &mut changes).await?;
        orphans(client, selector, &self.roles, &mut changes).await?;
        orphans(client, selector, &self.cluster_role_bindings, &mut changes).await?;
        orphans(client, selector, &self.cluster_roles, &mut changes).await?;
        orphans(client, selector, &self.service_accounts, &mut changes).await?;
        Ok(changes)
    }
}

async fn all<K: Applicable>(
    client: &Client,
    objects: Vec<K>,
    changes: &mut Changes,
) -> Result<Vec<K>, Error> {
    let mut applied = Vec::with_capacity(objects.len());
    for object in objects {
        applied.push(one(client, object, changes).await?);
    }
    Ok(applied)
}

/// Applies one object, unless the API server has it already.
pub async fn one<K: Applicable>(
    client: &Client,
    mut wanted: K,
    changes: &mut Changes,
) -> Result<K, Error> {
    let title = title(&wanted);
    let encode = |object: &K| {
        serde_json::to_value(object)
            .map_err(|source| Error::Encode { object: title.clone(), source })
    };
    let hash = format!("{:016x}", xxh3_64(encode(&wanted)?.to_string().as_bytes()));
    wanted.annotations_mut().insert(APPLIED.to_owned(), hash.clone());
    let api = K::api(client, wanted.namespace().as_deref());
    let name = wanted.name_any();
    let failed = |action| {
        let object = title.clone();
        move |source| Error::Api { action, object, source: Box::new(source) }
    };
    if let Some(live) = api.get_opt(&name).await.map_err(failed("read"))?
        && live.annotations().get(APPLIED) == Some(&hash)
        && covers(&encode(&live)?, &encode(&wanted)?)
    {
        return Ok(live);
    }
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&wanted)).await;
    let applied = applied.map_err(failed("apply"))?;
    changes.0.push(title);
    Ok(applied)
}

/// Deletes what carries these labels and is not kept.
pub async fn orphans<K: Applicable>(
    client: &Client,
    selector: &str,
    keep: &[K],
    changes: &mut Changes,
) -> Result<(), Error> {
    let failed = |action, object: String| {
        move |source| Error::Api { action, object, source: Box::new(source) }
    };
    let kept = |found: &PartialObjectMeta<K>| {
        keep.iter().any(|k| k.name_any() == found.name_any() && k.namespace() == found.namespace())
    };
    let params = ListParams::default().labels(selector);
    let kind = K::kind(&()).into_owned();
    let found = K::api(client, None).list_metadata(&params).await;
    for orphan in found.map_err(failed("list", kind.clone()))?.items {
        if kept(&orphan) || orphan.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = orphan.name_any();
        let api = K::api(client, orphan.namespace().as_deref());
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => changes.0.push(format!("{kind} {name}")),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed("delete", format!("{kind} {name}"))(error)),
        }
    }
    Ok(())
}

fn title<K: Applicable>(object: &K) -> String {
    let kind = K::kind(&());
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

/// Whether `live` has all that `wanted` has. The API server adds defaults, so it may have more.
pub(super) fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(field, wanted)| {
            match live.get(field) {
                Some(live) => covers(live, wanted),
                // The API server drops what is empty.
                None => is_empty(wanted),
            }
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| covers(l, w))
        }
        (live, wanted) => live == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covers_despite_defaults_and_not_despite_drift() {
        let wanted = json!({"spec": {"replicas": 2, "ports": [{"port": 80}], "selector": {}}});
        let live = json!({"spec": {"replicas": 2, "ports": [{"port": 80, "nodePort": 3}], "x": 1}});
        assert!(covers(&live, &wanted));
        let drifted = json!({"spec": {"replicas": 1, "ports": [{"port": 80}]}});
        assert!(!covers(&drifted, &wanted));
        let longer = json!({"spec": {"replicas": 2, "ports": [{"port": 80}, {"port": 81}]}});
        assert!(!covers(&longer, &wanted));
    }
}
