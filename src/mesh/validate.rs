//! Checks of one object alone, for the admission webhook: the same conversions that [`super::build`]
//! runs, without a cluster to look things up in.

use super::{
    MeshConfig, config, destination_rule, istio_gateway, peer_authentication, service_entry,
    virtual_service,
};
use crate::{
    api::{
        istio::{networking, security},
        meshwright::MeshInstallation,
    },
    diagnostic::Diagnostic,
};

/// What is wrong with a VirtualService, whatever else is in the cluster.
pub fn virtual_service(object: &networking::VirtualService) -> Vec<Diagnostic> {
    virtual_service::convert(object, &MeshConfig::default(), None).1.diagnostics
}

/// What is wrong with a DestinationRule, whatever else is in the cluster.
pub fn destination_rule(object: &networking::DestinationRule) -> Vec<Diagnostic> {
    destination_rule::convert(object, &MeshConfig::default(), None).1.diagnostics
}

/// What is wrong with a Gateway, whatever else is in the cluster.
pub fn gateway(object: &networking::Gateway) -> Vec<Diagnostic> {
    istio_gateway::convert(object, &MeshConfig::default(), None).1.diagnostics
}

/// What is wrong with a ServiceEntry, whatever else is in the cluster.
pub fn service_entry(object: &networking::ServiceEntry) -> Vec<Diagnostic> {
    service_entry::convert(object, &MeshConfig::default()).1.diagnostics
}

/// What is wrong with a PeerAuthentication, whatever else is in the cluster.
pub fn peer_authentication(object: &security::PeerAuthentication) -> Vec<Diagnostic> {
    let system_namespace = MeshConfig::default().system_namespace;
    peer_authentication::convert(object, &system_namespace).1.diagnostics
}

/// What is wrong with the settings of a MeshInstallation, whatever else is in the cluster.
pub fn mesh_settings(object: &MeshInstallation) -> Vec<Diagnostic> {
    config::convert(object, &mut MeshConfig::default(), None).diagnostics
}
