//! Kubernetes' strategic merge: objects merge by field, `null` takes a field away, and a list whose
//! items have a key merges by it ([`Lists`] says which, by kind of object). Other lists are replaced.
//!
//! The directives are those of a strategic merge patch: `$patch: replace|delete|merge`,
//! `$retainKeys`, `$setElementOrder/LIST` and `$deleteFromPrimitiveList/LIST`.

mod directives;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

use super::json::{array_in, object_in};
use directives::{Directive, directive};

/// Lists of a pod that merge, with the fields that tell their items apart. Where the API server
/// knows more fields than the patches of old (`ports`, `topologySpreadConstraints`), its own count.
const KEYED: [(&str, &[&str]); 15] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("ports", &["containerPort", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("resourceClaims", &["name"]),
    ("claims", &["name"]),
    ("schedulingGates", &["name"]),
    ("ownerReferences", &["uid"]),
];
/// Lists of a Service that merge.
const KEYED_IN_SERVICES: [(&str, &[&str]); 2] =
    [("ports", &["port", "protocol"]), ("ownerReferences", &["uid"])];
/// Lists of a ServiceAccount that merge.
const KEYED_IN_ACCOUNTS: [(&str, &[&str]); 2] =
    [("secrets", &["name"]), ("ownerReferences", &["uid"])];
/// Lists that merge in objects of any kind.
const KEYED_EVERYWHERE: [(&str, &[&str]); 1] = [("ownerReferences", &["uid"])];
/// Lists of plain values that merge as sets.
const SETS: [&str; 1] = ["finalizers"];
/// What [`fill`] goes into. Everything else it takes as one value: half of somebody's probe and half
/// of ours would be none.
const OPEN: [&str; 4] = ["metadata", "spec", "labels", "annotations"];
/// Lists whose items [`fill`] goes into.
const OPEN_LISTS: [&str; 2] = ["containers", "initContainers"];

/// Which lists of an object merge, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Lists(&'static [(&'static str, &'static [&'static str])]);

impl Lists {
    /// Those of a pod, and of what has a pod in it.
    pub const POD: Self = Self(&KEYED);
    pub const SERVICE: Self = Self(&KEYED_IN_SERVICES);
    pub const SERVICE_ACCOUNT: Self = Self(&KEYED_IN_ACCOUNTS);
    /// Of kinds whose lists are all replaced.
    pub const NONE: Self = Self(&KEYED_EVERYWHERE);

    fn keys(self, field: &str) -> Option<&'static [&'static str]> {
        self.0.iter().find(|(list, _)| *list == field).map(|(_, keys)| *keys)
    }
}

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Fields from the outside in, the innermost first.
    path: Vec<String>,
    message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, field) in self.path.iter().rev().enumerate() {
            let dot = if position == 0 || field.starts_with('[') { "" } else { "." };
            write!(f, "{dot}{field}")?;
        }
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{colon}{}", self.message)
    }
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into() }
    }

    fn within(mut self, field: &str) -> Self {
        self.path.push(field.to_owned());
        self
    }
}

/// Lays a patch over a pod, or a part of one.
pub fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Error> {
    merge_by(Lists::POD, target, patch)
}

