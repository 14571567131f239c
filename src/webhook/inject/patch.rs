//! The pod as it should be: typed containers laid over the pod's own JSON, so that fields that this
//! version does not know survive. Injecting an injected pod changes nothing.

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Error, InjectConfig, Namespace, Options, canonical,
    container::{self, ProxyIdentity, Role},
    metrics,
    options::Chosen,
    overlay, probes,
    workload::workload_name,
};
use crate::api::meshwright::labels;

const DEFAULT_CONTAINER: [&str; 2] =
    ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"];

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
    let Chosen { options, warnings } =
        Options::of_pod(&config.proxy.defaults, typed, config.istio_labels)?;
    let mut pod = pod.clone();
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut).ok_or(Error::NoSpec)?;
    let before = Before::read(spec);
    let route = if options.rewrite_probes {
        probes::Route::Agent { native: options.native }
    } else {
        probes::Route::Direct
    };
    let app_probes = probes::route(spec, &before.app_probes, route);
    let first = first_container(spec);

    let metadata = object(&mut pod, "metadata");
    let annotations = object_in(metadata, "annotations");
    let app_metrics = metrics::merge(annotations, before.app_metrics, options.merge_metrics)?;
    annotate(annotations, first, config);
    annotations.extend(options.annotations());
    let pod_labels = object_in(metadata, "labels");
    pod_labels.insert(labels::REVISION.to_owned(), config.revision.clone().into());
    for (key, label) in canonical::labels(&typed.metadata, config.istio_labels) {
        pod_labels.insert(key.to_owned(), label.into());
    }

    let identity = ProxyIdentity {
        role: Role::Sidecar,
        workload: workload_name(&typed.metadata),
        app_probes,
        app_metrics,
    };
    add_containers(object(&mut pod, "spec"), config, &options, &identity)?;
    let warnings = warnings.into_iter().chain(dns_warning(typed, namespace)).collect();
    Ok(Injected { pod, warnings })
}

/// What an earlier injection of the same pod noted in the proxy's environment.
#[derive(Default)]
struct Before {
    app_probes: Map<String, Value>,
    app_metrics: Option<String>,
}

impl Before {
    fn read(spec: &Map<String, Value>) -> Self {
        let proxy = list(spec, "initContainers")
            .find(|item| name_of(item) == Some(container::PROXY_CONTAINER));
        let env = |name: &str| {
            let env = proxy?.get("env")?.as_array()?;
            let value = env.iter().find(|item| name_of(item) == Some(name))?.get("value")?;
            Some(container::unescaped(value.as_str()?))
        };
        let app_probes = env(container::APP_PROBES_ENV)
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default();
        Self { app_probes, app_metrics: env(container::APP_METRICS_ENV) }
    }
}

fn annotate(annotations: &mut Map<String, Value>, first: Option<String>, config: &InjectConfig) {
    if let Some(first) = first {
        for key in DEFAULT_CONTAINER {
            annotations.entry(key).or_insert_with(|| first.clone().into());
        }
    }
    let status = json!({
        "revision": config.revision,
        "initContainers": [container::REDIRECT_CONTAINER, container::PROXY_CONTAINER],
        "volumes": [container::RUN_VOLUME, container::IDENTITY_VOLUME],
    });
    annotations.insert(labels::STATUS.to_owned(), status.to_string().into());
}

/// Ours go before the user's init containers, so that those already have their traffic in the mesh.
fn add_containers(
    spec: &mut Map<String, Value>,
    config: &InjectConfig,
    options: &Options,
    identity: &ProxyIdentity,
) -> Result<(), Error> {
    let proxy = container::proxy(&config.proxy, options, identity);
    let wanted: Vec<_> = container::redirect(options).into_iter().chain([proxy]).collect();
    let init = array(spec, "initContainers");
    for (position, wanted) in wanted.iter().enumerate() {
        let mut container = overlay::take_named(init, &wanted.name);
        forget(&mut container, &[container::APP_PROBES_ENV, container::APP_METRICS_ENV]);
        overlay::overlay(&mut container, encode(wanted)?);
        init.insert(position, container);
    }
    let volumes = container::volumes(options).iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    overlay::overlay_list(array(spec, "volumes"), volumes, "name");
    Ok(())
}

/// Takes variables away that this injection may not set again.
fn forget(container: &mut Value, names: &[&str]) {
    if let Some(Value::Array(env)) = container.get_mut("env") {
        env.retain(|item| !name_of(item).is_some_and(|name| names.contains(&name)));
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

fn encode(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(Error::Encode)
}

fn first_container(spec: &Map<String, Value>) -> Option<String> {
    list(spec, "containers").find(|item| !is_ours(item)).and_then(name_of).map(str::to_owned)
}

fn is_ours(container: &Value) -> bool {
    name_of(container).is_some_and(|name| {
        name == container::PROXY_CONTAINER || name == container::REDIRECT_CONTAINER
    })
}

fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

fn list<'a>(spec: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The object in this field, made where there is none (the API server writes `null` for some).
fn object<'a>(parent: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    match parent {
        Value::Object(parent) => object_in(parent, field),
        _ => unreachable!("it has just been made an object"),
    }
}

fn object_in<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it has just been made an object"),
    }
}

fn array<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(field).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(array) => array,
        _ => unreachable!("it has just been made an array"),
    }
}
