//! The objects of a gateway: those of a MeshInstallation and those of the Gateway API alike. Pure.

mod address;
mod deployment;
mod service;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::ServiceAccount,
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;
use serde_json::Value;

use super::{
    objects::{Objects, Prepared},
    patches::{PatchError, patched},
    scaling,
};
use crate::{
    api::meshwright::{
        Autoscaling, DisruptionBudget, GatewayService, ObjectPatch, PatchedKind, Placement,
        ServiceType,
    },
    webhook::inject::ProxySettings,
};

pub use address::addresses;

/// Ports of the proxy itself, which a gateway cannot serve.
pub const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 15000..=15099;

/// A gateway, ready to be built.
#[derive(Clone, Debug, Default)]
pub struct GatewayWorkload {
    pub name: String,
    pub namespace: String,
    pub owner: OwnerReference,
    /// Labels of all its objects.
    pub labels: BTreeMap<String, String>,
    /// Annotations of all its objects.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pods beside `labels`.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of its pods beside `annotations`.
    pub pod_annotations: BTreeMap<String, String>,
    /// Which pods are its own; part of their labels.
    pub selector: BTreeMap<String, String>,
    pub scale: Scale,
    pub placement: Placement,
    pub service: ServiceSettings,
    pub proxy: ProxySettings,
    /// Laid over its objects.
    pub patches: Vec<ObjectPatch>,
}

/// How many pods there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// `None` where the autoscaler decides.
    pub replicas: Option<i32>,
    pub autoscaling: Option<Autoscaling>,
    pub budget: Option<DisruptionBudget>,
}

impl Scale {
    /// What is asked for, and what holds by default where nothing is.
    pub fn resolve(
        replicas: Option<i32>,
        autoscaling: Option<Autoscaling>,
        budget: Option<DisruptionBudget>,
        default: Self,
    ) -> Self {
        let (replicas, autoscaling) = match (replicas, autoscaling) {
            (_, Some(autoscaling)) => (None, Some(autoscaling)),
            (Some(replicas), None) => (Some(replicas), None),
            (None, None) => (default.replicas, default.autoscaling),
        };
        let mut scale = Self { replicas, autoscaling, budget };
        if scale.budget.is_none() && scale.least() > 1 {
            scale.budget = Some(default.budget.unwrap_or_else(one_stays));
        }
        scale
    }

    /// How many pods there are at least.
    fn least(&self) -> i32 {
        let autoscaled = self.autoscaling.as_ref().map(|autoscaling| autoscaling.min_replicas);
        autoscaled.or(self.replicas).unwrap_or(1)
    }

    /// Whether there may be several pods.
    fn may_be_several(&self) -> bool {
        let autoscaled = self.autoscaling.as_ref().map(|autoscaling| autoscaling.max_replicas);
        autoscaled.or(self.replicas).unwrap_or(1) > 1
    }
}

/// The budget of a workload that says nothing about it.
pub fn one_stays() -> DisruptionBudget {
    DisruptionBudget { min_available: Some(IntOrString::Int(1)), max_unavailable: None }
}

/// What a gateway's Service says.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    pub kind: ServiceType,
    pub ports: Vec<Port>,
    /// Addresses that are asked for.
    pub addresses: Vec<IpAddr>,
    pub more: GatewayService,
}

/// A port of a gateway's Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub port: u16,
    pub node_port: Option<i32>,
    pub app_protocol: Option<&'static str>,
}

impl GatewayWorkload {
    /// Adds its objects. Its patches have been through [`Self::problem`]: the operator builds nothing
    /// that validation refuses.
    pub fn build(&self, objects: &mut Objects<Prepared>) {
        let built = self.objects().or_else(|_| self.without_patches().objects());
        let Ok(mut built) = built else { return };
        objects.service_accounts.append(&mut built.service_accounts);
        objects.services.append(&mut built.services);
        objects.deployments.append(&mut built.deployments);
        objects.horizontal_pod_autoscalers.append(&mut built.horizontal_pod_autoscalers);
        objects.pod_disruption_budgets.append(&mut built.pod_disruption_budgets);
    }

    fn without_patches(&self) -> Self {
        Self { patches: Vec::new(), ..self.clone() }
    }

    /// What is wrong with its patches.
    pub fn problem(&self) -> Option<PatchError> {
        self.objects().err()
    }

    /// Its objects with the patches laid over them.
    pub fn objects(&self) -> Result<Objects<Prepared>, PatchError> {
        self.patches_have_objects()?;
        let patches = &self.patches;
        let mut objects = Objects::default();
        let account = patched(self.service_account(), PatchedKind::ServiceAccount, patches)?;
        objects.service_accounts.push(account);
        objects.services.push(patched(self.service(), PatchedKind::Service, patches)?);
        let deployment = patched(self.deployment(), PatchedKind::Deployment, patches)?;
        if self.scale.autoscaling.is_some()
            && deployment.spec.as_ref().is_some_and(|s| s.replicas.is_some())
        {
            return Err(self.replicas_are_the_autoscalers());
        }
        objects.deployments.push(deployment);
        if let Some(autoscaling) = &self.scale.autoscaling {
            let scaler = scaling::autoscaler(self.metadata(), &self.name, autoscaling);
            let kind = PatchedKind::HorizontalPodAutoscaler;
            objects.horizontal_pod_autoscalers.push(patched(scaler, kind, patches)?);
        }
        if let Some(budget) = &self.scale.budget {
            let budget = if self.patches_the_budget() {
                DisruptionBudget::default()
            } else {
                budget.clone()
            };
            let budget = scaling::budget(self.metadata(), &self.selector, &budget);
            let kind = PatchedKind::PodDisruptionBudget;
            objects.pod_disruption_budgets.push(patched(budget, kind, patches)?);
        }
        Ok(objects)
    }

    /// A patch for an object that is not made would be ignored in silence.
    fn patches_have_objects(&self) -> Result<(), PatchError> {
        for (index, patch) in self.patches.iter().enumerate() {
            let remedy = match patch.kind {
                PatchedKind::HorizontalPodAutoscaler if self.scale.autoscaling.is_none() => {
                    "there is no HorizontalPodAutoscaler: set autoscaling"
                }
                PatchedKind::PodDisruptionBudget if self.scale.budget.is_none() => {
                    "there is no PodDisruptionBudget: set disruptionBudget"
                }
                _ => continue,
            };
            let (field, message) = (String::new(), remedy.to_owned());
            return Err(PatchError { index, field, message });
        }
        Ok(())
    }

    fn replicas_are_the_autoscalers(&self) -> PatchError {
        let says = |patch: &ObjectPatch| {
            patch.kind == PatchedKind::Deployment
                && patch.patch.0.get("spec").is_some_and(|spec| !spec["replicas"].is_null())
        };
        PatchError {
            index: self.patches.iter().position(says).unwrap_or_default(),
            field: "spec.replicas".to_owned(),
            message: "the autoscaler decides how many run: patch its minReplicas".to_owned(),
        }
    }

    /// Of `minAvailable` and `maxUnavailable` there can be one: a patch that names either means it.
    fn patches_the_budget(&self) -> bool {
        let says = |patch: &ObjectPatch| {
            let spec = patch.patch.0.get("spec").unwrap_or(&Value::Null);
            ["minAvailable", "maxUnavailable"].iter().any(|field| !spec[field].is_null())
        };
        let budgets = |patch: &&ObjectPatch| patch.kind == PatchedKind::PodDisruptionBudget;
        self.patches.iter().filter(budgets).any(says)
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.metadata(),
            // The proxy has a token of its own, for the mesh's CA only.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }
}
