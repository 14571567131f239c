//! The pod as it should be: layers of partial pods over the pod's own JSON, so that fields that this
//! version does not know survive. Injecting an injected pod changes nothing.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::api::core::v1::Pod;
use kube::core::{Selector, SelectorExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Error, InjectConfig, Namespace, company,
    container::{self, PROXY_CONTAINER, ProxyIdentity, REDIRECT_CONTAINER, Role},
    damage::damage,
    json::{self as pod_json, array_in, container_mut, list, name_of, object_in},
    layers::{self, Layer, Shape},
    metrics,
    options::Options,
    order,
    overlay::{Bounds, Overlays},
    probes,
    status::{Names, Status},
    template::{self, Template},
    user::{self, User},
    workload::workload_name,
};
use crate::api::meshwright::{PartialPod, RedirectionMode, labels};

const DEFAULT_CONTAINER: [&str; 2] =
    ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"];
/// Variables of the proxy that say what was found in the pod.
const NOTES: [&str; 3] =
    [container::APP_PROBES_ENV, container::APP_METRICS_ENV, "MESHWRIGHT_LABELS"];

/// An injected pod.
pub struct Injected {
    pub pod: Value,
    pub warnings: Vec<String>,
}

/// Builds the injected pod.
pub fn injected(
    pod: &Value,
    typed: &Pod,
    namespace: &Namespace,
    config: &InjectConfig,
) -> Result<Injected, Error> {
    let before = Status::read(pod);
    let mut base = pod.clone();
    let original = original(&mut base, typed, before.as_ref())?;
    let options = &*config.proxy.defaults_for(&original);

    let plan = Plan::new(&mut base, typed, namespace, config, options)?;
    let own = Names::of(&base);
    layers::apply(&plan.layers, &mut base)?;
    let status = Status {
        revision: config.revision.clone(),
        added: Names::of(&base).since(&own),
        variables: company::variables(&base),
        hash: layers::hash(&plan.layers)?,
    };
    let mut pod = match before {
        None => base,
        Some(before) if before.hash == status.hash => company::repaired(pod.clone(), &base),
        Some(before) => company::renewed(pod, &before, base, plan.shape),
    };
    plan.finish(&mut pod, options, config)?;
    plan.annotate(&mut pod, &status, options)?;

    let damage = damage(typed).map(|damage| format!("repaired: {damage}"));
    let warnings = plan.warnings.into_iter().chain(damage).chain(dns_warning(typed, namespace));
    Ok(Injected { pod, warnings: warnings.collect() })
}

/// The pod without what an earlier injection added, so that nothing of that looks like a wish.
fn original<'a>(
    base: &mut Value,
    typed: &'a Pod,
    before: Option<&Status>,
) -> Result<Cow<'a, Pod>, Error> {
    if !base.get("spec").is_some_and(Value::is_object) {
        return Err(Error::NoSpec);
    }
    let Some(before) = before else { return Ok(Cow::Borrowed(typed)) };
    before.added.take_from(base);
    Pod::deserialize(&*base).map(Cow::Owned).map_err(Error::NotAPod)
}

/// What is to become of one pod.
struct Plan {
    shape: Shape,
    layers: Vec<Layer>,
    overlays: Overlays,
    identity: ProxyIdentity,
    /// What an earlier injection found.
    found: Found,
    warnings: Vec<String>,
}

