//! Where the pods of control planes and gateways run. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PodSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::api::meshwright::Placement;

/// Label of a node that is different on each.
const NODE: &str = "kubernetes.io/hostname";
/// Label that tells the pods of one version of a Deployment from those of another.
const POD_TEMPLATE: &str = "pod-template-hash";

/// Puts the placement into a pod's spec. `selector` matches the pods of the workload; `several` says
/// that there may be more than one of them, which are then spread over nodes unless the placement has
/// its own idea.
pub fn place(
    pod: &mut PodSpec,
    placement: &Placement,
    selector: &BTreeMap<String, String>,
    several: bool,
) {
    let Placement {
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
    } = placement;
    pod.node_selector = (!node_selector.is_empty()).then(|| node_selector.clone());
    pod.tolerations = (!tolerations.is_empty()).then(|| tolerations.clone());
    pod.affinity.clone_from(affinity);
    pod.priority_class_name =
        (!priority_class_name.is_empty()).then(|| priority_class_name.clone());
    let spread = if !topology_spread_constraints.is_empty() {
        let about_us = |constraint: &TopologySpreadConstraint| about(constraint.clone(), selector);
        topology_spread_constraints.iter().map(about_us).collect()
    } else if several && !spreads_by_affinity(placement) {
        vec![over_nodes(selector)]
    } else {
        Vec::new()
    };
    pod.topology_spread_constraints = (!spread.is_empty()).then_some(spread);
}

/// Whoever says how pods keep away from each other has decided how they are spread.
fn spreads_by_affinity(placement: &Placement) -> bool {
    placement.affinity.as_ref().is_some_and(|affinity| affinity.pod_anti_affinity.is_some())
}

/// A wish rather than a demand: on one node, all of them run there.
fn over_nodes(selector: &BTreeMap<String, String>) -> TopologySpreadConstraint {
    let constraint = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: NODE.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        // The pods of the version that goes do not count, or the new ones end up unevenly.
        match_label_keys: Some(vec![POD_TEMPLATE.to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    about(constraint, selector)
}

/// A constraint without a selector would count no pod at all.
fn about(
    mut constraint: TopologySpreadConstraint,
    selector: &BTreeMap<String, String>,
) -> TopologySpreadConstraint {
    constraint.label_selector.get_or_insert_with(|| LabelSelector {
        match_labels: Some(selector.clone()),
        match_expressions: None,
    });
    constraint
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn placed(placement: Value, several: bool) -> Value {
        let placement: Placement = serde_json::from_value(placement).unwrap();
        let mut pod = PodSpec::default();
        place(&mut pod, &placement, &[("app".to_owned(), "a".to_owned())].into(), several);
        let mut value = serde_json::to_value(&pod).unwrap();
        value.as_object_mut().unwrap().remove("containers");
        value
    }

    #[test]
    fn one_pod_that_may_run_anywhere_says_nothing() {
        assert_eq!(placed(json!({}), false), json!({}));
    }

    #[test]
    fn several_pods_are_spread_over_nodes_where_nothing_is_said() {
        let spread = json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": NODE, "whenUnsatisfiable": "ScheduleAnyway",
            "matchLabelKeys": [POD_TEMPLATE], "labelSelector": {"matchLabels": {"app": "a"}},
        }]});
        assert_eq!(placed(json!({}), true), spread);
        let apart = json!({"podAntiAffinity": {}});
        assert_eq!(placed(json!({"affinity": apart}), true), json!({"affinity": apart}));
    }

    #[test]
    fn what_is_said_is_taken_as_it_is() {
        let said = json!({
            "nodeSelector": {"pool": "edge"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "topologySpreadConstraints": [{
                "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"other": "b"}},
            }],
        });
        assert_eq!(placed(said.clone(), true), said);
    }

    #[test]
    fn a_constraint_without_a_selector_is_about_the_pods_of_the_workload() {
        let bare =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        let pod = placed(json!({"topologySpreadConstraints": [bare]}), false);
        let selector = &pod["topologySpreadConstraints"][0]["labelSelector"];
        assert_eq!(selector, &json!({"matchLabels": {"app": "a"}}));
    }
}
