//! The names that requests for a service may carry in their Host header.

use std::net::IpAddr;

use crate::mesh::{Mesh, Service, ServiceKind};

/// All Host headers that mean `service` to a client in `namespace`, without ports.
pub(super) fn domains(mesh: &Mesh, service: &Service, namespace: &str) -> Vec<String> {
    let mut domains = vec![service.host.to_string()];
    let suffix = format!(".svc.{}", mesh.config.cluster_domain);
    if let Some(short) = service.host.strip_suffix(suffix.as_str()) {
        domains.push(format!("{short}.svc"));
        domains.push(short.to_owned());
        if &*service.key.namespace == namespace {
            domains.push(service.key.name.to_string());
        }
    }
    let addresses: Vec<IpAddr> = match &service.kind {
        ServiceKind::ClusterIp(addresses) => addresses.clone(),
        ServiceKind::Entry(entry) => entry.single_addresses().collect(),
        ServiceKind::Headless | ServiceKind::ExternalName { .. } => Vec::new(),
    };
    domains.extend(addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }));
    domains
}
