//! Lays a user's strategic merge patches over the objects of a workload. Pure.
//!
//! A patch changes what the operator leaves to its user, and not what makes the object the operator's:
//! its name, its owner, its selector, the labels by which it is found. A field that does not exist, or
//! that would be dropped, is refused and not ignored.

mod guard;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    api::meshwright::{ObjectPatch, PatchedKind},
    webhook::inject::strategic::{self, Lists},
};

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchError {
    /// Which of the patches, from 0.
    pub index: usize,
    /// The field within the patched object, empty for the object as a whole.
    pub field: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl std::error::Error for PatchError {}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.field.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.field, self.message)
    }
}

impl PatchError {
    /// The place in a list of patches: `patches[0].patch.spec.replicas`.
    pub fn path(&self) -> String {
        let dot = if self.field.is_empty() { "" } else { "." };
        format!("patches[{}].patch{dot}{}", self.index, self.field)
    }
}

/// What is wrong with a field.
struct Problem {
    field: String,
    message: String,
}

impl Problem {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl PatchedKind {
    /// Lists of this kind that merge.
    fn lists(self) -> Lists {
        match self {
            Self::Deployment => Lists::POD,
            Self::Service => Lists::SERVICE,
            Self::ServiceAccount => Lists::SERVICE_ACCOUNT,
            Self::HorizontalPodAutoscaler | Self::PodDisruptionBudget => Lists::NONE,
        }
    }

    /// As objects of this kind call themselves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }
}

/// The object with those of the patches that are about its kind laid over it, in their order.
pub fn patched<K: Serialize + DeserializeOwned>(
    object: K,
    kind: PatchedKind,
    patches: &[ObjectPatch],
) -> Result<K, PatchError> {
    let mut object = object;
    for (index, patch) in patches.iter().enumerate().filter(|(_, patch)| patch.kind == kind) {
        object = one(&object, kind, &patch.patch.0)
            .map_err(|Problem { field, message }| PatchError { index, field, message })?;
    }
    Ok(object)
}

fn one<K: Serialize + DeserializeOwned>(
    object: &K,
    kind: PatchedKind,
    patch: &Map<String, Value>,
) -> Result<K, Problem> {
    guard::patch(kind, patch)?;
    let before = serde_json::to_value(object).map_err(|e| Problem::new("", e.to_string()))?;
    let after = merged(kind, &before, patch)?;
    let typed: K = K::deserialize(&after)
        .map_err(|error| Problem::new(culprit::<K>(kind, &before, patch), error.to_string()))?;
    let read = serde_json::to_value(&typed).map_err(|e| Problem::new("", e.to_string()))?;
    if let Some(field) = lost(&after, &read) {
        let message = format!("a {} has no such field", kind.as_str());
        return Err(Problem::new(field, message));
    }
    guard::outcome(kind, &before, &read)?;
    Ok(typed)
}

fn merged(kind: PatchedKind, before: &Value, patch: &Map<String, Value>) -> Result<Value, Problem> {
    let mut after = before.as_object().cloned().unwrap_or_default();
    strategic::merge_by(kind.lists(), &mut after, patch).map_err(|error| {
        let text = error.to_string();
        match text.split_once(": ") {
            Some((field, message)) => Problem::new(field, message),
            None => Problem::new("", text),
        }
    })?;
    Ok(Value::Object(after))
}

/// The field whose value has the wrong form: the one without which the object can be read. Empty where
/// several have.
fn culprit<K: DeserializeOwned>(
    kind: PatchedKind,
    before: &Value,
    patch: &Map<String, Value>,
) -> String {
    let mut leaves = Vec::new();
    collect(&Value::Object(patch.clone()), &mut Vec::new(), &mut leaves);
    let readable = |leaf: &&Vec<Step>| {
        let mut patch = Value::Object(patch.clone());
        remove(&mut patch, leaf);
        let Value::Object(patch) = patch else { return false };
        merged(kind, before, &patch).is_ok_and(|object| K::deserialize(&object).is_ok())
    };
    leaves.iter().find(readable).map_or_else(String::new, |leaf| path(leaf))
}

/// One step from an object or a list to what is in it.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item(usize),
}

/// The ways to everything that is not an object or a list of objects.
fn collect(value: &Value, way: &mut Vec<Step>, leaves: &mut Vec<Vec<Step>>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                way.push(Step::Field(field.clone()));
                collect(value, way, leaves);
                way.pop();
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (position, item) in items.iter().enumerate() {
                way.push(Step::Item(position));
                collect(item, way, leaves);
                way.pop();
            }
        }
        _ => leaves.push(way.clone()),
    }
}

fn remove(value: &mut Value, way: &[Step]) {
    match (value, way) {
        (Value::Object(fields), [Step::Field(field)]) => drop(fields.remove(field)),
        (Value::Array(items), [Step::Item(position)]) if *position < items.len() => {
            items.remove(*position);
        }
        (Value::Object(fields), [Step::Field(field), rest @ ..]) => {
            if let Some(value) = fields.get_mut(field) {
                remove(value, rest);
            }
        }
        (Value::Array(items), [Step::Item(position), rest @ ..]) => {
            if let Some(value) = items.get_mut(*position) {
                remove(value, rest);
            }
        }
        _ => {}
    }
}

fn path(way: &[Step]) -> String {
    let mut path = String::new();
    for step in way {
        match step {
            Step::Field(field) if path.is_empty() => path.push_str(field),
            Step::Field(field) => {
                path.push('.');
                path.push_str(field);
            }
            Step::Item(position) => {
                path.push('[');
                path.push_str(&position.to_string());
                path.push(']');
            }
        }
    }
    path
}

/// The first field that was written and is not there when the object is read back.
fn lost(written: &Value, read: &Value) -> Option<String> {
    let mut way = Vec::new();
    find_lost(written, read, &mut way).then(|| path(&way))
}

fn find_lost(written: &Value, read: &Value, way: &mut Vec<Step>) -> bool {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().any(|(field, value)| {
            way.push(Step::Field(field.clone()));
            let found = match read.get(field) {
                Some(read) => find_lost(value, read, way),
                // The types leave out what is not set.
                None => !value.is_null(),
            };
            if !found {
                way.pop();
            }
            found
        }),
        (Value::Array(written), Value::Array(read)) => {
            written.iter().zip(read).enumerate().any(|(position, (written, read))| {
                way.push(Step::Item(position));
                let found = find_lost(written, read, way);
                if !found {
                    way.pop();
                }
                found
            })
        }
        _ => false,
    }
}
