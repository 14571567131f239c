//! Destinations of VirtualServices, looked up in the mesh.

use super::{
    Backend, BackendTarget, HeaderChanges, Host, Mesh, Protocol, Service, names,
    report::{OrReport, Path, Report},
};
use crate::api::istio::networking::virtual_service::Destination;

/// What requests get whose destination does not exist, as with Istio.
const UNAVAILABLE: u16 = 503;

/// A destination with its share and header changes, before its port is fixed.
#[derive(Clone, Debug)]
pub struct Draft {
    pub target: Target,
    pub weight: u32,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
}

/// Where a destination leads.
#[derive(Clone, Debug)]
pub enum Target {
    Missing,
    Port(BackendTarget),
    /// The service has several ports and none is named: the port that the request came in on, if
    /// it is one of these.
    PortOfRequest {
        host: Host,
        subset: Option<String>,
        ports: Vec<u16>,
    },
}

impl Draft {
    /// The backend for requests on a port; `None` stands for ports that no destination has.
    pub fn at_port(&self, port: Option<u16>) -> Backend {
        let target = match &self.target {
            Target::Missing => Err(UNAVAILABLE),
            Target::Port(target) => Ok(target.clone()),
            Target::PortOfRequest { host, subset, ports } => port
                .filter(|port| ports.contains(port))
                .map(|port| BackendTarget { host: host.clone(), port, subset: subset.clone() })
                .ok_or(UNAVAILABLE),
        };
        Backend {
            target,
            weight: self.weight,
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
        }
    }

    /// The ports among which the request's own port decides; empty where it does not.
    pub fn ports_of_request(&self) -> &[u16] {
        match &self.target {
            Target::PortOfRequest { ports, .. } => ports,
            _ => &[],
        }
    }
}

/// Looks a destination up; without a mesh only its syntax is checked.
pub fn target(
    destination: &Destination,
    mesh: Option<&Mesh>,
    default: &super::MeshConfig,
    path: &Path<'_>,
    report: &mut Report,
) -> Target {
    report.unsupported(path, &destination.unsupported);
    let port_path = path.field("port");
    if let Some(port) = &destination.port {
        report.unsupported(&port_path, &port.unsupported);
        if port.number == 0 {
            report.error(&port_path.field("number"), "InvalidPort", "is not between 1 and 65535");
        }
    }
    let host_path = path.field("host");
    let services = mesh.map(|mesh| &mesh.services);
    let namespace = report.object.namespace.clone();
    let host = names::resolve(&destination.host, &namespace, default, services).and_then(|host| {
        let wildcard = host.starts_with('*');
        if wildcard { Err("must be one host, not a wildcard".to_owned()) } else { Ok(host) }
    });
    let (Some(host), Some(mesh)) = (host.or_report(report, &host_path, "InvalidHost"), mesh) else {
        return Target::Missing;
    };
    let Some(service) = mesh.services.get(&host) else {
        let message = format!("there is no service {host}: {}", mesh.suggestion(&host));
        report.error(&host_path, "HostNotFound", message);
        return Target::Missing;
    };
    if let Some(subset) = &destination.subset
        && !subset_exists(mesh, &host, subset, &path.field("subset"), report)
    {
        return Target::Missing;
    }
    let wanted = destination.port.as_ref().map(|port| port.number);
    port(service, wanted, destination.subset.clone(), &port_path, report)
}

fn subset_exists(
    mesh: &Mesh,
    host: &str,
    subset: &str,
    path: &Path<'_>,
    report: &mut Report,
) -> bool {
    let policies: Vec<_> = mesh.destination_policies(host).collect();
    if policies.iter().any(|policy| policy.subsets.contains_key(subset)) {
        return true;
    }
    let message = match policies.first() {
        None => {
            format!("there is no DestinationRule for {host}: create one with a subset {subset}")
        }
        Some(policy) => {
            let known: Vec<_> = policy.subsets.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("{} has no subset {subset} for {host}; it has {known}", policy.origin)
        }
    };
    report.error(path, "SubsetNotFound", message);
    false
}

fn port(
    service: &Service,
    wanted: Option<u16>,
    subset: Option<String>,
    path: &Path<'_>,
    report: &mut Report,
) -> Target {
    let ports = tcp_ports(service);
    let host = service.host.clone();
    match (wanted, ports.as_slice()) {
        (Some(port), _) if ports.contains(&port) => {
            Target::Port(BackendTarget { host, port, subset })
        }
        (None, [port]) => Target::Port(BackendTarget { host, port: *port, subset }),
        (None, [_, ..]) => Target::PortOfRequest { host, subset, ports },
        (Some(port), [_, ..]) => {
            let message = format!("service {host} has no port {port}; it has {}", list(&ports));
            report.error(&path.field("number"), "PortNotFound", message);
            Target::Missing
        }
        (_, []) => {
            report.error(path, "PortNotFound", format!("service {host} has no TCP port"));
            Target::Missing
        }
    }
}

/// The numbers of a service's ports that are proxied.
pub fn tcp_ports(service: &Service) -> Vec<u16> {
    let proxied = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
    proxied.map(|port| port.number).collect()
}

/// `80, 443`.
pub fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
