//! What control planes and gateways have in common: how many run, what they ask for, where they go.

use std::{collections::BTreeMap, collections::BTreeSet, fmt::Debug};

use k8s_openapi::{
    api::core::v1::{Toleration, TopologySpreadConstraint},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::Findings;
use crate::{
    api::meshwright::{
        Autoscaling, ControlPlane, DisruptionBudget, Gateway, MeshInstallation, Placement,
        Resources,
    },
    operator::installation::build,
    webhook::inject::options::{amounts, form},
};

/// One Deployment, with what its profile decides filled in.
struct Workload<'a> {
    /// `spec.controlPlane` or `spec.gateways[3]`.
    path: String,
    /// As the spec itself says it beside autoscaling.
    said: Option<i32>,
    replicas: Option<i32>,
    autoscaling: Option<&'a Autoscaling>,
    budget: Option<&'a DisruptionBudget>,
    placement: &'a Placement,
    /// None: those of every proxy, which ask for CPU and memory.
    resources: Option<&'a Resources>,
}

pub(super) fn check(findings: &mut Findings, installation: &MeshInstallation) {
    let spec = &installation.spec;
    let resolved = spec.resolved();
    let ControlPlane { replicas, autoscaling, disruption_budget, placement, resources, .. } =
        &resolved.control_plane;
    findings.workload(&Workload {
        path: "spec.controlPlane".to_owned(),
        said: spec.control_plane.replicas,
        replicas: *replicas,
        autoscaling: autoscaling.as_ref(),
        budget: disruption_budget.as_ref(),
        placement,
        resources: resources.as_ref(),
    });
    for (index, (said, gateway)) in spec.gateways.iter().zip(&resolved.gateways).enumerate() {
        let Gateway { replicas, autoscaling, disruption_budget, placement, resources, .. } =
            gateway;
        let path = format!("spec.gateways[{index}]");
        findings.resources(&format!("{path}.resources"), said.resources.as_ref());
        findings.workload(&Workload {
            path,
            // A gateway that says both is refused as such.
            said: None,
            replicas: *replicas,
            autoscaling: autoscaling.as_ref(),
            budget: disruption_budget.as_ref(),
            placement,
            resources: resources.as_ref(),
        });
    }
    if let Some(problem) = build::control_plane_patch_problem(installation) {
        let path = format!("spec.controlPlane.{}", problem.path());
        findings.error(path, "InvalidPatch", problem.message);
    }
}

impl Findings {
    fn workload(&mut self, workload: &Workload<'_>) {
        if let Some(autoscaling) = workload.autoscaling {
            self.autoscaling(workload, autoscaling);
        }
        if let Some(budget) = workload.budget {
            self.budget(workload, budget);
        }
        self.placement(&format!("{}.placement", workload.path), workload.placement);
    }

    fn autoscaling(&mut self, workload: &Workload<'_>, autoscaling: &Autoscaling) {
        let path = &workload.path;
        let Autoscaling { min_replicas: min, max_replicas: max, .. } = autoscaling;
        if min > max {
            let message = format!("{min} is more than maxReplicas, {max}");
            self.error(format!("{path}.autoscaling.minReplicas"), "InvalidAutoscaling", message);
        }
        if let Some(said) = workload.said {
            let path = format!("{path}.replicas");
            if (min..=max).contains(&&said) {
                let message = format!("autoscaling decides between {min} and {max}: remove it");
                self.warning(path, "NoEffect", message);
            } else {
                let message = format!(
                    "{said} is outside of what autoscaling may choose, {min} to {max}: remove it or the autoscaling"
                );
                self.error(path, "OutsideAutoscaling", message);
            }
        }
        let targets = [
            ("cpu", "targetCpuPercent", autoscaling.target_cpu_percent),
            ("memory", "targetMemoryPercent", autoscaling.target_memory_percent),
        ];
        for (resource, field, target) in targets {
            if target.is_some() && !workload.resources.is_none_or(|r| asks_for(r, resource)) {
                let message = format!(
                    "is a percentage of what the pods ask for, and {path}.resources.requests has no {resource}: autoscaling could not work"
                );
                self.error(format!("{path}.autoscaling.{field}"), "NothingToMeasure", message);
            }
        }
    }

