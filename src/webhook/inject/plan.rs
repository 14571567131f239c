//! What is to become of a pod, before anything is done to it: which containers of ours it gets, and
//! all that is laid over it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Error, InjectConfig, Namespace, canonical,
    container::{ProxyIdentity, Role},
    decide::selector,
    encoded::{Encoded, encoded},
    json::{array_in, list, name_of},
    layers::{Layer, Shape},
    options::Options,
    overlay::{Bounds, Overlays},
    template::{self, Template},
    user::{self, User},
    workload::workload_name,
};
use crate::api::meshwright::{PartialObject, RedirectionMode, labels};

/// What is to become of one pod.
pub(super) struct Plan {
    pub shape: Shape,
    pub layers: Vec<Layer>,
    pub overlays: Overlays,
    pub identity: ProxyIdentity,
    pub warnings: Vec<String>,
}

impl Plan {
    /// Reads what the pod says, and takes the user's own containers for the proxy out of it.
    pub(super) fn new(
        pod: &mut Value,
        typed: &Pod,
        namespace: &Namespace,
        config: &InjectConfig,
        options: &Options,
    ) -> Result<Self, Error> {
        let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        let templates = template::chosen(annotations, config)?;
        let shape = shape(&templates, options);
        let overlays =
            if shape.role.is_some() { Overlays::take(pod)? } else { Overlays::default() };
        check_containers(pod, shape, &overlays)?;
        let mut plan = Self {
            shape,
            layers: Vec::new(),
            overlays,
            identity: ProxyIdentity {
                role: shape.role.unwrap_or(Role::Sidecar),
                workload: workload_name(&typed.metadata),
            },
            warnings: Vec::new(),
        };
        for template in &templates {
            let layer = match template {
                Template::Custom(name) => plan.custom(name, config),
                Template::Sidecar | Template::Gateway => {
                    plan.own(typed, namespace, config, options)?
                }
            };
            plan.layers.push(layer);
        }
        let assigns_users = namespace.annotations.contains_key(user::UID_RANGE);
        let bounds = Bounds::new(options.redirection.mode, assigns_users, pod);
        let (overlay, warnings) = plan.overlays.layer(shape, &bounds);
        plan.layers.extend(overlay);
        plan.warnings.extend(warnings);
        plan.patches(pod, config);
        Ok(plan)
    }

    /// Our containers and what they need.
    fn own(
        &self,
        typed: &Pod,
        namespace: &Namespace,
        config: &InjectConfig,
        options: &Options,
    ) -> Result<Layer, Error> {
        let mut spec = Map::new();
        let user = User::of(namespace);
        let Encoded { redirect, proxy, volumes } = encoded(&config.proxy, options, &self.identity)?;
        for mut container in redirect.into_iter().chain([proxy]) {
            let field = name_of(&container).and_then(|name| self.shape.list_of(name));
            if let Some(field) = field {
                user.take_over(&mut container);
                array_in(&mut spec, field).push(container);
            }
        }
        spec.insert("volumes".to_owned(), volumes);
        if !options.image_pull_secrets.is_empty() {
            let secret = |name: &String| json!({"name": name});
            let secrets: Vec<_> = options.image_pull_secrets.iter().map(secret).collect();
            spec.insert("imagePullSecrets".to_owned(), secrets.into());
        }
        let mut labels: BTreeMap<_, _> =
            canonical::labels(&typed.metadata, config.istio_labels).into_iter().collect();
        labels.insert(labels::REVISION, config.revision.clone());
        let metadata = json!({"labels": labels});
        let partial = [("metadata".to_owned(), metadata), ("spec".to_owned(), spec.into())];
        let source = "Meshwright's own template".to_owned();
        Ok(Layer { source, partial: Map::from_iter(partial), foreign: false })
    }

    fn custom(&self, name: &str, config: &InjectConfig) -> Layer {
        let PartialObject(partial) =
            config.injection.templates.get(name).cloned().unwrap_or_default();
        let source = format!("spec.injection.templates.{name} of the MeshInstallation");
        Layer::foreign(source, partial, self.shape)
    }

    /// The installation's patches that the pod's own labels select.
    fn patches(&mut self, pod: &Value, config: &InjectConfig) {
        if config.injection.patches.is_empty() {
            return;
        }
        let labels = string_map(pod, "/metadata/labels");
        for (index, patch) in config.injection.patches.iter().enumerate() {
            if patch.selector.as_ref().is_none_or(|selector| selector::matches(selector, &labels)) {
                let source =
                    format!("spec.injection.patches[{index}].patch of the MeshInstallation");
                self.layers.push(Layer::foreign(source, patch.patch.0.clone(), self.shape));
            }
        }
    }
}

fn shape(templates: &[Template], options: &Options) -> Shape {
    let role = templates.iter().find_map(|template| match template {
        Template::Sidecar => Some(Role::Sidecar),
        Template::Gateway => Some(Role::Router),
        Template::Custom(_) => None,
    });
    let redirects = options.redirection.mode != RedirectionMode::None;
    Shape { role, native: options.native, redirect: role == Some(Role::Sidecar) && redirects }
}

/// Refuses pods in which nothing would run but what cannot run alone.
fn check_containers(pod: &Value, shape: Shape, overlays: &Overlays) -> Result<(), Error> {
    match shape.role {
        Some(Role::Router) if !overlays.image_is_auto() => Err(Error::NoGatewayContainer),
        Some(Role::Sidecar) if overlays.proxy().is_some() => {
            let spec = pod.get("spec").and_then(Value::as_object);
            let alone = spec.is_some_and(|spec| list(spec, "containers").next().is_none());
            if alone { Err(Error::OnlyAProxy) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// The labels or the annotations.
pub(super) fn string_map(pod: &Value, path: &str) -> BTreeMap<String, String> {
    let map = pod.pointer(path).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

pub(super) fn encode(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(Error::Encode)
}
