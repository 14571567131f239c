//! What the chart renders: a case for each way to use it, which together set every value there is to
//! something else than its default. `MESHWRIGHT_UPDATE=1` rewrites the results.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "chart/helm.rs"]
mod helm;

use std::{collections::BTreeSet, env, fs};

use helm::{cases, file, objects, render, yaml};
use serde_json::{Value, json};

/// The chart with a case's values. Of definitions, which have tests of their own, only the head.
fn rendered(values: &str) -> String {
    let rendered = render(&[], values).unwrap();
    let mut result = String::new();
    for (text, object) in objects(&rendered) {
        result.push_str("---\n");
        if object["kind"] == "CustomResourceDefinition" {
            let head = json!({"kind": object["kind"], "metadata": object["metadata"]});
            result.push_str(&serde_saphyr::to_string(&head).unwrap());
        } else {
            result.push_str(text.trim_end());
            result.push('\n');
        }
    }
    result
}

#[test]
fn every_case_renders_as_it_should() {
    for (case, values) in cases() {
        let result = rendered(&values);
        let golden = file("tests/golden/chart").join(&case).join("result.yaml");
        if env::var_os("MESHWRIGHT_UPDATE").is_some() {
            fs::write(&golden, &result).unwrap();
        }
        let committed = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            committed == result,
            "{} is not what the chart renders: look at `MESHWRIGHT_UPDATE=1 cargo test --test chart_golden` and `git diff`",
            golden.display()
        );
    }
}

/// Paths of the values that stand for themselves: everything that is not a group of others.
fn leaves(values: &Value, path: &str, found: &mut BTreeSet<String>) {
    match values.as_object() {
        Some(group) if !group.is_empty() && !path.ends_with("/resources") => {
            for (name, value) in group {
                leaves(value, &format!("{path}/{name}"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn without(values: &Value, path: &str) -> Value {
    let mut values = values.clone();
    let (group, name) = path.rsplit_once('/').unwrap();
    values.pointer_mut(group).unwrap().as_object_mut().unwrap().remove(name);
    values
}

#[test]
fn every_value_is_set_in_some_case_and_makes_a_difference() {
    let defaults = yaml(&fs::read_to_string(file("charts/meshwright/values.yaml")).unwrap());
    let mut open = BTreeSet::new();
    leaves(&defaults, "", &mut open);
    for (case, values) in cases() {
        let set = yaml(&values);
        let result = rendered(&values);
        for path in open.clone() {
            let Some(value) = set.pointer(&path) else { continue };
            if Some(value) == defaults.pointer(&path) {
                continue;
            }
            let other = rendered(&without(&set, &path).to_string());
            assert!(other != result, "{case}: {path} makes no difference");
            open.remove(&path);
        }
    }
    assert!(open.is_empty(), "no case in tests/golden/chart sets these: {open:?}");
}

#[test]
fn what_is_wrong_is_refused_with_its_path() {
    for (values, path, why) in [
        ("{operator: {replicas: 0}}", "/operator/replicas", "minimum"),
        ("{operator: {replica: 3}}", "/operator", "additional properties 'replica' not allowed"),
        ("{operator: {terminationGracePeriodSeconds: 5}}", "/operator/terminationGrace", "minimum"),
        ("{operator: {webhookPort: 443}}", "/operator/webhookPort", "minimum"),
        ("{operator: {runAsUser: 0}}", "/operator/runAsUser", "minimum"),
        ("{operator: {dnsPolicy: Any}}", "/operator/dnsPolicy", "must be one of"),
        ("{operator: {resources: {limit: {}}}}", "/operator/resources", "'limit' not allowed"),
        ("{operator: {tolerations: [{keys: x}]}}", "/operator/tolerations/0", "'keys'"),
        ("{operator: {env: [{value: x}]}}", "/operator/env/0", "missing property 'name'"),
        ("{operator: {updateStrategy: {maxSurge: many}}}", "/updateStrategy/maxSurge", "pattern"),
        ("{operator: {topologySpreadConstraints: [{maxSkew: 1}]}}", "/Constraints/0", "missing"),
        ("{operator: {podLabels: {a: 1}}}", "/operator/podLabels/a", "want string"),
        ("{image: {pullPolicy: Sometimes}}", "/image/pullPolicy", "must be one of"),
        ("{image: {digest: latest}}", "/image/digest", "pattern"),
        ("{image: {tag: 1}}", "/image/tag", "want string"),
        ("{crds: {keep: maybe}}", "/crds/keep", "want boolean"),
        ("{cni: {repair: hope}}", "/cni/repair", "must be one of"),
        ("{cni: {binDir: opt/cni}}", "/cni/binDir", "pattern"),
        ("{networkPolicy: {apiServerCidrs: [anywhere]}}", "/apiServerCidrs/0", "pattern"),
        ("{networkPolicy: {apiServerPorts: []}}", "/networkPolicy/apiServerPorts", "minItems"),
        ("{networkPolicy: {metricsFrom: [{}]}}", "/metricsFrom/0", "minProperties"),
        ("{monitoring: {podMonitor: {interval: often}}}", "/podMonitor/interval", "pattern"),
        ("{serviceAccount: {name: A_B}}", "/serviceAccount/name", "pattern"),
        ("{criticalPodsQuota: {pods: 0}}", "/criticalPodsQuota/pods", "minimum"),
        ("{mesh: {}}", "''", "additional properties 'mesh' not allowed"),
    ] {
        let refusal = render(&[], values).expect_err(values);
        let path = path.trim_start_matches("/Constraints");
        assert!(refusal.contains(path) && refusal.contains(why), "{values}: {refusal}");
    }
}
