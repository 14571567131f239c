//! What is wrong with an installation's templates and patches, before any pod meets them.

use serde_json::{Map, Value, json};

use super::{
    decide::selector,
    layers::{self, Layer},
    template::{GATEWAY, SIDECAR},
};
use crate::api::meshwright::Injection;

/// A field of `spec.injection` that cannot work, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: String,
    pub message: String,
}

/// All of them.
pub fn problems(injection: &Injection) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |path: String, message: String| found.push(Problem { path, message });
    for (name, template) in &injection.templates {
        let path = format!("spec.injection.templates.{name}");
        if [SIDECAR, GATEWAY].contains(&name.as_str()) {
            add(path.clone(), format!("{name} is built in: choose another name"));
        }
        if let Some(message) = wrong(&template.0) {
            add(path, message);
        }
    }
    for (index, name) in injection.default_templates.iter().enumerate() {
        let known = [SIDECAR, GATEWAY].contains(&name.as_str());
        if !known && !injection.templates.contains_key(name) {
            let path = format!("spec.injection.defaultTemplates[{index}]");
            add(path, format!("there is no template {name:?} in spec.injection.templates"));
        }
    }
    for (index, patch) in injection.patches.iter().enumerate() {
        let path = format!("spec.injection.patches[{index}]");
        if let Some(selector) = &patch.selector
            && let Some((field, message)) = selector::problem(selector)
        {
            add(format!("{path}.selector.{field}"), message);
        }
        if let Some(message) = wrong(&patch.patch.0) {
            add(format!("{path}.patch"), message);
        }
    }
    found
}

/// Why this is not a partial pod.
fn wrong(partial: &Map<String, Value>) -> Option<String> {
    let mut pod = json!({"metadata": {}, "spec": {
        "containers": [], "initContainers": [], "volumes": [], "imagePullSecrets": [],
    }});
    let layer = Layer { source: String::new(), partial: partial.clone(), foreign: true };
    match layers::apply(vec![layer], &mut pod) {
        Err(super::Error::Layer { message, .. }) => Some(message),
        Err(error) => Some(error.to_string()),
        Ok(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(injection: Value) -> Vec<String> {
        let found = problems(&serde_json::from_value(injection).unwrap());
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn templates_and_patches_that_work() {
        let injection = json!({
            "templates": {"debug": {"spec": {"containers": [
                {"name": "istio-proxy", "env": [{"name": "A", "value": "1"}]}]}}},
            "defaultTemplates": ["sidecar", "debug"],
            "patches": [{
                "selector": {"matchLabels": {"app": "web"}},
                "patch": {"spec": {"volumes": [{"name": "a", "$patch": "delete"}]}},
            }],
        });
        assert_eq!(messages(injection), [""; 0]);
    }

    #[test]
    fn names_the_field_and_the_reason() {
        for (injection, expected) in [
            (
                json!({"templates": {"sidecar": {}}}),
                "spec.injection.templates.sidecar: sidecar is built in",
            ),
            (
                json!({"defaultTemplates": ["sidecar", "debug"]}),
                "spec.injection.defaultTemplates[1]: there is no template \"debug\"",
            ),
            (
                json!({"patches": [{"patch": {"spec": {"containers": {"name": "web"}}}}]}),
                "spec.injection.patches[0].patch: spec.containers: must be a list",
            ),
            (
                json!({"patches": [{"patch": {"spec": "none"}}]}),
                "spec.injection.patches[0].patch: ",
            ),
            (
                json!({"patches": [{"selector": {"matchExpressions": [
                    {"key": "app", "operator": "Like"}]}}]}),
                "spec.injection.patches[0].selector.matchExpressions[0].operator: ",
            ),
            (
                json!({"templates": {"big": {"spec": {"containers": [
                    {"name": "web", "env": [{"name": "A", "value": 1}]}]}}}}),
                "spec.injection.templates.big: invalid type: integer",
            ),
        ] {
            let found = messages(injection.clone());
            assert_eq!(found.len(), 1, "{injection}: {found:?}");
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }
}
