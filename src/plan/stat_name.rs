//! What statistics of clusters are called, where the mesh's settings say.

use crate::mesh::{Port, Service, ServiceKind};

/// What a name is made for.
pub(super) struct Named<'a> {
    pub(super) service: &'a Service,
    /// `None` for an alias that does not name its ports.
    pub(super) port: Option<&'a Port>,
    pub(super) number: u16,
    /// The pods' port, for sidecars' clusters of their own application.
    pub(super) target: Option<u16>,
    pub(super) subset: &'a str,
}

/// The name that a template makes. Placeholders are checked where settings are read.
pub(super) fn of(template: &str, named: &Named<'_>) -> String {
    let mut name = String::new();
    for (index, part) in template.split('%').enumerate() {
        if index % 2 == 0 {
            name.push_str(part);
        } else {
            name.push_str(&value(part, named));
        }
    }
    name
}

fn value(placeholder: &str, named: &Named<'_>) -> String {
    let Named { service, port, number, target, subset } = named;
    match placeholder {
        "SERVICE" => match service.kind {
            // The host is all the name that it has.
            ServiceKind::Entry(_) => service.host.to_string(),
            _ => format!("{}.{}", service.key.name, service.key.namespace),
        },
        "SERVICE_NAME" => service.key.name.to_string(),
        "SERVICE_FQDN" => service.host.to_string(),
        "SERVICE_PORT" => number.to_string(),
        "SERVICE_PORT_NAME" => port.map(|port| port.name.clone()).unwrap_or_default(),
        "TARGET_PORT" => target.map(|target| target.to_string()).unwrap_or_default(),
        "SUBSET_NAME" => (*subset).to_owned(),
        _ => String::new(),
    }
}
