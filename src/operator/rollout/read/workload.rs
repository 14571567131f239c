//! What Deployments, StatefulSets and DaemonSets say of themselves, in one form.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, DeploymentStatus, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::{
    api::meshwright::{
        fleet::hundredths,
        labels::{RESTARTED_AT, RESTARTED_FOR},
    },
    operator::{
        fleet::proxy::Workload,
        rollout::facts::{Budget, Facts, Pod, Restarted},
    },
};

/// A workload without its pods.
pub(super) struct Shape {
    pub(super) selector: LabelSelector,
    labels: BTreeMap<String, String>,
    wanted: usize,
    unsettled: Option<String>,
    stuck: Option<String>,
    takes: usize,
    on_delete: bool,
    immovable: Option<String>,
    restarted: Option<Restarted>,
}

impl Shape {
    pub(super) fn deployment(deployment: &Deployment) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = count(spec.replicas.or(Some(1)));
        let counts = Counts {
            wanted,
            updated: count(status.updated_replicas),
            available: count(status.available_replicas),
            all: count(status.replicas),
        };
        let strategy = spec.strategy.unwrap_or_default();
        let takes = match strategy.rolling_update {
            _ if strategy.type_.as_deref() == Some("Recreate") => wanted,
            Some(update) => rounded_down(update.max_unavailable.as_ref(), wanted, "25%"),
            None => rounded_down(None, wanted, "25%"),
        };
        Self {
            selector: spec.selector,
            wanted,
            unsettled: unsettled(&deployment.metadata, status.observed_generation, counts),
            stuck: stuck(&status),
            takes,
            on_delete: false,
            immovable: spec
                .paused
                .unwrap_or_default()
                .then(|| "its own rollouts are paused (spec.paused)".to_owned()),
            ..Self::of(&deployment.metadata, &spec.template)
        }
    }

    pub(super) fn stateful_set(set: &StatefulSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let wanted = count(spec.replicas.or(Some(1)));
        let strategy = spec.update_strategy.unwrap_or_default();
        let partition = strategy.rolling_update.and_then(|update| update.partition).unwrap_or(0);
        let on_delete = strategy.type_.as_deref() == Some("OnDelete");
        let counts = Counts {
            wanted,
            // Of one that waits for its pods to be deleted, old ones are no rollout.
            updated: if on_delete { wanted } else { count(status.updated_replicas) },
            available: count(status.available_replicas.or(status.ready_replicas)),
            all: count(Some(status.replicas)),
        };
        Self {
            selector: spec.selector,
            wanted,
            unsettled: unsettled(&set.metadata, status.observed_generation, counts),
            takes: 1,
            on_delete,
            immovable: (partition > 0).then(|| {
                format!("its own rollouts stop at pod {partition} (spec.updateStrategy.rollingUpdate.partition)")
            }),
            ..Self::of(&set.metadata, &spec.template)
        }
    }

    pub(super) fn daemon_set(set: &DaemonSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let wanted = count(Some(status.desired_number_scheduled));
        let strategy = spec.update_strategy.unwrap_or_default();
        let on_delete = strategy.type_.as_deref() == Some("OnDelete");
        let counts = Counts {
            wanted,
            updated: if on_delete { wanted } else { count(status.updated_number_scheduled) },
            available: count(status.number_available),
            // While it surges there are more, of which its status does not tell.
            all: wanted,
        };
        let most = strategy.rolling_update.and_then(|update| update.max_unavailable);
        Self {
            selector: spec.selector,
            wanted,
            unsettled: unsettled(&set.metadata, status.observed_generation, counts),
            takes: rounded_down(most.as_ref(), wanted, "1"),
            on_delete,
            ..Self::of(&set.metadata, &spec.template)
        }
    }

    fn of(metadata: &ObjectMeta, template: &PodTemplateSpec) -> Self {
        Self {
            selector: LabelSelector::default(),
            labels: labels(metadata, template),
            wanted: 0,
            unsettled: None,
            stuck: None,
            takes: 0,
            on_delete: false,
            immovable: None,
            restarted: restarted(template),
        }
    }

    pub(super) fn facts(self, workload: Workload, pods: Vec<Pod>, budgets: Vec<Budget>) -> Facts {
        let Self {
            labels, wanted, unsettled, stuck, takes, on_delete, immovable, restarted, ..
        } = self;
        Facts {
            workload,
            labels,
            wanted,
            unsettled,
            stuck,
            takes,
            on_delete,
            immovable,
            restarted,
            pods,
            budgets,
        }
    }
}

#[derive(Clone, Copy)]
struct Counts {
    wanted: usize,
    updated: usize,
    available: usize,
    all: usize,
}

fn unsettled(metadata: &ObjectMeta, observed: Option<i64>, counts: Counts) -> Option<String> {
    let Counts { wanted, updated, available, all } = counts;
    if observed < metadata.generation {
        Some("its controller has not seen its last change".to_owned())
    } else if updated < wanted {
        Some(format!("{updated} of {wanted} pods are updated"))
    } else if available < wanted {
        Some(format!("{available} of {wanted} pods are available"))
    } else if all > wanted {
        Some(format!("{} former pods are left", all - wanted))
    } else {
        None
    }
}

