//! How many pods of a workload run, and how many must stay. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        autoscaling::v2::{
            CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
            MetricSpec, MetricTarget, ResourceMetricSource,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::api::ObjectMeta;

use crate::api::meshwright::{Autoscaling, DisruptionBudget};

/// A HorizontalPodAutoscaler of the Deployment named `target`, which must not say how many replicas
/// it wants: the two would undo each other's work.
pub fn autoscaler(
    metadata: ObjectMeta,
    target: &str,
    autoscaling: &Autoscaling,
) -> HorizontalPodAutoscaler {
    let targets =
        [("cpu", autoscaling.target_cpu_percent), ("memory", autoscaling.target_memory_percent)];
    let metrics: Vec<_> =
        targets.into_iter().filter_map(|(name, percent)| Some(metric(name, percent?))).collect();
    HorizontalPodAutoscaler {
        metadata,
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: target.to_owned(),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: (!metrics.is_empty()).then_some(metrics),
            behavior: None,
        }),
        status: None,
    }
}

fn metric(name: &str, percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: name.to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

/// A PodDisruptionBudget for the pods that `selector` matches.
pub fn budget(
    metadata: ObjectMeta,
    selector: &BTreeMap<String, String>,
    budget: &DisruptionBudget,
) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            min_available: budget.min_available.clone(),
            max_unavailable: budget.max_unavailable.clone(),
            selector: Some(LabelSelector {
                match_labels: Some(selector.clone()),
                match_expressions: None,
            }),
            // A pod that does not work protects nobody, and would keep its node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use serde_json::json;

    use super::*;

    #[test]
    fn scales_by_what_is_asked_for() {
        let by = |cpu, memory| {
            let autoscaling = Autoscaling {
                min_replicas: 2,
                max_replicas: 4,
                target_cpu_percent: cpu,
                target_memory_percent: memory,
            };
            let built = autoscaler(ObjectMeta::default(), "a", &autoscaling);
            serde_json::to_value(built).unwrap()["spec"].take()
        };
        let resource = |name, percent| {
            json!({"type": "Resource", "resource": {
                "name": name, "target": {"type": "Utilization", "averageUtilization": percent},
            }})
        };
        let both = by(Some(80), Some(70));
        assert_eq!(both["metrics"], json!([resource("cpu", 80), resource("memory", 70)]));
        assert_eq!((&both["minReplicas"], &both["maxReplicas"]), (&json!(2), &json!(4)));
        assert_eq!(both["scaleTargetRef"]["name"], "a");
        assert_eq!(by(None, Some(70))["metrics"], json!([resource("memory", 70)]));
        // The API server then scales by CPU.
        assert_eq!(by(None, None)["metrics"], json!(null));
    }

    #[test]
    fn a_budget_is_about_the_pods_of_the_workload() {
        let one = DisruptionBudget {
            min_available: Some(IntOrString::String("50%".to_owned())),
            max_unavailable: None,
        };
        let selector = [("app".to_owned(), "a".to_owned())].into();
        let built = budget(ObjectMeta::default(), &selector, &one);
        let expected = json!({
            "minAvailable": "50%", "selector": {"matchLabels": {"app": "a"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        });
        assert_eq!(serde_json::to_value(built).unwrap()["spec"], expected);
    }
}
