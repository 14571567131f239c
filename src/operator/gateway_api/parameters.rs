//! ConfigMaps that `parametersRef` names: partial objects by key, each laid over the object of that
//! kind. The keys are Istio's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::Value;

use crate::api::{
    gateway::class::ParametersReference,
    meshwright::{ObjectPatch, PartialObject, PatchedKind},
};

const KEYS: [(&str, PatchedKind); 5] = [
    ("deployment", PatchedKind::Deployment),
    ("service", PatchedKind::Service),
    ("serviceAccount", PatchedKind::ServiceAccount),
    ("horizontalPodAutoscaler", PatchedKind::HorizontalPodAutoscaler),
    ("podDisruptionBudget", PatchedKind::PodDisruptionBudget),
];

/// Namespace and name of a ConfigMap.
pub(super) type Place = (String, String);

/// What is wrong with parameters, in words for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem(pub(super) String);

/// Patches, each with where it came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters {
    pub(super) patches: Vec<ObjectPatch>,
    /// `ConfigMap NAMESPACE/NAME, key KEY`, for each patch.
    pub(super) sources: Vec<String>,
}

impl Parameters {
    /// Those of the class, and over them the Gateway's own.
    pub(super) fn join(mut self, other: &Self) -> Self {
        self.patches.extend(other.patches.iter().cloned());
        self.sources.extend(other.sources.iter().cloned());
        self
    }
}

/// The ConfigMap that a reference names; a class, which has no namespace, must name one.
pub(super) fn place(
    reference: &ParametersReference,
    field: &str,
    own_namespace: Option<&str>,
) -> Result<Place, Problem> {
    let ParametersReference { group, kind, name, namespace } = reference;
    if !group.is_empty() || kind != "ConfigMap" {
        let what = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
        return Err(Problem(format!("{field}: names a {what}: name a ConfigMap, of group \"\"")));
    }
    match own_namespace.map(str::to_owned).or_else(|| namespace.clone()) {
        Some(namespace) => Ok((namespace, name.clone())),
        None => Err(Problem(format!("{field}.namespace: say in which namespace the ConfigMap is"))),
    }
}

/// Reads what a ConfigMap holds.
fn parse(map: &ConfigMap, (namespace, name): &Place) -> Result<Parameters, Problem> {
    let title = format!("ConfigMap {namespace}/{name}");
    if let Some(key) = map.binary_data.iter().flatten().map(|(key, _)| key).next() {
        return Err(Problem(format!("{title}, key {key}: is binary: write YAML under data")));
    }
    let mut found = Parameters::default();
    for (key, text) in map.data.iter().flatten() {
        let source = format!("{title}, key {key}");
        let Some((_, kind)) = KEYS.iter().find(|(known, _)| known == key) else {
            let known: Vec<_> = KEYS.iter().map(|(known, _)| *known).collect();
            let message = format!("{source}: there is no such key: known are {}", known.join(", "));
            return Err(Problem(message));
        };
        let value: Value = serde_saphyr::from_str(text).map_err(|error| {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default();
            Problem(format!("{source}: is no YAML: {first}"))
        })?;
        let patch = match value {
            Value::Object(patch) => PartialObject(patch),
            Value::Null => PartialObject::default(),
            _ => return Err(Problem(format!("{source}: must be a part of a {}", kind.as_str()))),
        };
        found.patches.push(ObjectPatch { kind: *kind, patch });
        found.sources.push(source);
    }
    Ok(found)
}

/// The ConfigMaps that were read, until a watch says that they changed: Gateways that share one need
/// one read.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Inner>);

type Parsed = Arc<Result<Parameters, Problem>>;

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Place, Parsed>,
    /// Counts changes: what was read before one is not kept after it.
    changes: u64,
}

impl Cache {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ConfigMap changed, or may have.
    pub(super) fn changed(&self, place: &Place) {
        let mut inner = self.inner();
        inner.changes += 1;
        inner.known.remove(place);
    }

    /// All of them may have changed.
    pub(super) fn all_changed(&self) {
        let mut inner = self.inner();
        inner.changes += 1;
        inner.known.clear();
    }

    /// The parameters in a ConfigMap; `field` is where it is referred to.
    pub(super) async fn read(
        &self,
        client: &Client,
        place: &Place,
        field: &str,
    ) -> Result<Parsed, kube::Error> {
        let changes = {
            let inner = self.inner();
            if let Some(known) = inner.known.get(place) {
                return Ok(known.clone());
            }
            inner.changes
        };
        let (namespace, name) = place;
        let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let Some(map) = maps.get_opt(name).await? else {
            // Not kept: the message names the field.
            let message = format!(
                "{field}: there is no ConfigMap {namespace}/{name}: create it, or take the reference out"
            );
            return Ok(Arc::new(Err(Problem(message))));
        };
        let parsed = Arc::new(parse(&map, place));
        let mut inner = self.inner();
        if inner.changes == changes {
            inner.known.insert(place.clone(), parsed.clone());
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(data: &Value) -> Result<Parameters, String> {
        let map = serde_json::from_value(json!({ "data": data })).unwrap();
        parse(&map, &("shop".to_owned(), "sizes".to_owned())).map_err(|Problem(text)| text)
    }

    #[test]
    fn each_key_is_a_patch() {
        let found = parsed(&json!({
            "deployment": "spec: {replicas: 3}\n", "podDisruptionBudget": "", "service": "# none\n",
        }));
        let found = found.unwrap();
        let kinds: Vec<_> = found.patches.iter().map(|patch| patch.kind.as_str()).collect();
        assert_eq!(kinds, ["Deployment", "PodDisruptionBudget", "Service"]);
        assert_eq!(found.patches[0].patch.0["spec"]["replicas"], 3);
        assert_eq!(found.sources[0], "ConfigMap shop/sizes, key deployment");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases = [
            (json!({"deployments": ""}), "key deployments: there is no such key: known are deploy"),
            (json!({"service": "- a\n"}), "key service: must be a part of a Service"),
            (json!({"service": "a: [\n"}), "key service: is no YAML: "),
        ];
        for (data, expected) in cases {
            let message = parsed(&data).unwrap_err();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_reference_is_to_a_config_map() {
        let reference = |group: &str, kind: &str, namespace: Option<&str>| ParametersReference {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: "sizes".to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        let field = "spec.parametersRef";
        let good = place(&reference("", "ConfigMap", Some("a")), field, None).unwrap();
        assert_eq!(good, ("a".to_owned(), "sizes".to_owned()));
        let Problem(message) = place(&reference("", "Secret", None), field, Some("a")).unwrap_err();
        assert!(message.starts_with("spec.parametersRef: names a Secret"), "{message}");
        assert!(place(&reference("", "ConfigMap", None), field, None).is_err());
    }
}
