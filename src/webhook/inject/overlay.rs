//! The user's own containers of our names, which say how ours shall be. They are taken out of the
//! pod and kept in an annotation, so that a later injection knows them too.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Error,
    container::PROXY_CONTAINER,
    json::{CONTAINER_LISTS, list, name_of, object_in},
    layers::{AUTO, Layer, Shape, canonical, is_istio_proxy},
    strategic,
};
use crate::api::meshwright::{RedirectionMode, labels};

/// By our names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overlays(BTreeMap<String, Map<String, Value>>);

impl Overlays {
    /// Takes them out of the pod.
    pub(super) fn take(pod: &mut Value) -> Result<Self, Error> {
        let mut overlays = Self::noted(pod)?;
        let Some(Value::Object(spec)) = pod.get_mut("spec") else { return Ok(overlays) };
        for field in CONTAINER_LISTS {
            let Some(Value::Array(items)) = spec.get_mut(field) else { continue };
            for item in items.extract_if(.., |item| name_of(item).and_then(canonical).is_some()) {
                overlays.add(item)?;
            }
        }
        Ok(overlays)
    }

    fn noted(pod: &Value) -> Result<Self, Error> {
        let Some(text) =
            pod.pointer("/metadata/annotations").and_then(|a| a.get(labels::OVERRIDES))
        else {
            return Ok(Self::default());
        };
        let parsed = serde_json::from_str(text.as_str().unwrap_or_default());
        parsed.map(Self).map_err(|error| Error::Overrides(error.to_string()))
    }

    fn add(&mut self, container: Value) -> Result<(), Error> {
        let Value::Object(container) = container else { return Ok(()) };
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(ours) = canonical(name) else { return Ok(()) };
        let layer = format!("container {name} of the pod");
        let known = self.0.entry(ours.to_owned()).or_default();
        strategic::merge(known, &container)
            .map_err(|error| Error::Layer { layer, message: error.to_string() })
    }

    pub(super) fn proxy(&self) -> Option<&Map<String, Value>> {
        self.0.get(PROXY_CONTAINER)
    }

    /// Whether the user's own proxy container leaves the image to us.
    pub(super) fn image_is_auto(&self) -> bool {
        self.proxy().and_then(|proxy| proxy.get("image")?.as_str()) == Some(AUTO)
    }

    /// Notes them in the pod.
    pub(super) fn note(&self, annotations: &mut Map<String, Value>) {
        if !self.0.is_empty() {
            annotations.insert(labels::OVERRIDES.to_owned(), json!(self.0).to_string().into());
        }
    }

    /// What they say, with what is not theirs to say taken out.
    pub(super) fn layer(&self, shape: Shape, bounds: &Bounds) -> (Option<Layer>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut containers = Vec::new();
        for (name, overlay) in &self.0 {
            let mut overlay = overlay.clone();
            if name == PROXY_CONTAINER {
                warnings.extend(bounds.limit(&mut overlay));
            }
            let image = overlay.get("image").and_then(Value::as_str).unwrap_or_default();
            if is_istio_proxy(image) {
                warnings.push(format!(
                    "image {image} of container {name} is Istio's own and has no agent of Meshwright; the installation's is used (say \"auto\")"
                ));
            }
            overlay.insert("name".to_owned(), name.as_str().into());
            containers.push(Value::Object(overlay));
        }
        if containers.is_empty() {
            return (None, warnings);
        }
        let source = "the pod's own container for the proxy".to_owned();
        let partial = Map::from_iter([("spec".to_owned(), json!({"containers": containers}))]);
        (Some(Layer::foreign(source, partial, shape)), warnings)
    }
}

/// What a user's own proxy container cannot say.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub mode: RedirectionMode,
    /// Users of the application's containers, where the platform gives all containers of a pod the
    /// same one (OpenShift).
    pub platform_users: Vec<i64>,
}

impl Bounds {
    pub(super) fn new(mode: RedirectionMode, assigns_users: bool, pod: &Value) -> Self {
        let spec = pod.get("spec").and_then(Value::as_object);
        let users = spec.into_iter().flat_map(|spec| list(spec, "containers"));
        let users = users.filter_map(|item| item.pointer("/securityContext/runAsUser")?.as_i64());
        let platform_users = if assigns_users { users.collect() } else { Vec::new() };
        Self { mode, platform_users }
    }

    fn limit(&self, overlay: &mut Map<String, Value>) -> Option<String> {
        let asked = overlay.get("securityContext")?.get("runAsUser")?.as_i64()?;
        let tproxy = self.mode == RedirectionMode::Tproxy;
        let security = object_in(overlay, "securityContext");
        if !tproxy && !self.platform_users.contains(&asked) {
            // Ours says that it is not root; the kubelet would refuse to start it.
            if asked == 0 {
                security.entry("runAsNonRoot").or_insert(false.into());
            }
            return None;
        }
        security.remove("runAsUser");
        security.remove("runAsGroup");
        // The platform's own choice is not news to anybody.
        tproxy.then(|| {
            format!(
                "runAsUser {asked} of container {PROXY_CONTAINER} is ignored: with TPROXY the proxy runs as root"
            )
        })
    }
}
