//! The user's own volumes for the proxy.

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{bad, form};
use crate::webhook::inject::container;

/// Fields of a mount. Istio's documentation writes one of them in small letters, and Kubernetes'
/// own reader does not care.
const MOUNT_FIELDS: [&str; 6] =
    ["mountPath", "mountPropagation", "readOnly", "recursiveReadOnly", "subPath", "subPathExpr"];

/// Volumes from a JSON object: name → source.
pub(super) fn volumes(text: &str) -> form::Result<Vec<Volume>> {
    objects(text)?.into_iter().map(|(name, source)| volume(&name, source)).collect()
}

/// Mounts from a JSON object: name of the volume → how it is mounted.
pub(super) fn mounts(text: &str) -> form::Result<Vec<VolumeMount>> {
    objects(text)?.into_iter().map(|(name, mount)| self::mount(&name, mount)).collect()
}

fn objects(text: &str) -> form::Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| bad::harmless(&error.to_string()))
}

fn volume(name: &str, source: Value) -> form::Result<Volume> {
    if !form::is_label(name) {
        return Err(format!("{} is no name of a volume", form::part(name)));
    }
    if container::is_reserved_volume(name) {
        return Err(format!("the volume {name} is Meshwright's own: choose another name"));
    }
    if source.as_object().is_none_or(|source| source.len() != 1) {
        return Err(format!("the volume {name} must have one source"));
    }
    typed(name, source)
}

fn mount(name: &str, mount: Value) -> form::Result<VolumeMount> {
    let Value::Object(mount) = mount else {
        return Err(format!("the mount of {} is no object", form::part(name)));
    };
    let spelled = |field: String| {
        let known = MOUNT_FIELDS.iter().find(|known| known.eq_ignore_ascii_case(&field));
        known.map_or(field, |known| (*known).to_owned())
    };
    let mount = mount.into_iter().map(|(field, value)| (spelled(field), value)).collect();
    let mount: VolumeMount = typed(name, Value::Object(mount))?;
    let path = &mount.mount_path;
    if !path.starts_with('/') || path.contains([':', '\0']) || path.split('/').any(|p| p == "..") {
        return Err(format!("{} is no absolute path", form::part(path)));
    }
    if container::is_reserved_path(path) {
        return Err(format!("{} belongs to the proxy itself", form::part(path)));
    }
    Ok(mount)
}

/// Reads an object as Kubernetes' type with this name, and refuses fields that the type lacks: they
/// would be lost.
fn typed<T: DeserializeOwned + Serialize>(name: &str, source: Value) -> form::Result<T> {
    let Value::Object(mut source) = source else {
        return Err(format!("{} is no object", form::part(name)));
    };
    source.insert("name".to_owned(), name.into());
    let source = Value::Object(source);
    let wrong = |what: String| format!("{}: {}", form::part(name), bad::harmless(&what));
    let typed: T = T::deserialize(&source).map_err(|error| wrong(error.to_string()))?;
    let known = serde_json::to_value(&typed).map_err(|error| wrong(error.to_string()))?;
    match lost(&source, &known) {
        Some(field) => Err(wrong(format!("there is no field {field}"))),
        None => Ok(typed),
    }
}

/// The first field that is not in `known`.
fn lost(source: &Value, known: &Value) -> Option<String> {
    match (source, known) {
        (Value::Object(source), Value::Object(known)) => source
            .iter()
            .filter(|(_, value)| !value.is_null())
            .find_map(|(field, value)| match known.get(field) {
                None => Some(field.clone()),
                Some(known) => lost(value, known).map(|inner| format!("{field}.{inner}")),
            }),
        (Value::Array(source), Value::Array(known)) => {
            source.iter().zip(known).find_map(|(source, known)| lost(source, known))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_volumes_and_mounts() {
        let found = volumes(r#"{"certs": {"secret": {"secretName": "db", "optional": true}}}"#);
        assert_eq!(found.unwrap()[0].secret.as_ref().unwrap().optional, Some(true));
        let found = mounts(r#"{"certs": {"mountPath": "/etc/certs", "readonly": true}}"#).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].read_only), ("certs", Some(true)));
    }

    #[test]
    fn names_what_is_wrong_with_a_volume() {
        for (text, want) in [
            ("[]", "expected a map"),
            ("{", "EOF"),
            (r#"{"Certs": {"emptyDir": {}}}"#, "no name of a volume"),
            (r#"{"meshwright-run": {"emptyDir": {}}}"#, "Meshwright's own"),
            (r#"{"a": {}}"#, "one source"),
            (r#"{"a": 1}"#, "one source"),
            (r#"{"a": {"emptyDir": {}, "secret": {}}}"#, "one source"),
            (r#"{"a": {"emptyDirr": {}}}"#, "no field emptyDirr"),
            (r#"{"a": {"secret": {"secretname": "x"}}}"#, "no field secret.secretname"),
            (r#"{"a": {"secret": {"optional": "yes"}}}"#, "invalid type"),
        ] {
            let error = volumes(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn names_what_is_wrong_with_a_mount() {
        for (text, want) in [
            (r#"{"a": "/b"}"#, "no object"),
            (r#"{"a": {}}"#, "no absolute path"),
            (r#"{"a": {"mountPath": "b"}}"#, "no absolute path"),
            (r#"{"a": {"mountPath": "/b/../../etc"}}"#, "no absolute path"),
            (r#"{"a": {"mountPath": "/var/run/meshwright/x"}}"#, "belongs to the proxy"),
            (r#"{"a": {"mountPath": "/"}}"#, "belongs to the proxy"),
            (r#"{"a": {"mountPath": "/b", "readOnyl": true}}"#, "no field readOnyl"),
        ] {
            let error = mounts(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
