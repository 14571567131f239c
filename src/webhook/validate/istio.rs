//! Istio's kinds, by the same conversions that the control plane runs.
//!
//! A field that we do not act on is a warning here (and an error in the object's status): files
//! written for Istio must apply as they are.

use serde_json::Value;

use super::read;
use crate::{
    api::istio::{networking, security},
    diagnostic::{Diagnostic, Severity},
    mesh::validate,
    webhook::review::Kind,
};

/// Reasons of findings about what works elsewhere but not here.
const UNSUPPORTED: [&str; 3] = ["UnsupportedField", "UnsupportedProtocol", "UnsupportedValue"];

/// Checks an object of a kind that the mesh reads; other kinds have nothing to be checked.
pub(super) fn check(kind: &Kind, object: &Value) -> Result<Vec<Diagnostic>, String> {
    let mut found = match (kind.group.as_str(), kind.kind.as_str()) {
        ("networking.istio.io", "VirtualService") => {
            validate::virtual_service(&read::<networking::VirtualService>(object)?)
        }
        ("networking.istio.io", "DestinationRule") => {
            validate::destination_rule(&read::<networking::DestinationRule>(object)?)
        }
        ("networking.istio.io", "Gateway") => {
            validate::gateway(&read::<networking::Gateway>(object)?)
        }
        ("networking.istio.io", "ServiceEntry") => {
            validate::service_entry(&read::<networking::ServiceEntry>(object)?)
        }
        ("security.istio.io", "PeerAuthentication") => {
            validate::peer_authentication(&read::<security::PeerAuthentication>(object)?)
        }
        _ => Vec::new(),
    };
    for finding in &mut found {
        if UNSUPPORTED.contains(&finding.reason) {
            finding.severity = Severity::Warning;
        }
    }
    Ok(found)
}
