//! Diagnostics and NACKs → conditions on users' objects.
//!
//! [`conditions`], [`installation`], [`istio`] and [`gateway`] are pure: what the status of an object should be.
//! [`patch`] compares it with what the object says, and [`writer`] writes the differences: one task,
//! in the control plane that leads.
//!
//! The addresses of a Gateway of the Gateway API, and its `Programmed` condition, belong to the
//! operator, which applies them under another field manager.

mod conditions;
mod gateway;
mod installation;
mod istio;
mod patch;
mod writer;

use std::{collections::BTreeMap, sync::Arc};

pub use patch::{Patch, patches};
pub use writer::write;

use crate::{
    diagnostic::Diagnostic,
    mesh::Mesh,
    watch::{Key, Snapshot},
};

/// What is known at one moment: the writer always works on the latest.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub snapshot: Snapshot,
    pub mesh: Arc<Mesh>,
    /// From all stages.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// What Envoy rejected, attributed to the objects that it came from.
    pub rejections: Arc<Vec<Diagnostic>>,
}

impl Findings {
    fn by_object(&self) -> ByObject<'_> {
        let mut by_object: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for diagnostic in self.diagnostics.iter().chain(self.rejections.iter()) {
            let object = &diagnostic.object;
            let key = Key::new(&object.namespace, &object.name);
            by_object.entry((object.api_version, object.kind, key)).or_default().push(diagnostic);
        }
        for found in by_object.values_mut() {
            // Errors first: the first one gives the condition its reason.
            found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
            found.dedup();
        }
        ByObject(by_object)
    }
}

/// Everything that was found out, by object. The generation plays no part.
struct ByObject<'a>(BTreeMap<(&'static str, &'static str, Key), Vec<&'a Diagnostic>>);

impl<'a> ByObject<'a> {
    fn get(&self, api_version: &'static str, kind: &'static str, key: &Key) -> &[&'a Diagnostic] {
        self.0.get(&(api_version, kind, key.clone())).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