/// A Deployment says when it does not get on.
fn stuck(status: &DeploymentStatus) -> Option<String> {
    let failing = |kind: &str, state: &str| (kind == "Progressing") == (state == "False");
    let conditions = status.conditions.iter().flatten();
    let mut relevant =
        conditions.filter(|c| matches!(c.type_.as_str(), "Progressing" | "ReplicaFailure"));
    let condition = relevant
        .find(|c| c.status != "Unknown" && failing(&c.type_, &c.status) && c.reason.is_some())?;
    condition.message.clone().or_else(|| condition.reason.clone())
}

fn restarted(template: &PodTemplateSpec) -> Option<Restarted> {
    let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
    let at = annotations.get(RESTARTED_AT)?.parse().ok()?;
    Some(Restarted { at, image: annotations.get(RESTARTED_FOR)?.clone() })
}

/// Its own and those of its pods, by which people know it alike.
fn labels(metadata: &ObjectMeta, template: &PodTemplateSpec) -> BTreeMap<String, String> {
    let of_pods = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let mut labels = of_pods.unwrap_or_default();
    labels.extend(metadata.labels.clone().unwrap_or_default());
    labels
}

fn rounded_down(amount: Option<&IntOrString>, of: usize, default: &str) -> usize {
    let default = match default.parse() {
        Ok(number) => IntOrString::Int(number),
        Err(_) => IntOrString::String(default.to_owned()),
    };
    hundredths(amount.unwrap_or(&default), of).map_or(0, |hundredths| hundredths / 100).min(of)
}

fn count(number: Option<i32>) -> usize {
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(changes: &Value) -> Shape {
        let mut object = json!({
            "metadata": {"name": "web", "generation": 3},
            "spec": {"replicas": 4, "selector": {}, "template": {}},
            "status": {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 4,
                       "availableReplicas": 4},
        });
        json_patch::merge(&mut object, changes);
        Shape::deployment(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_deployment_that_is_rolled_out_is_settled() {
        let shape = deployment(&json!({}));
        assert_eq!((shape.wanted, shape.takes, shape.unsettled), (4, 1, None));
        assert_eq!((shape.stuck, shape.immovable, shape.restarted), (None, None, None));
    }

    #[test]
    fn says_what_is_missing() {
        for (changes, want) in [
            (json!({"metadata": {"generation": 4}}), "its controller has not seen"),
            (json!({"status": {"updatedReplicas": 1}}), "1 of 4 pods are updated"),
            (json!({"status": {"availableReplicas": 3}}), "3 of 4 pods are available"),
            (json!({"status": {"replicas": 5}}), "1 former pods are left"),
        ] {
            let shape = deployment(&changes);
            assert!(shape.unsettled.unwrap().starts_with(want), "{want}");
        }
    }

    #[test]
    fn its_strategy_says_how_many_go_at_once() {
        for (strategy, takes) in [
            (json!({"type": "Recreate"}), 4),
            (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}), 0),
            (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}), 2),
            (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 9}}), 4),
        ] {
            assert_eq!(deployment(&json!({"spec": {"strategy": strategy}})).takes, takes);
        }
    }

    #[test]
    fn a_rollout_that_does_not_get_on_says_why() {
        let with = |kind: &str, status: &str| {
            let condition =
                json!({"type": kind, "status": status, "reason": "R", "message": "because"});
            deployment(&json!({"status": {"conditions": [condition]}})).stuck
        };
        assert_eq!(with("Progressing", "True"), None);
        assert_eq!(with("ReplicaFailure", "False"), None);
        assert_eq!(with("Available", "False"), None);
        assert_eq!(with("Progressing", "False").as_deref(), Some("because"));
        assert_eq!(with("ReplicaFailure", "True").as_deref(), Some("because"));
    }

    #[test]
    fn knows_what_was_restarted_for_which_image() {
        let annotations = json!({
            RESTARTED_AT: "2026-11-21T10:00:00Z", RESTARTED_FOR: "proxy:2",
        });
        let template = json!({"template": {"metadata": {"annotations": annotations}}});
        let restarted = deployment(&json!({"spec": template})).restarted.unwrap();
        assert_eq!(restarted.at.to_string(), "2026-11-21T10:00:00Z");
        assert_eq!(restarted.image, "proxy:2");
    }

    #[test]
    fn pods_that_are_only_replaced_by_hand_are_no_rollout() {
        let set = json!({
            "metadata": {"name": "db", "generation": 1},
            "spec": {"replicas": 3, "serviceName": "db", "selector": {}, "template": {},
                     "updateStrategy": {"type": "OnDelete"}},
            "status": {"observedGeneration": 1, "replicas": 3, "availableReplicas": 3,
                       "updatedReplicas": 1},
        });
        let shape = Shape::stateful_set(&serde_json::from_value(set).unwrap());
        assert!(shape.on_delete);
        assert_eq!(shape.unsettled, None);
        let set = json!({
            "metadata": {"name": "logs", "generation": 1},
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 5, "numberAvailable": 4,
                       "updatedNumberScheduled": 5, "currentNumberScheduled": 5,
                       "numberMisscheduled": 0, "numberReady": 4},
        });
        let shape = Shape::daemon_set(&serde_json::from_value(set).unwrap());
        assert_eq!((shape.takes, shape.on_delete), (1, false));
        assert_eq!(shape.unsettled.as_deref(), Some("4 of 5 pods are available"));
    }
}