    fn budget(&mut self, workload: &Workload<'_>, budget: &DisruptionBudget) {
        let path = format!("{}.disruptionBudget", workload.path);
        let (field, amount) = match (&budget.min_available, &budget.max_unavailable) {
            (Some(amount), None) => ("minAvailable", amount),
            (None, Some(amount)) => ("maxUnavailable", amount),
            _ => {
                let message = "give either minAvailable or maxUnavailable";
                self.error(path, "InvalidBudget", message);
                return;
            }
        };
        let path = format!("{path}.{field}");
        let Some((number, is_percent)) = amount_of(amount) else {
            let message = format!("{amount:?} is neither a number nor a percentage such as 50%");
            self.error(path, "InvalidBudget", message);
            return;
        };
        let least = workload.autoscaling.map_or(workload.replicas, |a| Some(a.min_replicas));
        let whole = if is_percent { 100 } else { least.unwrap_or(1) };
        let nobody_may_go = match field {
            "minAvailable" => number >= whole,
            _ => number == 0,
        };
        if nobody_may_go {
            let message = format!(
                "with {} replicas no pod may ever go: draining a node waits for ever, unless autoscaling has started more",
                least.unwrap_or(1)
            );
            self.warning(path, "NeverSatisfied", message);
        }
    }

    fn placement(&mut self, path: &str, placement: &Placement) {
        let Placement { tolerations, topology_spread_constraints, priority_class_name, .. } =
            placement;
        self.duplicates(&format!("{path}.tolerations"), tolerations);
        for (index, toleration) in tolerations.iter().enumerate() {
            if let Some((field, message)) = wrong_toleration(toleration) {
                let path = format!("{path}.tolerations[{index}].{field}");
                self.error(path, "InvalidToleration", message);
            }
        }
        let mut seen = BTreeSet::new();
        for (index, constraint) in topology_spread_constraints.iter().enumerate() {
            let path = format!("{path}.topologySpreadConstraints[{index}]");
            if let Some((field, message)) = wrong_spread(constraint) {
                self.error(format!("{path}.{field}"), "InvalidSpread", message);
            }
            if !seen.insert((&constraint.topology_key, &constraint.when_unsatisfiable)) {
                let message = "a constraint of the same topologyKey and whenUnsatisfiable stands above it already";
                self.error(path, "Duplicate", message);
            }
        }
        if !priority_class_name.is_empty() && !form::is_name(priority_class_name) {
            let message = format!("{priority_class_name:?} is no name of a PriorityClass");
            self.error(format!("{path}.priorityClassName"), "InvalidName", message);
        }
    }

    fn duplicates<T: PartialEq + Debug>(&mut self, path: &str, items: &[T]) {
        for (index, item) in items.iter().enumerate() {
            if items[..index].contains(item) {
                self.error(format!("{path}[{index}]"), "Duplicate", "it stands above already");
            }
        }
    }
}

/// What has a limit asks for that much.
fn asks_for(resources: &Resources, name: &str) -> bool {
    let more_than_none = |amounts: &BTreeMap<String, IntOrString>| match amounts.get(name) {
        Some(IntOrString::Int(amount)) => *amount > 0,
        Some(IntOrString::String(text)) => amounts::parse(text).is_some_and(|amount| amount > 0.0),
        None => false,
    };
    let has_request = resources.requests.contains_key(name);
    more_than_none(if has_request { &resources.requests } else { &resources.limits })
}

/// The number, and whether it is a percentage.
fn amount_of(amount: &IntOrString) -> Option<(i32, bool)> {
    let (number, is_percent) = match amount {
        IntOrString::Int(number) => (*number, false),
        IntOrString::String(text) => (text.strip_suffix('%')?.parse().ok()?, true),
    };
    (number >= 0 && !(is_percent && number > 100)).then_some((number, is_percent))
}

fn wrong_toleration(toleration: &Toleration) -> Option<(&'static str, &'static str)> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    match operator.as_str() {
        "Exists" if !text(&toleration.value).is_empty() => {
            Some(("value", "an operator Exists compares no value: remove one of the two"))
        }
        "" | "Equal" if text(&toleration.key).is_empty() => {
            Some(("operator", "without a key it must be Exists, which tolerates everything"))
        }
        "" | "Equal" | "Exists" => match effect.as_str() {
            "" | "NoSchedule" | "PreferNoSchedule" if toleration.toleration_seconds.is_some() => {
                Some(("tolerationSeconds", "is about the effect NoExecute only"))
            }
            "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute" => None,
            _ => Some(("effect", "must be NoSchedule, PreferNoSchedule, NoExecute or nothing")),
        },
        _ => Some(("operator", "must be Equal or Exists")),
    }
}