impl Plan {
    /// Reads what the pod says, and takes the user's own containers for the proxy out of it.
    fn new(
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
                labels: BTreeMap::new(),
                app_probes: None,
                app_metrics: None,
            },
            found: Found::read(typed),
            warnings: Vec::new(),
        };
        for template in &templates {
            let layer = match template {
                Template::Custom(name) => plan.custom(name, config),
                Template::Sidecar | Template::Gateway => plan.own(namespace, config, options)?,
            };
            plan.layers.push(layer);
        }
        let assigns_users = namespace.annotations.contains_key(user::UID_RANGE);
        let bounds = Bounds::new(options.redirection.mode, assigns_users, pod);
        let (overlay, warnings) = plan.overlays.layer(shape, &bounds);
        plan.layers.extend(overlay);
        plan.warnings.extend(warnings);
        plan.patches(pod, config)?;
        Ok(plan)
    }

    /// Our containers and what they need.
    fn own(
        &self,
        namespace: &Namespace,
        config: &InjectConfig,
        options: &Options,
    ) -> Result<Layer, Error> {
        let mut spec = Map::new();
        let user = User::of(namespace);
        let proxy = encode(&container::proxy(&config.proxy, options, &self.identity))?;
        let redirect = container::redirect(options).as_ref().map(encode).transpose()?;
        for mut container in redirect.into_iter().chain([proxy]) {
            let field = name_of(&container).and_then(|name| self.shape.list_of(name));
            if let Some(field) = field {
                user.take_over(&mut container);
                array_in(&mut spec, field).push(container);
            }
        }
        spec.insert("volumes".to_owned(), encode(&container::volumes(options))?);
        if !options.image_pull_secrets.is_empty() {
            let secret = |name: &String| json!({"name": name});
            let secrets: Vec<_> = options.image_pull_secrets.iter().map(secret).collect();
            spec.insert("imagePullSecrets".to_owned(), secrets.into());
        }
        let metadata = json!({"labels": {labels::REVISION: config.revision}});
        let partial = [("metadata".to_owned(), metadata), ("spec".to_owned(), spec.into())];
        let source = "Meshwright's own template".to_owned();
        Ok(Layer { source, partial: Map::from_iter(partial), foreign: false })
    }

    fn custom(&self, name: &str, config: &InjectConfig) -> Layer {
        let PartialPod(partial) = config.injection.templates.get(name).cloned().unwrap_or_default();
        let source = format!("spec.injection.templates.{name} of the MeshInstallation");
        Layer::foreign(source, partial, self.shape)
    }

    /// The installation's patches that the pod's own labels select.
    fn patches(&mut self, pod: &Value, config: &InjectConfig) -> Result<(), Error> {
        let labels = string_map(pod, "/metadata/labels");
        for (index, patch) in config.injection.patches.iter().enumerate() {
            let source = format!("spec.injection.patches[{index}]");
            let selected = match &patch.selector {
                None => true,
                Some(selector) => Selector::try_from(selector.clone())
                    .map_err(|error| Error::Layer {
                        layer: format!("{source}.selector of the MeshInstallation"),
                        message: error.to_string(),
                    })?
                    .matches(&labels),
            };
            if selected {
                let source = format!("{source}.patch of the MeshInstallation");
                self.layers.push(Layer::foreign(source, patch.patch.0.clone(), self.shape));
            }
        }
        Ok(())
    }

    /// What depends on the whole pod: the proxy's user, the order of containers, and the
    /// application's probes.
    fn finish(
        &self,
        pod: &mut Value,
        options: &Options,
        config: &InjectConfig,
    ) -> Result<(), Error> {
        let labels = string_map(pod, "/metadata/labels");
        let (Some(role), Value::Object(pod)) = (self.shape.role, pod) else { return Ok(()) };
        let app_metrics = metrics::merge(
            object_in(object_in(pod, "metadata"), "annotations"),
            self.found.app_metrics.clone(),
        );
        let spec = object_in(pod, "spec");
        User::of_proxy(spec).tell_redirect(spec);
        let app_probes = match role {
            Role::Sidecar => rewrite_probes(spec, &self.found.app_probes),
            Role::Router => None,
        };
        let Some(field) = self.shape.list_of(PROXY_CONTAINER) else { return Ok(()) };
        if let Some(proxy) = container_mut(spec, field, PROXY_CONTAINER) {
            restart_policy(proxy, field == "initContainers");
            let identity =
                ProxyIdentity { labels, app_probes, app_metrics, ..self.identity.clone() };
            let complete = encode(&container::proxy(&config.proxy, options, &identity))?;
            note_findings(proxy, &complete);
        }
        order::arrange(spec, self.shape, options);
        Ok(())
    }

    fn annotate(&self, pod: &mut Value, status: &Status, options: &Options) -> Result<(), Error> {
        let Value::Object(pod) = pod else { return Err(Error::NoSpec) };
        let spec = object_in(pod, "spec");
        let first = list(spec, "containers")
            .filter_map(name_of)
            .find(|name| layers::canonical(name).is_none())
            .map(str::to_owned);
        let user = User::of_proxy(spec);
        let annotations = object_in(object_in(pod, "metadata"), "annotations");
        if let Some(first) = first {
            for key in DEFAULT_CONTAINER {
                annotations.entry(key).or_insert_with(|| first.clone().into());
            }
        }
        if self.shape.redirect {
            let mut arguments = container::redirect_arguments(options);
            arguments.extend(user.arguments());
            annotations.insert(labels::REDIRECT.to_owned(), json!(arguments).to_string().into());
        } else {
            annotations.remove(labels::REDIRECT);
        }
        self.overlays.note(annotations);
        let status = serde_json::to_string(status).map_err(Error::Encode)?;
        annotations.insert(labels::STATUS.to_owned(), status.into());
        Ok(())
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

/// What an earlier injection of the same pod noted in the proxy's environment.
#[derive(Default)]
struct Found {
    app_probes: Map<String, Value>,
    app_metrics: Option<String>,
}

impl Found {
    fn read(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let init = spec.init_containers.iter().flatten();
        let proxy = spec.containers.iter().chain(init).find(|c| c.name == PROXY_CONTAINER);
        let env = |name: &str| {
            let variable = proxy?.env.as_ref()?.iter().find(|variable| variable.name == name)?;
            Some(variable.value.as_deref()?.replace("$$(", "$("))
        };
        let app_probes = env(container::APP_PROBES_ENV)
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default();
        Self { app_probes, app_metrics: env(container::APP_METRICS_ENV) }
    }
}

fn rewrite_probes(spec: &mut Map<String, Value>, before: &Map<String, Value>) -> Option<String> {
    let mut originals = Map::new();
    for field in pod_json::CONTAINER_LISTS {
        let Some(Value::Array(containers)) = spec.get_mut(field) else { continue };
        for container in containers.iter_mut().filter(|item| !is_ours(item)) {
            if let Value::Object(container) = container {
                probes::rewrite(container, before, &mut originals);
            }
        }
    }
    (!originals.is_empty()).then(|| Value::Object(originals).to_string())
}

fn is_ours(container: &Value) -> bool {
    name_of(container).is_some_and(|name| name == PROXY_CONTAINER || name == REDIRECT_CONTAINER)
}

/// An init container stays only if it says so; any other container must not say anything.
fn restart_policy(proxy: &mut Map<String, Value>, native: bool) {
    if native {
        proxy.insert("restartPolicy".to_owned(), "Always".into());
    } else {
        proxy.remove("restartPolicy");
    }
}

/// Gives the proxy the variables about the rest of the pod, and takes away those that are over.
fn note_findings(proxy: &mut Map<String, Value>, complete: &Value) {
    let env = array_in(proxy, "env");
    for name in NOTES {
        let wanted = complete.get("env").and_then(Value::as_array);
        let wanted = wanted.and_then(|env| env.iter().find(|item| name_of(item) == Some(name)));
        let known = env.iter().position(|item| name_of(item) == Some(name));
        match (known, wanted) {
            (Some(known), Some(wanted)) => env[known] = wanted.clone(),
            (Some(known), None) => drop(env.remove(known)),
            (None, Some(wanted)) => env.push(wanted.clone()),
            (None, None) => {}
        }
    }
}

fn dns_warning(pod: &Pod, namespace: &Namespace) -> Option<String> {
    let policy = pod.spec.as_ref()?.dns_policy.as_deref()?;
    matches!(policy, "Default" | "None").then(|| {
        format!(
            "dnsPolicy is {policy}: a pod of namespace {} that does not use the cluster's DNS may not find the control plane",
            namespace.name
        )
    })
}

fn string_map(pod: &Value, path: &str) -> BTreeMap<String, String> {
    let map = pod.pointer(path).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn encode(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(Error::Encode)
}
