//! Writes objects by server-side apply, and only where that changes something.
//!
//! An annotation holds the hash of what was last applied. Where it is the same and the live object
//! still has all that we want, nothing is sent: a settled installation causes no writes.

mod drift;
mod error;
mod live;
mod whole;

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

pub(super) use self::drift::covers;
pub use self::{
    error::{Error, Key},
    live::Live,
    whole::{Outcome, delete_all},
};
use crate::api::meshwright::labels::MANAGER;

/// Hash of what was applied last.
const APPLIED: &str = "meshwright.dev/applied";

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
    fn add(&mut self, key: &Key) {
        self.0.push(key.to_string());
    }

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

/// Applies one object, unless the API server has it already.
pub async fn one<K: Applicable>(
    client: &Client,
    wanted: K,
    changes: &mut Changes,
) -> Result<K, Error> {
    let api = K::api(client, wanted.namespace().as_deref());
    let live = api.get_opt(&wanted.name_any()).await;
    let live = live.map_err(|error| Error::api("read", Key::of(&wanted), error))?;
    settle(client, wanted, live.as_ref(), changes).await
}

/// Applies one object over the live one, unless that is as it should be.
async fn settle<K: Applicable>(
    client: &Client,
    mut wanted: K,
    live: Option<&K>,
    changes: &mut Changes,
) -> Result<K, Error> {
    let key = Key::of(&wanted);
    let encode = |object: &K| {
        serde_json::to_value(object).map_err(|source| Error::Encode { object: key.clone(), source })
    };
    let hash = format!("{:016x}", xxh3_64(encode(&wanted)?.to_string().as_bytes()));
    wanted.annotations_mut().insert(APPLIED.to_owned(), hash.clone());
    if let Some(live) = live
        && live.annotations().get(APPLIED) == Some(&hash)
        && covers(&encode(live)?, &encode(&wanted)?)
    {
        return Ok(live.clone());
    }
    let api = K::api(client, key.namespace.as_deref());
    let params = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&wanted);
    let failed = |action| {
        let key = key.clone();
        move |error| Error::api(action, key, error)
    };
    let applied = match api.patch(&key.name, &params, &patch).await.map_err(failed("apply")) {
        Err(error) if error.is_immutable() && live.is_some() && is_made_anew::<K>() => {
            let gone = api.delete(&key.name, &DeleteParams::background()).await;
            gone.map_err(failed("delete"))?;
            api.patch(&key.name, &params, &patch).await.map_err(failed("apply"))?
        }
        applied => applied?,
    };
    // Where nothing came of it, nothing is told.
    if live.is_none_or(|live| live.resource_version() != applied.resource_version()) {
        changes.add(&key);
    }
    Ok(applied)
}

/// Whether an object of ours that cannot be changed into what it should be is deleted first. A Service
/// might come back with another address.
fn is_made_anew<K: Applicable>() -> bool {
    K::kind(&()) != "Service"
}

/// Deletes what carries these labels and is not kept.
pub async fn orphans<K: Applicable>(
    client: &Client,
    selector: &str,
    keep: &[K],
    changes: &mut Changes,
) -> Result<(), Error> {
    let kept = |found: &PartialObjectMeta<K>| {
        keep.iter().any(|k| k.name_any() == found.name_any() && k.namespace() == found.namespace())
    };
    let params = ListParams::default().labels(selector);
    let kind = K::kind(&()).into_owned();
    let found = K::api(client, None).list_metadata(&params).await;
    let found = found.map_err(|error| Error::api("list", Key::kind(kind.clone()), error))?;
    for orphan in found.items {
        if kept(&orphan) || orphan.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let (kind, name, namespace) = (kind.clone(), orphan.name_any(), orphan.namespace());
        let key = Key { kind, namespace, name };
        let api = K::api(client, key.namespace.as_deref());
        match api.delete(&key.name, &DeleteParams::background()).await {
            Ok(_) => changes.add(&key),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::api("delete", key, error)),
        }
    }
    Ok(())
}
