//! ReferenceGrants: which references across namespaces are allowed.

use crate::{
    api::gateway::{GROUP, ReferenceGrant},
    watch::{Snapshot, snapshot::Table},
};

/// An object of the core group that something refers to.
#[derive(Clone, Copy, Debug)]
pub struct Referent<'a> {
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Whether a Gateway API object of this kind and namespace may refer to the object.
pub fn permit(snapshot: &Snapshot, kind: &str, namespace: &str, to: Referent<'_>) -> bool {
    namespace == to.namespace || granted(&snapshot.reference_grants, kind, namespace, to)
}

fn granted(grants: &Table<ReferenceGrant>, kind: &str, namespace: &str, to: Referent<'_>) -> bool {
    let there = grants.iter().filter(|(key, _)| &*key.namespace == to.namespace);
    there.map(|(_, grant)| &grant.spec).any(|grant| {
        let from = grant
            .from
            .iter()
            .any(|from| from.group == GROUP && from.kind == kind && from.namespace == namespace);
        from && grant.to.iter().any(|granted| {
            granted.group.is_empty()
                && granted.kind == to.kind
                && granted.name.as_deref().is_none_or(|name| name.is_empty() || name == to.name)
        })
    })
}
