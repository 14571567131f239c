//! What injection reads of a pod, as Kubernetes' own types.
//!
//! Only that: the API server has read the whole pod before it asks, and a large pod is mostly what
//! nobody here looks at.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, de::Error as _};
use serde_json::{Error, Map, Value};

use super::container::PROXY_CONTAINER;

/// The pod, without most of what injection does not look at.
pub(super) fn pod(pod: &Value) -> Result<Pod, Error> {
    let pod = object(pod, "a pod")?;
    let metadata = optional(pod, "metadata", metadata)?.unwrap_or_default();
    Ok(Pod { metadata, spec: optional(pod, "spec", spec)?, status: None })
}

fn metadata(metadata: &Value) -> Result<ObjectMeta, Error> {
    let metadata = object(metadata, "metadata")?;
    Ok(ObjectMeta {
        name: field(metadata, "name")?,
        generate_name: field(metadata, "generateName")?,
        labels: field(metadata, "labels")?,
        annotations: field(metadata, "annotations")?,
        owner_references: field(metadata, "ownerReferences")?,
        ..ObjectMeta::default()
    })
}

fn spec(spec: &Value) -> Result<PodSpec, Error> {
    let spec = object(spec, "a pod's spec")?;
    Ok(PodSpec {
        containers: items(spec, "containers", container)?.unwrap_or_default(),
        init_containers: items(spec, "initContainers", container)?,
        volumes: items(spec, "volumes", volume)?,
        affinity: field(spec, "affinity")?,
        dns_policy: field(spec, "dnsPolicy")?,
        host_network: field(spec, "hostNetwork")?,
        node_name: field(spec, "nodeName")?,
        node_selector: field(spec, "nodeSelector")?,
        os: field(spec, "os")?,
        restart_policy: field(spec, "restartPolicy")?,
        ..PodSpec::default()
    })
}

fn container(container: &Value) -> Result<Container, Error> {
    let container = object(container, "a container")?;
    let name: String = field(container, "name")?.unwrap_or_default();
    // Of the proxy, it tells what an earlier injection found.
    let env = if name == PROXY_CONTAINER { field(container, "env")? } else { None };
    Ok(Container {
        name,
        env,
        args: field(container, "args")?,
        image: field(container, "image")?,
        restart_policy: field(container, "restartPolicy")?,
        security_context: field(container, "securityContext")?,
        ..Container::default()
    })
}

fn volume(volume: &Value) -> Result<Volume, Error> {
    let name = field(object(volume, "a volume")?, "name")?.unwrap_or_default();
    Ok(Volume { name, ..Volume::default() })
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| Error::custom(format!("{what} must be an object")))
}

fn field<T: for<'de> Deserialize<'de>>(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Option<T>, Error> {
    optional(object, name, T::deserialize)
}

/// An absent field and `null` say the same.
fn optional<'a, T>(
    object: &'a Map<String, Value>,
    name: &str,
    read: impl FnOnce(&'a Value) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let given = object.get(name).filter(|value| !value.is_null());
    let named = |error: Error| Error::custom(format!("{name}: {error}"));
    given.map(read).transpose().map_err(named)
}

fn items<T>(
    object: &Map<String, Value>,
    name: &str,
    read: fn(&Value) -> Result<T, Error>,
) -> Result<Option<Vec<T>>, Error> {
    optional(object, name, |list| match list {
        Value::Array(items) => items.iter().map(read).collect(),
        _ => Err(Error::custom("must be a list")),
    })
}
