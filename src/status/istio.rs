//! The status of Istio's kinds: one condition `Ready`.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::conditions::{Wanted, list, merge};
use crate::{
    api::istio::{
        Status,
        networking::{ServiceEntry, service_entry::AllocatedAddress},
    },
    diagnostic::{Diagnostic, Severity},
    mesh::{Entry, Mesh, ServiceKind},
};

/// What the status should be. `findings` has the errors first.
pub fn status(
    existing: &Status,
    generation: Option<i64>,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> Status {
    let errors: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    let ready = match (errors.first(), findings) {
        (Some(first), _) => {
            Wanted { message: list(findings), ..Wanted::new("Ready", false, first.reason) }
        }
        (None, []) => Wanted {
            message: "all of it takes effect".to_owned(),
            ..Wanted::new("Ready", true, "Accepted")
        },
        (None, warnings) => {
            Wanted { message: list(warnings), ..Wanted::new("Ready", true, "AcceptedWithWarnings") }
        }
    };
    Status {
        observed_generation: generation,
        conditions: merge(&existing.conditions, vec![ready], generation, now),
    }
}

/// The addresses that the hosts of an entry were given.
pub fn allocated_addresses(object: &ServiceEntry, mesh: &Mesh) -> Vec<AllocatedAddress> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let own = |entry: &&Entry| entry.origin.namespace == namespace && entry.origin.name == name;
    let mut addresses = Vec::new();
    for host in &object.spec.hosts {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let Some(service) = mesh.services.get(host.as_str()) else { continue };
        let ServiceKind::Entry(entry) = &service.kind else { continue };
        if let Some(entry) = Some(entry).filter(own).filter(|entry| entry.allocated) {
            let given = entry.addresses.iter();
            let given =
                given.map(|ip| AllocatedAddress { value: ip.to_string(), host: host.clone() });
            addresses.extend(given);
        }
    }
    addresses
}
