//! All objects of an owner: applied in their order, each by itself, so that one that fails holds up no
//! other; pruned in the reverse order.

use std::{collections::BTreeSet, marker::PhantomData};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{Applicable, Changes, Error, Key, Live, one, settle};
use crate::{
    api::meshwright::labels::MANAGER,
    operator::objects::{Applied, Found, Objects, Prepared},
};

/// Holds a Deployment's replicas between us and its autoscaler.
const INTERIM_MANAGER: &str = "meshwright-autoscaling";

/// What became of objects.
#[derive(Debug)]
pub struct Outcome {
    /// As the API server has them; as they were found, where applying failed.
    pub applied: Objects<Applied>,
    pub changes: Changes,
    pub failures: Vec<Error>,
    /// All that is wanted, applied or not.
    wanted: BTreeSet<Key>,
}

impl Objects<Prepared> {
    /// Applies everything, looking for each object by its name: for owners of few objects. The error
    /// is the first one; what follows it was tried all the same.
    pub async fn apply(self, client: &Client) -> Result<(Objects<Applied>, Changes), Error> {
        let outcome = self.apply_all(Applier::new(client, None)).await;
        match outcome.failures.into_iter().next() {
            Some(error) => Err(error),
            None => Ok((outcome.applied, outcome.changes)),
        }
    }

    /// Applies everything over what was found, whatever fails.
    pub async fn apply_over(self, client: &Client, live: &Live) -> Outcome {
        self.apply_all(Applier::new(client, Some(&live.objects))).await
    }

    /// First what others refer to (accounts, roles), then Services, which have their address by the
    /// time that a proxy looks for it, then Deployments, and the webhook configurations last, since
    /// they point at what came before.
    async fn apply_all(self, mut to: Applier<'_>) -> Outcome {
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
        let live = to.live;
        let applied = Objects {
            service_accounts: to.all(service_accounts, live.map(|l| &l.service_accounts)).await,
            cluster_roles: to.all(cluster_roles, live.map(|l| &l.cluster_roles)).await,
            cluster_role_bindings: to
                .all(cluster_role_bindings, live.map(|l| &l.cluster_role_bindings))
                .await,
            roles: to.all(roles, live.map(|l| &l.roles)).await,
            role_bindings: to.all(role_bindings, live.map(|l| &l.role_bindings)).await,
            services: to.all(services, live.map(|l| &l.services)).await,
            deployments: to.deployments(deployments).await,
            horizontal_pod_autoscalers: to
                .all(horizontal_pod_autoscalers, live.map(|l| &l.horizontal_pod_autoscalers))
                .await,
            pod_disruption_budgets: to
                .all(pod_disruption_budgets, live.map(|l| &l.pod_disruption_budgets))
                .await,
            mutating_webhooks: to.all(mutating_webhooks, live.map(|l| &l.mutating_webhooks)).await,
            validating_webhooks: to
                .all(validating_webhooks, live.map(|l| &l.validating_webhooks))
                .await,
            state: PhantomData,
        };
        let Applier { changes, failures, wanted, .. } = to;
        Outcome { applied, changes, failures, wanted }
    }
}

struct Applier<'a> {
    client: &'a Client,
    live: Option<&'a Objects<Found>>,
    changes: Changes,
    failures: Vec<Error>,
    wanted: BTreeSet<Key>,
}

impl<'a> Applier<'a> {
    fn new(client: &'a Client, live: Option<&'a Objects<Found>>) -> Self {
        let (changes, failures, wanted) = (Changes::default(), Vec::new(), BTreeSet::new());
        Self { client, live, changes, failures, wanted }
    }

    async fn all<K: Applicable>(&mut self, objects: Vec<K>, live: Option<&Vec<K>>) -> Vec<K> {
        let mut applied = Vec::with_capacity(objects.len());
        for object in objects {
            self.wanted.insert(Key::of(&object));
            applied.extend(self.each(object, live).await);
        }
        applied
    }

    async fn each<K: Applicable>(&mut self, object: K, live: Option<&Vec<K>>) -> Option<K> {
        let found = live.and_then(|live| live.iter().find(|found| same(*found, &object)));
        let known = found.cloned();
        if self.failures.iter().any(Error::is_outage) {
            return known;
        }
        // On the heap: objects are big, and so is what awaits their being written.
        let applied = if live.is_some() {
            Box::pin(settle(self.client, object, found, &mut self.changes)).await
        } else {
            Box::pin(one(self.client, object, &mut self.changes)).await
        };
        applied.map_err(|error| self.failures.push(error)).ok().or(known)
    }