fn wrong_spread(constraint: &TopologySpreadConstraint) -> Option<(&'static str, &'static str)> {
    if constraint.max_skew < 1 {
        return Some(("maxSkew", "must be at least 1"));
    }
    if constraint.topology_key.is_empty() {
        return Some(("topologyKey", "must be a label of nodes"));
    }
    if !["DoNotSchedule", "ScheduleAnyway"].contains(&constraint.when_unsatisfiable.as_str()) {
        return Some(("whenUnsatisfiable", "must be DoNotSchedule or ScheduleAnyway"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::check_json;

    fn problems(spec: &Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": "mesh"}, "spec": spec,
        });
        let found = check_json(&object, std::iter::empty()).unwrap();
        found.into_iter().map(|f| format!("{} {:?} {}", f.path, f.severity, f.reason)).collect()
    }

    #[test]
    fn profiles_are_valid() {
        for profile in ["minimal", "default", "ha", "demo"] {
            let spec = json!({"profile": profile, "gateways": [{"name": "edge"}]});
            assert_eq!(problems(&spec), Vec::<String>::new(), "{profile}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_cannot_work_names_its_field() {
        let scaled = |more: Value| {
            let mut workload = json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 4}});
            workload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            workload
        };
        let memory_only = json!({"resources": {"requests": {"memory": "64Mi"}}});
        let limited = json!({"resources": {"limits": {"cpu": "1"}}});
        for (workload, expected) in [
            (scaled(json!({})), None),
            (scaled(limited), None),
            (scaled(memory_only), Some("autoscaling.targetCpuPercent Error NothingToMeasure")),
            (scaled(json!({"replicas": 9})), Some("replicas Error OutsideAutoscaling")),
            (scaled(json!({"replicas": 3})), Some("replicas Warning NoEffect")),
            (
                scaled(json!({"disruptionBudget": {"minAvailable": 2}})),
                Some("disruptionBudget.minAvailable Warning NeverSatisfied"),
            ),
            (scaled(json!({"disruptionBudget": {"minAvailable": "50%"}})), None),
            (
                json!({"disruptionBudget": {"maxUnavailable": 0}}),
                Some("disruptionBudget.maxUnavailable Warning NeverSatisfied"),
            ),
            (json!({"disruptionBudget": {}}), Some("disruptionBudget Error InvalidBudget")),
            (
                json!({"disruptionBudget": {"minAvailable": "half"}}),
                Some("disruptionBudget.minAvailable Error InvalidBudget"),
            ),
            (
                json!({"resources": {"requests": {"cpu": -1}}}),
                Some("resources.requests.cpu Error InvalidQuantity"),
            ),
            (
                json!({"placement": {"tolerations": [{"operator": "Exists"}, {"operator": "Exists"}]}}),
                Some("placement.tolerations[1] Error Duplicate"),
            ),
            (
                json!({"placement": {"tolerations": [{"key": "a", "operator": "Like"}]}}),
                Some("placement.tolerations[0].operator Error InvalidToleration"),
            ),
            (
                json!({"placement": {"topologySpreadConstraints": [
                    {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"},
                ]}}),
                Some("placement.topologySpreadConstraints[0].maxSkew Error InvalidSpread"),
            ),
            (
                json!({"placement": {"priorityClassName": "Very High"}}),
                Some("placement.priorityClassName Error InvalidName"),
            ),
        ] {
            let expect = |path: &str| -> Vec<String> {
                expected.iter().map(|expected| format!("{path}.{expected}")).collect()
            };
            let spec = json!({"controlPlane": workload});
            assert_eq!(problems(&spec), expect("spec.controlPlane"), "{workload}");
            if workload.get("replicas").is_some() {
                continue;
            }
            let mut gateway = workload.clone();
            gateway["name"] = json!("edge");
            let spec = json!({"gateways": [gateway]});
            assert_eq!(problems(&spec), expect("spec.gateways[0]"), "{workload}");
        }
    }

    #[test]
    fn a_bad_patch_is_named() {
        let patch = |patch: Value| json!({"controlPlane": {"patches": [{"kind": "Deployment", "patch": patch}]}});
        let fine = patch(json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}));
        assert_eq!(problems(&fine), Vec::<String>::new());
        let found = problems(&patch(json!({"spec": {"minReadySeconds": "soon"}})));
        let expected =
            ["spec.controlPlane.patches[0].patch.spec.minReadySeconds Error InvalidPatch"];
        assert_eq!(found, expected);
        let found = problems(&patch(json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})));
        assert!(found[0].starts_with("spec.controlPlane.patches[0].patch.spec.selector Error"));
    }
}
