//! What the operator makes, as a value: prepared by pure builders, applied in one place.

use std::marker::PhantomData;

use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};

/// Built, not in the cluster yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepared;

/// In the cluster before anything is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found;

/// As the API server returned them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied;

/// Objects of one owner. Status is computed from `Objects<Applied>` only.
#[derive(Clone, Debug)]
pub struct Objects<State> {
    pub service_accounts: Vec<ServiceAccount>,
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
    pub services: Vec<Service>,
    pub deployments: Vec<Deployment>,
    pub horizontal_pod_autoscalers: Vec<HorizontalPodAutoscaler>,
    pub pod_disruption_budgets: Vec<PodDisruptionBudget>,
    pub mutating_webhooks: Vec<MutatingWebhookConfiguration>,
    pub validating_webhooks: Vec<ValidatingWebhookConfiguration>,
    pub state: PhantomData<State>,
}

impl<State> Default for Objects<State> {
    fn default() -> Self {
        Self {
            service_accounts: Vec::new(),
            cluster_roles: Vec::new(),
            cluster_role_bindings: Vec::new(),
            roles: Vec::new(),
            role_bindings: Vec::new(),
            services: Vec::new(),
            deployments: Vec::new(),
            horizontal_pod_autoscalers: Vec::new(),
            pod_disruption_budgets: Vec::new(),
            mutating_webhooks: Vec::new(),
            validating_webhooks: Vec::new(),
            state: PhantomData,
        }
    }
}
