use serde_json::json;

use super::*;
use crate::api::meshwright::PartialObject;

fn patch(kind: PatchedKind, patch: Value) -> ObjectPatch {
    let Value::Object(patch) = patch else { panic!("a patch is an object") };
    ObjectPatch { kind, patch: PartialObject(patch) }
}

fn autoscaled(patches: Vec<ObjectPatch>) -> GatewayWorkload {
    GatewayWorkload {
        name: "in".to_owned(),
        scale: Scale::resolve(
            None,
            Some(Autoscaling { min_replicas: 2, ..Autoscaling::default() }),
            None,
            Scale::default(),
        ),
        patches,
        ..GatewayWorkload::default()
    }
}

#[test]
fn what_is_said_goes_before_the_default() {
    let default = || Scale {
        replicas: None,
        autoscaling: Some(Autoscaling {
            min_replicas: 2,
            max_replicas: 10,
            ..Autoscaling::default()
        }),
        budget: Some(one_stays()),
    };
    assert_eq!(Scale::resolve(None, None, None, default()), default());
    let two = Scale::resolve(Some(2), None, None, default());
    assert_eq!((two.replicas, two.autoscaling, two.budget), (Some(2), None, Some(one_stays())));
    let one = Scale::resolve(Some(1), None, None, default());
    assert_eq!(one.budget, None, "a budget for one pod would keep its node from being drained");
    let asked = Autoscaling { min_replicas: 1, max_replicas: 3, ..Autoscaling::default() };
    let scaled = Scale::resolve(None, Some(asked.clone()), None, default());
    assert_eq!((scaled.replicas, scaled.autoscaling, scaled.budget), (None, Some(asked), None));
}

#[test]
fn the_autoscaler_and_a_patch_do_not_both_decide() {
    let patches = vec![
        patch(PatchedKind::Service, json!({})),
        patch(PatchedKind::Deployment, json!({"spec": {"replicas": 3}})),
    ];
    let error = autoscaled(patches).objects().unwrap_err();
    assert_eq!(error.path(), "patches[1].patch.spec.replicas");
}

#[test]
fn a_patch_for_an_object_that_is_not_there_is_refused() {
    let workload = GatewayWorkload {
        patches: vec![patch(PatchedKind::HorizontalPodAutoscaler, json!({"spec": {}}))],
        ..GatewayWorkload::default()
    };
    assert!(workload.problem().unwrap().message.contains("set autoscaling"));
    // What cannot be is not built, and the rest is.
    let mut objects = Objects::default();
    workload.build(&mut objects);
    assert_eq!((objects.deployments.len(), objects.services.len()), (1, 1));
}

#[test]
fn a_patched_budget_is_the_patchs() {
    let patches =
        vec![patch(PatchedKind::PodDisruptionBudget, json!({"spec": {"maxUnavailable": "25%"}}))];
    let objects = autoscaled(patches).objects().unwrap();
    let spec = objects.pod_disruption_budgets[0].spec.clone().unwrap();
    assert_eq!(spec.min_available, None);
    assert_eq!(spec.max_unavailable, Some(IntOrString::String("25%".to_owned())));
}
