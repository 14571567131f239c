//! Who sees what does not say, and whose policies hold for all.

use super::MESH;
use crate::{
    api::meshwright::MeshSettings,
    mesh::{
        MeshConfig,
        report::{Path, Report},
    },
};

pub(super) fn convert(mesh: &MeshSettings, config: &mut MeshConfig, report: &mut Report) {
    let exports = &mut config.default_exports;
    exports.services = list(&mesh.default_service_export_to, "defaultServiceExportTo", report);
    exports.virtual_services =
        list(&mesh.default_virtual_service_export_to, "defaultVirtualServiceExportTo", report);
    exports.destination_rules =
        list(&mesh.default_destination_rule_export_to, "defaultDestinationRuleExportTo", report);
    if !mesh.root_namespace.is_empty() {
        if is_namespace(&mesh.root_namespace) {
            config.system_namespace = mesh.root_namespace.as_str().into();
        } else {
            let message = format!("{:?} is no name of a namespace", mesh.root_namespace);
            report.error(&MESH.field("rootNamespace"), "InvalidNamespace", message);
        }
    }
}

fn list(entries: &[String], field: &'static str, report: &mut Report) -> Vec<String> {
    let path = MESH.field(field);
    let mut kept = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match problem(entry) {
            None => kept.push(entry.clone()),
            Some(message) => report.error(&path.index(index), "InvalidNamespace", message),
        }
    }
    contradiction(&kept, &path, report);
    kept
}

fn problem(entry: &str) -> Option<String> {
    let known = matches!(entry, "*" | "." | "~") || is_namespace(entry);
    (!known).then(|| format!("{entry:?} is neither a namespace's name nor one of *, . and ~"))
}

fn contradiction(entries: &[String], path: &Path<'_>, report: &mut Report) {
    let alone = entries.iter().find(|entry| matches!(entry.as_str(), "*" | "~"));
    if let Some(entry) = alone.filter(|_| entries.len() > 1) {
        report.error(path, "Contradiction", format!("{entry} stands alone or not at all"));
    }
}

/// A DNS label.
fn is_namespace(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
