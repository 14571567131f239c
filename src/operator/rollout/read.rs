//! Reads from the API server what a rollout must know of workloads.

mod pod;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::{Namespace, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    core::{PartialObjectMeta, Selector},
};
use serde::de::DeserializeOwned;

use self::workload::Shape;
use super::facts::{Budget, Facts};
use crate::{
    operator::fleet::{image::Wanted, proxy::Workload},
    webhook::inject::decide::selector as label_selector,
};

/// Kinds whose pods the operator can have made anew.
pub const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

type Labels = BTreeMap<String, String>;

/// Reads during one step; what is asked for twice is read once.
pub struct Reader<'a> {
    client: &'a Client,
    wanted: &'a Wanted,
    /// By namespace.
    budgets: BTreeMap<String, Vec<PodDisruptionBudget>>,
}

impl<'a> Reader<'a> {
    /// `wanted`: the images of new pods.
    pub fn new(client: &'a Client, wanted: &'a Wanted) -> Self {
        Self { client, wanted, budgets: BTreeMap::new() }
    }

    /// What there is to know of a workload; `None` if there is no such one.
    pub async fn facts(&mut self, workload: &Workload) -> kube::Result<Option<Facts>> {
        let shape = match workload.kind.as_str() {
            "Deployment" => self.get::<Deployment>(workload).await?.map(|d| Shape::deployment(&d)),
            "StatefulSet" => {
                self.get::<StatefulSet>(workload).await?.map(|s| Shape::stateful_set(&s))
            }
            "DaemonSet" => self.get::<DaemonSet>(workload).await?.map(|d| Shape::daemon_set(&d)),
            _ => None,
        };
        let Some(shape) = shape else { return Ok(None) };
        let pods = self.pods(&workload.namespace, &shape.selector).await?;
        let budgets = self.budgets(&workload.namespace, &pods).await?;
        let mut pods: Vec<_> = pods.iter().filter_map(|pod| pod::facts(pod, self.wanted)).collect();
        pods.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(Some(shape.facts(workload.clone(), pods, budgets)))
    }

    async fn get<K>(&self, workload: &Workload) -> kube::Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone,
        K: DeserializeOwned + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &workload.namespace);
        api.get_opt(&workload.name).await
    }

    async fn pods(&self, namespace: &str, selector: &LabelSelector) -> kube::Result<Vec<Pod>> {
        // A selector that cannot be read selects nothing.
        let Ok(selector) = Selector::try_from(selector.clone()) else { return Ok(Vec::new()) };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        Ok(api.list(&ListParams::default().labels_from(&selector)).await?.items)
    }

    async fn budgets(&mut self, namespace: &str, pods: &[Pod]) -> kube::Result<Vec<Budget>> {
        if !self.budgets.contains_key(namespace) {
            let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), namespace);
            let list = api.list(&ListParams::default()).await?.items;
            self.budgets.insert(namespace.to_owned(), list);
        }
        let all = self.budgets.get(namespace).into_iter().flatten();
        Ok(all.filter(|budget| pods.iter().any(|pod| selects(budget, pod))).map(allowed).collect())
    }
}

/// Labels of namespaces by their names.
pub async fn namespaces(client: &Client) -> kube::Result<BTreeMap<String, Labels>> {
    let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let list = api.list_metadata(&ListParams::default()).await?;
    let labels = |namespace: PartialObjectMeta<PartialObjectMeta<Namespace>>| {
        (namespace.name_any(), namespace.metadata.labels.unwrap_or_default())
    };
    Ok(list.items.into_iter().map(labels).collect())
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return false;
    };
    // Here, and only here, an empty selector is one for all.
    let empty = selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none();
    empty || label_selector::matches(selector, pod.labels())
}

fn allowed(budget: &PodDisruptionBudget) -> Budget {
    let status = budget.status.as_ref();
    // A budget that its controller has not seen in its present form allows nothing yet.
    let seen = status.filter(|status| {
        status.observed_generation.unwrap_or_default()
            >= budget.metadata.generation.unwrap_or_default()
    });
    Budget {
        name: format!("{}/{}", budget.namespace().unwrap_or_default(), budget.name_any()),
        allowed: seen.and_then(|s| usize::try_from(s.disruptions_allowed).ok()).unwrap_or(0),
    }
}
