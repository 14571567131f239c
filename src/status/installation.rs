//! What the control plane has to say about its MeshInstallation: one condition `MeshConfigured`.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::conditions::{Wanted, list, merge};
use crate::{
    api::meshwright::status::MESH_CONFIGURED,
    diagnostic::{Diagnostic, Severity},
};

/// The condition as it should be. `findings` has the errors first.
pub fn conditions(
    existing: &[Condition],
    generation: Option<i64>,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> Vec<Condition> {
    let wanted = match findings.first() {
        None => Wanted {
            message: "all of spec.mesh takes effect".to_owned(),
            ..Wanted::new(MESH_CONFIGURED, true, "Accepted")
        },
        Some(first) if first.severity == Severity::Error => {
            Wanted { message: list(findings), ..Wanted::new(MESH_CONFIGURED, false, first.reason) }
        }
        Some(_) => Wanted {
            message: list(findings),
            ..Wanted::new(MESH_CONFIGURED, true, "AcceptedWithWarnings")
        },
    };
    merge(existing, vec![wanted], generation, now)
}
