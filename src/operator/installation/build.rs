//! The objects of an installation. Pure and infallible: everything has been checked before.

mod control_plane;
mod gateway;
mod rbac;
pub mod webhook;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::validate::{Validated, rehearsal};
use crate::{
    api::meshwright::{
        MeshInstallation,
        labels::{INSTALLATION, MANAGED_BY, MANAGER},
    },
    operator::{
        objects::{Objects, Prepared},
        patches::PatchError,
    },
};
pub use gateway::{gateway_defaults, patch_problem as gateway_patch_problem};

/// Builds everything that the installation asks for.
pub fn build(valid: &Validated) -> Objects<Prepared> {
    let mut objects = Objects::default();
    control_plane::build(valid, &mut objects);
    rbac::build(valid, &mut objects);
    for gateway in &valid.gateways {
        gateway::workload(valid, gateway).build(&mut objects);
    }
    objects.mutating_webhooks.push(webhook::injector(valid));
    objects
}

/// What is wrong with the patches of the control plane, if anything.
pub fn control_plane_patch_problem(installation: &MeshInstallation) -> Option<PatchError> {
    control_plane::patch_problem(&rehearsal(installation))
}

/// Labels of everything that belongs to the installation.
fn labels(valid: &Validated) -> BTreeMap<String, String> {
    [
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "meshwright".to_owned()),
        (INSTALLATION.to_owned(), valid.name.clone()),
    ]
    .into()
}

fn metadata(
    valid: &Validated,
    name: &str,
    namespace: Option<&str>,
    owner: &OwnerReference,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels(valid)),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}
