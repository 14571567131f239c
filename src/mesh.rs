//! Snapshot → [`Mesh`]: names resolved, rules checked, everything indexed. Pure.
//!
//! Each kind is converted by one module, which reports what is wrong as it goes; [`validate`] runs
//! the same conversions without a cluster, for the admission webhook. One bad object, or one bad
//! rule of an object, never affects others.

pub mod allocation;
mod backend;
pub(crate) mod config;
mod destination_rule;
pub mod discovery;
pub mod endpoints;
pub mod gateway;
mod grants;
mod http_route;
mod istio_gateway;
mod lookup;
pub mod model;
pub mod names;
pub mod parents;
mod peer_authentication;
pub mod precedence;
mod protocol;
mod report;
mod service_entry;
mod services;
pub mod syntax;
mod text_match;
pub mod validate;
mod virtual_service;

use std::{cmp::Ordering, sync::Arc};

use kube::ResourceExt;

pub use self::lookup::selects;
use crate::{diagnostic::Diagnostic, watch::Snapshot};
pub use model::*;

/// The mesh as the snapshot describes it, and what is wrong with the objects it came from.
pub fn build(snapshot: &Snapshot, endpoints: &EndpointTable) -> (Mesh, Vec<Diagnostic>) {
    let config = config::build(snapshot);
    let mut diagnostics = Vec::new();
    let mut services = services::build(snapshot, &config, endpoints);
    services.extend(service_entry::build(snapshot, &config, endpoints, &mut diagnostics));
    // Only now is it known where providers are.
    let (config, mut found) = config::complete(snapshot, &services);
    diagnostics.append(&mut found);
    let mut mesh = Mesh {
        services,
        workloads: services::workloads(snapshot, &config),
        config,
        ..Mesh::default()
    };
    mesh.destinations = destination_rule::build(snapshot, &mesh, &mut diagnostics);
    mesh.peer_authentication = peer_authentication::build(snapshot, &mesh.config, &mut diagnostics);
    mesh.gateways = istio_gateway::build(snapshot, &mesh, &mut diagnostics);
    mesh.gateways.extend(gateway::build(snapshot, &mut diagnostics));
    mesh.routes = virtual_service::build(snapshot, &mesh, &mut diagnostics);
    mesh.routes.extend(http_route::build(snapshot, &mesh, &mut diagnostics));
    diagnostics.sort();
    (mesh, diagnostics)
}

/// The objects of a table, oldest first, then by namespace and name: who came first wins.
fn by_age<K: kube::Resource>(table: &std::collections::BTreeMap<Key, Arc<K>>) -> Vec<&Arc<K>> {
    let mut objects: Vec<_> = table.iter().collect();
    objects.sort_by(|(key_a, a), (key_b, b)| older(&***a, &***b).then_with(|| key_a.cmp(key_b)));
    objects.into_iter().map(|(_, object)| object).collect()
}

fn older<K: kube::Resource>(a: &K, b: &K) -> Ordering {
    let created = |object: &K| object.creation_timestamp().map(|time| time.0);
    match (created(a), created(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // One without a time is not stored yet, so it is the youngest.
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

#[cfg(test)]
mod tests;
