//! Writes what a Gateway needs, and deletes what it does not need any more. Nothing is listed, and
//! nothing read that the watches have shown to be as it was left.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Client, api::DeleteParams};

use super::children::{Child, ChildKey, Children, applied, owner};
use crate::{
    api::meshwright::PatchedKind,
    operator::{
        apply::{self, Changes},
        objects::{Objects, Prepared},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("{0} is there already and was not made for this Gateway: rename one of the two")]
    Taken(String),
    #[error("cannot read {object}: {source}")]
    Read { object: String, source: Box<kube::Error> },
    #[error("cannot delete {object}: {source}")]
    Delete { object: String, source: Box<kube::Error> },
}

/// What one Gateway's objects are written with.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) children: &'a Children,
    /// Of the Gateway.
    pub(super) uid: &'a str,
}

impl Writer<'_> {
    /// Applies the objects: accounts and Services before the pods that need them.
    pub(super) async fn apply(
        &self,
        objects: Objects<Prepared>,
        changes: &mut Changes,
    ) -> Result<Vec<ChildKey>, Error> {
        let mut keys = Vec::new();
        for object in objects.service_accounts {
            keys.push(Box::pin(self.ensure(object, changes)).await?);
        }
        for object in objects.services {
            keys.push(Box::pin(self.ensure(object, changes)).await?);
        }
        for object in objects.deployments {
            keys.push(Box::pin(self.ensure(object, changes)).await?);
        }
        for object in objects.horizontal_pod_autoscalers {
            keys.push(Box::pin(self.ensure(object, changes)).await?);
        }
        for object in objects.pod_disruption_budgets {
            keys.push(Box::pin(self.ensure(object, changes)).await?);
        }
        Ok(keys)
    }

    async fn ensure<K: Child>(&self, object: K, changes: &mut Changes) -> Result<ChildKey, Error> {
        let key = ChildKey::of(&object);
        let applied = applied(&object);
        if self.children.is_settled(self.uid, &key, applied) {
            return Ok(key);
        }
        if !self.children.knows(self.uid, &key) {
            self.is_free::<K>(&key).await?;
        }
        let live = apply::one(self.client, object, changes).await?;
        self.children.settle(&live, applied);
        Ok(key)
    }

    /// What somebody else made is never taken over.
    async fn is_free<K: Child>(&self, key: &ChildKey) -> Result<(), Error> {
        let api = K::api(self.client, Some(&key.namespace));
        let found = api
            .get_metadata_opt(&key.name)
            .await
            .map_err(|source| Error::Read { object: title(key), source: Box::new(source) })?;
        match found {
            Some(found) if owner(&found).is_none_or(|(_, uid)| uid != self.uid) => {
                Err(Error::Taken(title(key)))
            }
            _ => Ok(()),
        }
    }

    /// Deletes all that was made for the Gateway except these. The names of what went.
    pub(super) async fn prune(&self, keep: &[ChildKey]) -> Result<Vec<String>, Error> {
        let mut gone = Vec::new();
        for key in self.children.of(self.uid) {
            if keep.contains(&key) {
                continue;
            }
            match key.kind {
                PatchedKind::Deployment => self.delete::<Deployment>(&key).await?,
                PatchedKind::Service => self.delete::<Service>(&key).await?,
                PatchedKind::ServiceAccount => self.delete::<ServiceAccount>(&key).await?,
                PatchedKind::HorizontalPodAutoscaler => {
                    self.delete::<HorizontalPodAutoscaler>(&key).await?;
                }
                PatchedKind::PodDisruptionBudget => {
                    self.delete::<PodDisruptionBudget>(&key).await?;
                }
            }
            self.children.take_out(self.uid, &key);
            gone.push(title(&key));
        }
        gone.sort();
        Ok(gone)
    }

    async fn delete<K: Child>(&self, key: &ChildKey) -> Result<(), Error> {
        let api = K::api(self.client, Some(&key.namespace));
        match api.delete(&key.name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Delete { object: title(key), source: Box::new(source) }),
        }
    }
}

fn title(key: &ChildKey) -> String {
    format!("{} {}/{}", key.kind.as_str(), key.namespace, key.name)
}

/// The Service that a Gateway stands behind.
pub(super) async fn read_service(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Service>, Error> {
    let api = kube::Api::<Service>::namespaced(client.clone(), namespace);
    api.get_opt(name).await.map_err(|source| Error::Read {
        object: format!("Service {namespace}/{name}"),
        source: Box::new(source),
    })
}

/// Whether the API server refused something for good: what it said.
pub(super) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<(u16, String)> {
    let mut next = Some(error);
    while let Some(error) = next {
        let direct = error.downcast_ref::<kube::Error>();
        let found = direct.or_else(|| error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref));
        if let Some(kube::Error::Api(status)) = found {
            return Some((status.code, status.message.clone()));
        }
        next = error.source();
    }
    None
}

/// What was done, for an event.
pub(super) fn describe(changes: &Changes, gone: &[String]) -> Option<String> {
    let applied = changes.summary().map(|summary| format!("Applied {summary}"));
    let removed = (!gone.is_empty()).then(|| format!("Removed {}", gone.join(", ")));
    match (applied, removed) {
        (Some(applied), Some(removed)) => Some(format!("{applied}; {removed}")),
        (applied, removed) => applied.or(removed),
    }
}
