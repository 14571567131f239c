//! What `spec.mesh` must be: exactly what the control plane can make settings of.

use crate::{api::meshwright::MeshInstallation, diagnostic::Diagnostic, mesh};

/// What is wrong with the settings, by the conversion that the control plane runs.
pub(super) fn check(installation: &MeshInstallation) -> Vec<Diagnostic> {
    mesh::validate::mesh_settings(installation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::installation::check_json;

    #[test]
    fn settings_are_refused_as_the_control_plane_would_leave_them_out() {
        let object = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": "mesh"},
            "spec": {"mesh": {
                "connectTimeout": "soon",
                "h2UpgradePolicy": "UPGRADE",
                "defaultProviders": {"tracing": ["nobody"]},
            }},
        });
        let found = check_json(&object, std::iter::empty()).unwrap();
        let said: Vec<_> = found.iter().map(|one| format!("{} {}", one.path, one.reason)).collect();
        assert_eq!(
            said,
            [
                "spec.mesh.connectTimeout InvalidDuration",
                "spec.mesh.defaultProviders.tracing[0] UnknownProvider",
                "spec.mesh.h2UpgradePolicy UnknownField",
            ]
        );
    }
}
