//! The names that requests for a service may carry in their Host header.

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
    if let ServiceKind::ClusterIp(addresses) = &service.kind {
        domains.extend(addresses.iter().map(|address| match address {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        }));
    }
    domains
}
