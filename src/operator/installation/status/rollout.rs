//! How far Deployments are. Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use kube::ResourceExt;

/// How far some Deployments are.
#[derive(Debug, Default)]
pub struct Rollout {
    pub total: usize,
    /// Those whose pods are not all of the newest version yet.
    pub moving: Vec<String>,
    /// Those of which too few pods work.
    pub unavailable: Vec<String>,
}

impl Rollout {
    pub fn of<'a>(deployments: impl Iterator<Item = &'a Deployment>) -> Self {
        let mut rollout = Self::default();
        for deployment in deployments {
            rollout.total += 1;
            let Some(lag) = Lag::of(deployment) else { continue };
            let Lag { wanted, updated, available, .. } = lag;
            let name = name(deployment);
            if available < wanted {
                rollout.unavailable.push(format!("{name}: {available} of {wanted} available"));
            }
            rollout.moving.push(format!("{name}: {updated} of {wanted} updated"));
        }
        rollout
    }

    pub fn is_settled(&self) -> bool {
        self.moving.is_empty()
    }
}

/// What a Deployment that is not where it should be has.
struct Lag {
    wanted: i32,
    updated: i32,
    available: i32,
}

impl Lag {
    fn of(deployment: &Deployment) -> Option<Self> {
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let seen = status.observed_generation >= deployment.metadata.generation;
        let updated = if seen { status.updated_replicas.unwrap_or(0) } else { 0 };
        let available = status.available_replicas.unwrap_or(0);
        let old_ones = status.replicas.unwrap_or(0) > updated;
        let settled = seen && updated >= wanted && available >= wanted && !old_ones;
        (!settled).then_some(Self { wanted, updated, available })
    }
}

/// Whether its pods are all of the newest version and work.
pub fn is_settled(deployment: &Deployment) -> bool {
    Lag::of(deployment).is_none()
}

/// `NAMESPACE/NAME`.
pub fn name(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
}

/// What the Deployment itself says is wrong: pods that cannot be created, a rollout that got stuck.
pub fn failure(deployment: &Deployment) -> Option<(&'static str, String)> {
    let conditions = deployment.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let is = |kind: &str, status: &str| {
        let like = |c: &&DeploymentCondition| c.type_ == kind && c.status == status;
        conditions.iter().find(like)
    };
    let message = |condition: &DeploymentCondition| condition.message.clone().unwrap_or_default();
    if let Some(condition) = is("ReplicaFailure", "True") {
        let message = message(condition);
        return Some(if message.contains("exceeded quota") {
            ("QuotaExceeded", format!("{message}; raise the quota or ask for less"))
        } else {
            ("PodsRefused", message)
        });
    }
    is("Progressing", "False").map(|condition| ("RolloutStuck", message(condition)))
}
