//! All that is laid over a pod, as partial pods one over the other: our own, the templates, the
//! user's settings for our containers, and the installation's patches.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Error,
    container::{PROXY_CONTAINER, REDIRECT_CONTAINER, Role},
    json::{self, CONTAINER_LISTS, array_in, name_of},
    strategic,
};

/// The image that leaves the choice to us.
pub(super) const AUTO: &str = "auto";

/// Which containers of ours a pod has, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `None`: only templates of the installation are asked for.
    pub role: Option<Role>,
    pub native: bool,
    pub redirect: bool,
}

impl Shape {
    /// The list that one of our containers is in, if the pod has it.
    pub(super) fn list_of(self, container: &str) -> Option<&'static str> {
        if container == REDIRECT_CONTAINER {
            return self.redirect.then_some("initContainers");
        }
        let init = self.role? == Role::Sidecar && self.native;
        Some(if init { "initContainers" } else { "containers" })
    }
}

/// Our name of a container that people may also call by Istio's name.
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    match name {
        PROXY_CONTAINER | "istio-proxy" => Some(PROXY_CONTAINER),
        REDIRECT_CONTAINER | "istio-init" | "istio-validation" => Some(REDIRECT_CONTAINER),
        _ => None,
    }
}

/// A partial pod, and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// For people.
    pub source: String,
    pub partial: Map<String, Value>,
    /// Whether somebody else wrote it, so that it may be wrong.
    pub foreign: bool,
}

impl Layer {
    /// A layer of somebody else. Our containers may stand in either list and under Istio's names.
    pub(super) fn foreign(source: String, mut partial: Map<String, Value>, shape: Shape) -> Self {
        if let Some(Value::Object(spec)) = partial.get_mut("spec") {
            adopt(spec, shape);
        }
        Self { source, partial, foreign: true }
    }

    fn apply(self, pod: &mut Value) -> Result<(), Error> {
        let wrong = |message: String| Error::Layer { layer: self.source.clone(), message };
        let Value::Object(target) = pod else { return Err(Error::NoSpec) };
        if !self.foreign {
            return put(target, self.partial).map_err(|error| wrong(error.to_string()));
        }
        let had_proxy = has_proxy(target);
        strategic::merge(target, &self.partial).map_err(|error| wrong(error.to_string()))?;
        if had_proxy && !has_proxy(target) {
            let message = format!(
                "takes {PROXY_CONTAINER} away; to leave pods alone, use spec.injection.never"
            );
            return Err(wrong(message));
        }
        Pod::deserialize(&*pod).map(drop).map_err(|error| wrong(error.to_string()))
    }
}

fn has_proxy(pod: &Map<String, Value>) -> bool {
    let spec = pod.get("spec").and_then(Value::as_object);
    spec.is_some_and(|spec| json::container(spec, PROXY_CONTAINER).is_some())
}

/// [`strategic::merge`] of what is our own and can be used up: what the pod does not have goes into it
/// as it is.
fn put(target: &mut Map<String, Value>, own: Map<String, Value>) -> Result<(), strategic::Error> {
    for (field, value) in own {
        match (target.get_mut(&field), value) {
            (Some(Value::Object(target)), Value::Object(own)) => put(target, own)?,
            (Some(Value::Array(items)), Value::Array(own)) => {
                for item in own {
                    let same = |other: &&mut Value| name_of(other) == name_of(&item);
                    match (items.iter_mut().find(same), item) {
                        (Some(Value::Object(known)), Value::Object(item)) => {
                            strategic::merge(known, &item)?;
                        }
                        (_, item) => items.push(item),
                    }
                }
            }
            (_, value) => drop(target.insert(field, value)),
        }
    }
    Ok(())
}

/// Lays all of them over the pod.
pub(super) fn apply(layers: Vec<Layer>, pod: &mut Value) -> Result<(), Error> {
    layers.into_iter().try_for_each(|layer| layer.apply(pod))
}

/// Tells sets of layers apart.
pub(super) fn hash(layers: &[Layer]) -> Result<String, Error> {
    let partials: Vec<_> = layers.iter().map(|layer| &layer.partial).collect();
    let json = serde_json::to_vec(&partials).map_err(Error::Encode)?;
    Ok(format!("{:016x}", xxh3_64(&json)))
}

/// Gives our containers their name and puts them where they are in this pod. Settings for one that
/// the pod does not have lead nowhere.
fn adopt(spec: &mut Map<String, Value>, shape: Shape) {
    let mut ours = Vec::new();
    for field in CONTAINER_LISTS {
        let Some(Value::Array(items)) = spec.get_mut(field) else { continue };
        ours.extend(items.extract_if(.., |item| name_of(item).and_then(canonical).is_some()));
        if items.is_empty() {
            spec.remove(field);
        }
    }
    for mut container in ours {
        let Some(name) = name_of(&container).and_then(canonical) else { continue };
        let Some(field) = shape.list_of(name) else { continue };
        if let Value::Object(container) = &mut container {
            container.insert("name".to_owned(), name.into());
            // Which of the lists it is in says this.
            container.remove("restartPolicy");
            if container.get("image").and_then(Value::as_str).is_some_and(leaves_the_choice) {
                container.remove("image");
            }
        }
        array_in(spec, field).push(container);
    }
}

/// Whether the image of one of our containers is ours to choose. Istio's own proxy has no agent of
/// ours in it, so whoever pinned it when the mesh was Istio cannot mean it any more.
pub fn leaves_the_choice(image: &str) -> bool {
    image == AUTO || is_istio_proxy(image)
}

/// Whether this is Istio's own proxy, from whatever registry.
pub(super) fn is_istio_proxy(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split([':', '@']).next() == Some("proxyv2")
}
