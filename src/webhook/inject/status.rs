//! The annotation that says what injection added to a pod: so a later injection can begin with what
//! the pod was.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    container,
    json::{CONTAINER_LISTS, list, name_of},
};
use crate::api::meshwright::labels;

/// What the annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub revision: String,
    #[serde(flatten)]
    pub added: Names,
    /// Variables of our containers that templates, patches and the pod itself asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Of all that was laid over the pod. As long as it stays the same, what differs in the pod is
    /// the work of others.
    pub hash: String,
}

/// Names of parts of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Names {
    pub init_containers: Vec<String>,
    pub containers: Vec<String>,
    pub volumes: Vec<String>,
    pub image_pull_secrets: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

impl Status {
    /// What an earlier injection said, if there was one.
    pub(super) fn read(pod: &Value) -> Option<Self> {
        let Some(text) = pod.pointer("/metadata/annotations").and_then(|a| a.get(labels::STATUS))
        else {
            return Self::guess(pod);
        };
        // What cannot be read says nothing, and the pod is injected as if for the first time.
        serde_json::from_str(text.as_str()?).ok()
    }

    /// A webhook that knows which annotations a pod may have takes ours away. The proxy is still
    /// known by a variable that only we write.
    fn guess(pod: &Value) -> Option<Self> {
        let spec = pod.get("spec")?.as_object()?;
        let is_proxy = |item: &&Value| name_of(item) == Some(container::PROXY_CONTAINER);
        let is_ours = |item: &Value| {
            let env = item.get("env").and_then(Value::as_array).into_iter().flatten();
            env.into_iter().any(|item| name_of(item) == Some("MESHWRIGHT_DISCOVERY_ADDRESS"))
        };
        let field = CONTAINER_LISTS
            .into_iter()
            .find(|field| list(spec, field).find(is_proxy).is_some_and(is_ours))?;
        let mut added = Names {
            init_containers: vec![container::REDIRECT_CONTAINER.to_owned()],
            volumes: list(spec, "volumes")
                .filter_map(name_of)
                .filter(|name| name.starts_with("meshwright-"))
                .map(str::to_owned)
                .collect(),
            labels: vec![labels::REVISION.to_owned()],
            ..Names::default()
        };
        let proxies =
            if field == "containers" { &mut added.containers } else { &mut added.init_containers };
        proxies.push(container::PROXY_CONTAINER.to_owned());
        Some(Self { added, ..Self::default() })
    }
}

impl Names {
    /// All that the pod has.
    pub(super) fn of(pod: &Value) -> Self {
        let empty = Map::new();
        let object = |path: &str| pod.pointer(path).and_then(Value::as_object).unwrap_or(&empty);
        let spec = object("/spec");
        let names =
            |field: &str| list(spec, field).filter_map(name_of).map(str::to_owned).collect();
        Self {
            init_containers: names("initContainers"),
            containers: names("containers"),
            volumes: names("volumes"),
            image_pull_secrets: names("imagePullSecrets"),
            labels: object("/metadata/labels").keys().cloned().collect(),
            annotations: object("/metadata/annotations").keys().cloned().collect(),
        }
    }

    /// Those that `before` does not have.
    pub(super) fn since(mut self, before: &Self) -> Self {
        self.init_containers.retain(|name| !before.init_containers.contains(name));
        self.containers.retain(|name| !before.containers.contains(name));
        self.volumes.retain(|name| !before.volumes.contains(name));
        self.image_pull_secrets.retain(|name| !before.image_pull_secrets.contains(name));
        self.labels.retain(|name| !before.labels.contains(name));
        self.annotations.retain(|name| !before.annotations.contains(name));
        self
    }

    /// Takes all of them out of the pod.
    pub(super) fn take_from(&self, pod: &mut Value) {
        if let Some(Value::Object(spec)) = pod.get_mut("spec") {
            for (field, names) in [
                ("initContainers", &self.init_containers),
                ("containers", &self.containers),
                ("volumes", &self.volumes),
                ("imagePullSecrets", &self.image_pull_secrets),
            ] {
                take_items(spec, field, names);
            }
        }
        for (field, names) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            let Some(Value::Object(map)) =
                pod.get_mut("metadata").and_then(|metadata| metadata.get_mut(field))
            else {
                continue;
            };
            map.retain(|key, _| !names.contains(key));
        }
    }
}

fn take_items(spec: &mut Map<String, Value>, field: &str, names: &[String]) {
    let Some(Value::Array(items)) = spec.get_mut(field) else { return };
    let before = items.len();
    items.retain(|item| !name_of(item).is_some_and(|name| names.iter().any(|n| n == name)));
    if items.is_empty() && before > 0 {
        spec.remove(field);
    }
}
