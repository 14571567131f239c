//! What the operator makes of a MeshInstallation: `golden/operator/CASE.in.yaml` becomes
//! `CASE.settings.yaml`, the spec with what its profile decides, and `CASE.out.yaml`, the objects.
//! `MESHWRIGHT_UPDATE=1` rewrites the latter two.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::BTreeSet, env, fs, path::Path, sync::Arc};

use k8s_openapi::api::rbac::v1::PolicyRule;
use meshwright::{
    api::meshwright::{MeshInstallation, MeshInstallationSpec},
    operator::{
        installation::{
            build::build,
            validate::{Inputs, validate},
        },
        objects::{Objects, Prepared},
        platform::{Platform, WebhookEndpoint},
    },
};
use serde::Serialize;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn platform(webhook: WebhookEndpoint) -> Platform {
    Platform {
        namespace: "meshwright-system".to_owned(),
        image_registry: "registry.test".to_owned(),
        image_tag: "1.2.3".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        webhook,
    }
}

fn built(installation: &MeshInstallation, webhook: WebhookEndpoint) -> Objects<Prepared> {
    let inputs = Inputs {
        installations: vec![Arc::new(installation.clone())],
        selected: std::collections::BTreeMap::new(),
        webhook_ca: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        operator_role: None,
    };
    build(&validate(installation, inputs, &platform(webhook)).unwrap())
}

/// The objects as YAML documents, in the order in which they are applied.
fn documents(objects: &Objects<Prepared>) -> String {
    fn add<T: Serialize>(text: &mut String, objects: &[T]) {
        for object in objects {
            text.push_str("---\n");
            text.push_str(serde_saphyr::to_string(object).unwrap().trim_end());
            text.push('\n');
        }
    }
    let mut text = String::new();
    add(&mut text, &objects.service_accounts);
    add(&mut text, &objects.cluster_roles);
    add(&mut text, &objects.cluster_role_bindings);
    add(&mut text, &objects.roles);
    add(&mut text, &objects.role_bindings);
    add(&mut text, &objects.services);
    add(&mut text, &objects.deployments);
    add(&mut text, &objects.horizontal_pod_autoscalers);
    add(&mut text, &objects.pod_disruption_budgets);
    add(&mut text, &objects.mutating_webhooks);
    add(&mut text, &objects.validating_webhooks);
    text
}

#[test]
fn objects_are_as_committed() {
    let folder = root().join("tests/golden/operator");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".in.yaml")
        else {
            continue;
        };
        cases += 1;
        let installation: MeshInstallation =
            serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let settings = serde_saphyr::to_string(&installation.spec.resolved()).unwrap();
        compare(&folder.join(format!("{case}.settings.yaml")), &settings);
        let webhook = if case == "outside" {
            WebhookEndpoint::Url("https://192.0.2.1:15017".to_owned())
        } else {
            WebhookEndpoint::Service
        };
        let text = documents(&built(&installation, webhook));
        compare(&folder.join(format!("{case}.out.yaml")), &text);
    }
    assert!(cases >= 12, "only {cases} cases were found");
}

fn compare(golden: &Path, text: &str) {
    if env::var_os("MESHWRIGHT_UPDATE").is_some() {
        fs::write(golden, text).unwrap();
    }
    let committed = fs::read_to_string(golden).unwrap_or_default();
    assert_eq!(committed, text, "{}", golden.display());
}

/// Group, resource, name (empty: any) and verb.
type Permission = (String, String, String, String);

fn permissions(rules: &[PolicyRule]) -> BTreeSet<Permission> {
    let any = vec![String::new()];
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in rule.resource_names.as_ref().unwrap_or(&any) {
                    for verb in &rule.verbs {
                        let permission = [group, resource, name, verb].map(Clone::clone);
                        all.insert(permission.into());
                    }
                }
            }
        }
    }
    all
}

/// The API server lets nobody grant what they do not have.
#[test]
fn the_chart_grants_the_operator_what_it_passes_on() {
    let text = fs::read_to_string(root().join("manifests/meshwright.yaml")).unwrap();
    let manifest: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let rules = |kind: &str| -> Vec<PolicyRule> {
        let role = manifest
            .iter()
            .find(|o| o["kind"] == kind && o["metadata"]["name"] == "meshwright-operator")
            .unwrap();
        serde_json::from_value(role["rules"].clone()).unwrap()
    };
    let everywhere = permissions(&rules("ClusterRole"));
    let mut at_home = everywhere.clone();
    at_home.extend(permissions(&rules("Role")));
    let objects = built(
        &MeshInstallation::new("default", MeshInstallationSpec::default()),
        WebhookEndpoint::Service,
    );
    let missing = |needed: &[PolicyRule], have: &BTreeSet<Permission>| -> Vec<Permission> {
        let is_missing = |(group, resource, name, verb): &Permission| {
            let with = |name: &String| {
                have.contains(&(group.clone(), resource.clone(), name.clone(), verb.clone()))
            };
            !with(name) && !with(&String::new())
        };
        permissions(needed).into_iter().filter(is_missing).collect()
    };
    let none: Vec<Permission> = Vec::new();
    assert_eq!(missing(objects.cluster_roles[0].rules.as_ref().unwrap(), &everywhere), none);
    assert_eq!(missing(objects.roles[0].rules.as_ref().unwrap(), &at_home), none);
}