    async fn deployments(&mut self, objects: Vec<Deployment>) -> Vec<Deployment> {
        let live = self.live.map(|live| &live.deployments);
        for object in &objects {
            let found = live.and_then(|live| live.iter().find(|found| same(*found, object)));
            if let Some(found) = found
                && let Err(error) = keep_replicas(self.client, object, found).await
            {
                self.failures.push(error);
            }
        }
        self.all(objects, live).await
    }
}

/// An applied field that is applied no more goes back to its default, which is one replica here: when
/// an autoscaler takes over, the number that runs is kept for it under another name.
async fn keep_replicas(
    client: &Client,
    wanted: &Deployment,
    live: &Deployment,
) -> Result<(), Error> {
    let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|s| s.replicas);
    let (None, Some(running)) = (replicas(wanted), replicas(live)) else { return Ok(()) };
    if running <= 1 || !is_ours_to_scale(live) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": live.name_any(), "namespace": live.namespace()},
        "spec": {"replicas": running},
    });
    Deployment::api(client, live.namespace().as_deref())
        .patch(&live.name_any(), &PatchParams::apply(INTERIM_MANAGER).force(), &Patch::Apply(patch))
        .await
        .map(drop)
        .map_err(|error| Error::api("apply", Key::of(live), error))
}

/// Whether we applied the number of replicas that the object has.
fn is_ours_to_scale(live: &Deployment) -> bool {
    live.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|f| f.0["f:spec"]["f:replicas"].is_object())
    })
}

fn same<K: Applicable>(a: &K, b: &K) -> bool {
    a.meta().name == b.meta().name && a.meta().namespace == b.meta().namespace
}

impl Outcome {
    /// Deletes what was found and is not wanted: webhook configurations first, accounts last. What
    /// `spared` says stays too. Tells what went.
    pub async fn prune(
        &mut self,
        client: &Client,
        live: &Live,
        spared: impl Fn(&Key) -> bool,
    ) -> Changes {
        let found = &live.objects;
        let keep = |key: &Key| self.wanted.contains(key) || spared(key);
        let mut pruner =
            Pruner { client, keep: &keep, changes: Changes::default(), failures: Vec::new() };
        pruner.all(&found.mutating_webhooks).await;
        pruner.all(&found.validating_webhooks).await;
        pruner.all(&found.horizontal_pod_autoscalers).await;
        pruner.all(&found.pod_disruption_budgets).await;
        pruner.all(&found.deployments).await;
        pruner.all(&found.services).await;
        pruner.all(&found.role_bindings).await;
        pruner.all(&found.roles).await;
        pruner.all(&found.cluster_role_bindings).await;
        pruner.all(&found.cluster_roles).await;
        pruner.all(&found.service_accounts).await;
        let Pruner { changes, failures, .. } = pruner;
        self.failures.extend(failures);
        changes
    }
}

/// Deletes all that carries these labels. The error is the first one; what follows it was tried all the
/// same.
pub async fn delete_all(client: &Client, selector: &str) -> Result<Changes, Error> {
    let live = Live::read(client, selector).await;
    let mut outcome = Objects::<Prepared>::default().apply_over(client, &live).await;
    let changes = outcome.prune(client, &live, |_| false).await;
    match live.failures.into_iter().chain(outcome.failures).next() {
        Some(error) => Err(error),
        None => Ok(changes),
    }
}

struct Pruner<'a, F> {
    client: &'a Client,
    keep: &'a F,
    changes: Changes,
    failures: Vec<Error>,
}

impl<F: Fn(&Key) -> bool> Pruner<'_, F> {
    async fn all<K: Applicable>(&mut self, found: &[K]) {
        for orphan in found {
            let key = Key::of(orphan);
            if (self.keep)(&key) || orphan.meta().deletion_timestamp.is_some() {
                continue;
            }
            let api = K::api(self.client, orphan.namespace().as_deref());
            match api.delete(&key.name, &DeleteParams::background()).await {
                Ok(_) => self.changes.add(&key),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => self.failures.push(Error::api("delete", key, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_ours_as_long_as_we_applied_them_last() {
        let deployment = |manager: &str, fields: serde_json::Value| -> Deployment {
            let entry = json!({"manager": manager, "operation": "Apply", "fieldsV1": fields});
            serde_json::from_value(json!({"metadata": {"managedFields": [entry]}})).unwrap()
        };
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        assert!(is_ours_to_scale(&deployment(MANAGER, replicas.clone())));
        assert!(!is_ours_to_scale(&deployment("kubectl", replicas)));
        assert!(!is_ours_to_scale(&deployment(MANAGER, json!({"f:spec": {"f:template": {}}}))));
    }
}
