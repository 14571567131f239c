//! The services that providers are.

use std::{collections::BTreeMap, sync::Arc};

use crate::mesh::{
    Collector, Host, MeshConfig, Protocol, Resolution, Service, ServiceKind, names,
    report::{OrReport, Path, Report},
};

/// Where providers are looked for.
pub(super) struct Targets<'a> {
    pub(super) config: &'a MeshConfig,
    /// `None` where there is no cluster to look in.
    pub(super) services: Option<&'a BTreeMap<Host, Arc<Service>>>,
}

impl Targets<'_> {
    /// The service of a provider, which `path` leads to; `None` after reporting why there is none.
    pub(super) fn find(
        &self,
        service: &str,
        port: u16,
        grpc: bool,
        path: &Path<'_>,
        report: &mut Report,
    ) -> Option<Collector> {
        let service_path = path.field("service");
        let host = self.host(service).or_report(report, &service_path, "InvalidHost");
        if port == 0 {
            let message = "give the port of the service, from 1 to 65535";
            report.error(&path.field("port"), "InvalidPort", message);
        }
        let host = host.filter(|_| port != 0)?;
        let Some(services) = self.services else { return Some(Collector { host, port, grpc }) };
        let Some(found) = services.get(&host) else {
            let similar = names::similar(&host, services.keys().map(AsRef::as_ref));
            let hint = match similar.first() {
                Some(name) => format!("did you mean {name}?"),
                None => "create the Service, or a ServiceEntry for a host outside".to_owned(),
            };
            let message =
                format!("there is no service {host}, so that nothing is sent to it: {hint}");
            report.error(&service_path, "ServiceNotFound", message);
            return None;
        };
        if !has_port(found, port, services) {
            let ports: Vec<_> = found.ports.iter().map(|port| port.number.to_string()).collect();
            let message = format!(
                "{host} has no port {port}, so that nothing is sent to it: it has {}",
                ports.join(", ")
            );
            report.error(&path.field("port"), "PortNotFound", message);
            return None;
        }
        if let ServiceKind::Entry(entry) = &found.kind
            && entry.resolution == Resolution::ClientsChoice
        {
            let message = format!(
                "proxies cannot find {host} by themselves: give its ServiceEntry resolution DNS or \
                 STATIC"
            );
            report.error(&service_path, "NoEndpoints", message);
            return None;
        }
        Some(Collector { host, port, grpc })
    }

    /// `HOST`, or `NAMESPACE/HOST` as Istio has it, where the namespace says whose of several it is:
    /// hosts are unique here, so it only helps to complete a short name.
    fn host(&self, text: &str) -> Result<Host, String> {
        let (namespace, host) = text.split_once('/').unwrap_or(("", text));
        if host.is_empty() {
            return Err("give the host name of the service".to_owned());
        }
        if namespace.is_empty() && !host.contains('.') {
            return Err(format!("{host:?} is no full host name: write {host}.NAMESPACE"));
        }
        if host.contains('*') {
            return Err(format!("{host:?} must be one service's host name"));
        }
        names::resolve(host, namespace, self.config, self.services)
    }
}

fn has_port(service: &Service, port: u16, services: &BTreeMap<Host, Arc<Service>>) -> bool {
    let ports = match &service.kind {
        ServiceKind::ExternalName { target } if service.ports.is_empty() => {
            match services.get(target) {
                Some(target) => &target.ports,
                // A name outside need not say anything of its ports.
                None => return true,
            }
        }
        _ => &service.ports,
    };
    ports.iter().any(|known| known.number == port && known.protocol != Protocol::Udp)
}
