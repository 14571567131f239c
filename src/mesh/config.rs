//! Mesh-wide settings, from the MeshInstallation.

use super::{LoadBalancing, MeshConfig, OutboundTraffic};
use crate::{
    api::meshwright::{LoadBalancing as ApiLoadBalancing, OutboundTrafficMode},
    watch::Snapshot,
};

/// The settings of the installation, or the defaults without one.
pub fn build(snapshot: &Snapshot) -> MeshConfig {
    let mut config = MeshConfig::default();
    if !snapshot.system_namespace.is_empty() {
        config.system_namespace = snapshot.system_namespace.clone();
    }
    let Some(installation) = &snapshot.installation else { return config };
    let spec = installation.spec.resolved();
    config.trust_domain.clone_from(&spec.trust_domain);
    config.cluster_domain.clone_from(&spec.cluster_domain);
    config.outbound = match spec.mesh.outbound_traffic_policy.mode {
        OutboundTrafficMode::AllowAny => OutboundTraffic::AllowAny,
        OutboundTrafficMode::RegistryOnly => OutboundTraffic::RegistryOnly,
    };
    config.access_log = spec.mesh.access_log;
    config.auto_allocate = spec.dns.auto_allocate;
    config.load_balancing = match spec.mesh.load_balancing {
        ApiLoadBalancing::RoundRobin => LoadBalancing::RoundRobin,
        ApiLoadBalancing::LeastRequest => LoadBalancing::LeastRequest,
        ApiLoadBalancing::Random => LoadBalancing::Random,
    };
    config
}
