//! Refuses configuration that cannot work, in the same words as the status of an object that got in
//! some other way.

pub mod deletion;
mod fleet;
mod gateway;
pub mod installation;
mod istio;
mod mesh;
pub mod names;
mod neighbours;
mod unknown;

use serde_json::Value;

use super::review::{Answer, Kind, Request};
use crate::{
    api::meshwright::MeshInstallation,
    diagnostic::{Diagnostic, Severity},
};

/// Checks one object of any kind that the webhook is asked about. `installations` are those that
/// exist.
pub fn answer<'a>(
    request: &Request,
    installations: impl Iterator<Item = &'a MeshInstallation>,
) -> Answer {
    // An object on its way out, or one whose spec stays as it is (a finalizer, a label), must not be
    // held up by what was wrong before.
    let leaving = !request.object["metadata"]["deletionTimestamp"].is_null();
    let unchanged =
        !request.old_object.is_null() && request.object["spec"] == request.old_object["spec"];
    if request.object.is_null() || leaving || unchanged {
        return Answer::allow();
    }
    let Kind { group, kind, .. } = &request.kind;
    let found = match (group.as_str(), kind.as_str()) {
        ("meshwright.dev", "MeshInstallation") => {
            installation::check_json(&request.object, installations)
        }
        _ => istio::check(&request.kind, &request.object),
    };
    match found {
        Ok(diagnostics) => judge(diagnostics),
        Err(unreadable) => Answer::deny(unreadable),
    }
}

/// Errors refuse; warnings go to whoever applied it.
fn judge(diagnostics: Vec<Diagnostic>) -> Answer {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.into_iter().partition(|finding| finding.severity == Severity::Error);
    let text = |finding: Diagnostic| format!("{}: {}", finding.path, finding.message);
    let warnings: Vec<_> = warnings.into_iter().map(text).collect();
    if errors.is_empty() {
        return Answer::Allow { patch: None, warnings, audit: [].into() };
    }
    let message = errors.into_iter().map(text).collect::<Vec<_>>().join("; ");
    Answer::Deny { message, warnings, audit: [].into() }
}

/// Reads an object, with a message for people where that fails.
fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T, String> {
    T::deserialize(object).map_err(|error| format!("the object cannot be read: {error}"))
}
