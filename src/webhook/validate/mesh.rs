//! What `spec.mesh` must be: exactly what the control plane can make settings of.

use crate::{api::meshwright::MeshInstallation, diagnostic::Diagnostic, mesh};

/// What is wrong with the settings, by the conversion that the control plane runs.
pub(super) fn check(installation: &MeshInstallation) -> Vec<Diagnostic> {
    mesh::validate::mesh_settings(installation)
}