/// Lays a patch over an object with such lists.
pub fn merge_by(
    lists: Lists,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Error> {
    match directive(patch)? {
        Directive::Delete => target.clear(),
        Directive::Replace => *target = directives::without(patch),
        Directive::Merge => {
            for (field, wanted) in patch.iter().filter(|(field, _)| !field.starts_with('$')) {
                merge_field(lists, target, field, wanted).map_err(|error| error.within(field))?;
            }
            directives::apply(lists, target, patch)?;
        }
    }
    Ok(())
}

fn merge_field(
    lists: Lists,
    target: &mut Map<String, Value>,
    field: &str,
    wanted: &Value,
) -> Result<(), Error> {
    // A label may well be called `env`.
    let list = lists.keys(field).is_some() && target.get(field).is_some_and(Value::is_array);
    match wanted {
        Value::Null => drop(target.remove(field)),
        Value::Object(wanted) if directive(wanted)? == Directive::Delete => {
            target.remove(field);
        }
        Value::Object(_) | Value::String(_) | Value::Number(_) | Value::Bool(_) if list => {
            return Err(Error::new("must be a list"));
        }
        Value::Object(wanted) => merge_by(lists, object_in(target, field), wanted)?,
        Value::Array(wanted) => match lists.keys(field) {
            Some(keys) => merge_list(lists, array_in(target, field), wanted, keys)?,
            None if SETS.contains(&field) => {
                let existing = array_in(target, field);
                for item in wanted {
                    if !existing.contains(item) {
                        existing.push(item.clone());
                    }
                }
            }
            None => drop(target.insert(field.to_owned(), wanted.clone().into())),
        },
        wanted => drop(target.insert(field.to_owned(), wanted.clone())),
    }
    Ok(())
}

fn merge_list(
    lists: Lists,
    existing: &mut Vec<Value>,
    wanted: &[Value],
    keys: &[&str],
) -> Result<(), Error> {
    let mut items = Vec::with_capacity(wanted.len());
    let mut replace = false;
    for (position, item) in wanted.iter().enumerate() {
        let place = |error: Error| error.within(&format!("[{position}]"));
        let item = item.as_object().ok_or_else(|| place(Error::new("must be an object")))?;
        let directive = directive(item).map_err(place)?;
        replace |= directive == Directive::Replace;
        if item.get(keys[0]).is_some_and(|key| !key.is_null()) {
            items.push((item, directive));
        } else if directive != Directive::Replace {
            return Err(place(Error::new(format!("has no {}, by which it is merged", keys[0]))));
        }
    }
    if replace {
        existing.clear();
    }
    for (item, directive) in items {
        let same = |other: &Value| same_key(other, item, keys);
        match existing.iter().position(same) {
            Some(position) if directive == Directive::Delete => drop(existing.remove(position)),
            Some(position) => merge_item(lists, &mut existing[position], item)?,
            None if directive == Directive::Delete => {}
            None => {
                let mut fresh = Value::Object(Map::new());
                merge_item(lists, &mut fresh, item)?;
                existing.push(fresh);
            }
        }
    }
    Ok(())
}

fn merge_item(lists: Lists, target: &mut Value, patch: &Map<String, Value>) -> Result<(), Error> {
    match target {
        Value::Object(target) => {
            let name = patch.get("name").and_then(Value::as_str).unwrap_or_default();
            merge_by(lists, target, patch).map_err(|error| error.within(&format!("[{name}]")))
        }
        target => {
            *target = Value::Object(directives::without(patch));
            Ok(())
        }
    }
}

/// Adds what is missing in an object, and changes nothing that is there: [`merge`] the other way
/// round, for an object that others have worked on.
pub fn fill(target: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (field, value) in from {
        match (target.get_mut(field), value) {
            (None | Some(Value::Null), value) => drop(target.insert(field.clone(), value.clone())),
            (Some(Value::Object(target)), Value::Object(from)) if OPEN.contains(&&**field) => {
                fill(target, from);
            }
            (Some(Value::Array(existing)), Value::Array(from)) => {
                if let Some(keys) = Lists::POD.keys(field) {
                    fill_list(existing, from, keys, OPEN_LISTS.contains(&&**field));
                }
            }
            _ => {}
        }
    }
}

fn fill_list(existing: &mut Vec<Value>, from: &[Value], keys: &[&str], open: bool) {
    for item in from.iter().filter_map(Value::as_object) {
        match existing.iter_mut().find(|other| same_key(other, item, keys)) {
            Some(Value::Object(other)) if open => fill(other, item),
            Some(_) => {}
            None => existing.push(Value::Object(item.clone())),
        }
    }
}

fn same_key(item: &Value, other: &Map<String, Value>, keys: &[&str]) -> bool {
    let default = Value::from("TCP");
    keys.iter().all(|key| {
        let default = (*key == "protocol").then_some(&default);
        let given = |value: Option<&'_ Value>| value.filter(|value| !value.is_null()).cloned();
        given(item.get(key)).as_ref().or(default) == given(other.get(*key)).as_ref().or(default)
    })
}
