//! What hosts of ServiceEntries have of their own: how they are found, and which connections to a
//! port are theirs.

use std::collections::BTreeMap;

use super::{Claim, ClusterId, Discovery, DnsTarget, UpstreamTls, View, outbound::OWN_PORTS};
use crate::mesh::{
    AddressRange, EdsName, Entry, Host, Port, Protocol, Resolution, Service, ServiceKind, selects,
};

/// Where the endpoints that `name` selects come from, and their TLS where no DestinationRule tells.
pub(super) fn discovery(entry: &Entry, name: EdsName) -> (Discovery, UpstreamTls) {
    let tls = if entry.external { UpstreamTls::Never } else { UpstreamTls::Auto };
    match &entry.resolution {
        // Nothing is known of who answers.
        Resolution::ClientsChoice => (Discovery::ClientsChoice, UpstreamTls::Never),
        Resolution::Endpoints => (Discovery::Endpoints(name), tls),
        Resolution::Dns { endpoints, first_only } => {
            let selected = endpoints.iter().filter(|e| selects(&name.labels, &e.labels));
            let endpoints = selected
                .map(|endpoint| DnsTarget {
                    host: endpoint.host.clone(),
                    port: endpoint.ports.get(&name.port).copied().unwrap_or(name.port),
                    meshed: endpoint.meshed,
                })
                .collect();
            (Discovery::Dns { endpoints, first_only: *first_only }, tls)
        }
    }
}

/// Whether clients reach it at addresses that we do not know, so that only names lead to it.
pub(super) fn is_found_by_name(entry: &Entry) -> bool {
    entry.allocated || !entry.has_addresses()
}

/// Connections to one port that belong to entries.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    pub(super) claims: Vec<Claim>,
    /// Who gets all that nobody else claims.
    pub(super) rest: Option<ClusterId>,
}

#[derive(Default)]
struct Collected {
    claims: BTreeMap<(Option<AddressRange>, Option<Host>), ClusterId>,
    rest: Option<ClusterId>,
}

/// What entries claim besides the addresses that are theirs alone, by port. Of two that claim the
/// same, the first by name gets it: proxies refuse to be told twice.
pub(super) fn claimed_ports(view: &View<'_>) -> BTreeMap<u16, Claimed> {
    let mut by_port: BTreeMap<u16, Collected> = BTreeMap::new();
    for service in view.services() {
        let ServiceKind::Entry(entry) = &service.kind else { continue };
        for port in service.ports.iter().filter(|port| !OWN_PORTS.contains(&port.number)) {
            claim(view, service, entry, port, &mut by_port);
        }
    }
    let claimed = |found: Collected| Claimed {
        claims: found
            .claims
            .into_iter()
            .map(|((range, server_name), cluster)| Claim { range, server_name, cluster })
            .collect(),
        rest: found.rest,
    };
    by_port.into_iter().map(|(port, found)| (port, claimed(found))).collect()
}

fn claim(
    view: &View<'_>,
    service: &Service,
    entry: &Entry,
    port: &Port,
    by_port: &mut BTreeMap<u16, Collected>,
) {
    let ranges: Vec<_> =
        entry.ranges.iter().filter(|range| view.families.includes(&range.address)).collect();
    let by_name = is_found_by_name(entry);
    let cluster = ClusterId::service(&service.host, port.number);
    let name = Some(service.host.clone());
    let keys: Vec<_> = match port.protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc | Protocol::Udp => return,
        Protocol::Tls | Protocol::Detect if by_name => vec![(None, name)],
        Protocol::Tls => ranges.iter().map(|range| (Some(**range), name.clone())).collect(),
        _ if !entry.has_addresses() => {
            by_port.entry(port.number).or_default().rest.get_or_insert(cluster);
            return;
        }
        _ => ranges.iter().map(|range| (Some(**range), None)).collect(),
    };
    for key in keys {
        let claims = &mut by_port.entry(port.number).or_default().claims;
        claims.entry(key).or_insert_with(|| cluster.clone());
    }
}
