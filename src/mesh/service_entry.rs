//! ServiceEntries → [`Service`]s, one for each host.
//!
//! A host belongs to one entry: to a Service of Kubernetes where there is one, else to the oldest
//! entry that names it.

pub mod endpoints;
mod fields;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use kube::ResourceExt;

use self::fields::Inline;
use super::{
    AddressRange, DnsEndpoint, EndpointTable, Entry, Host, Key, Labels, MeshConfig, Port, Protocol,
    Resolution, Service, ServiceKind, Visibility,
    allocation::Allocator,
    by_age, names,
    report::{Path, Report},
};
use crate::{
    api::istio::networking::ServiceEntry, diagnostic::Diagnostic, identity::SpiffeId,
    watch::Snapshot,
};

/// Says of one object whether its hosts are given addresses, as with Istio.
const ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

/// An entry, as far as the object alone tells.
#[derive(Debug)]
pub struct Draft {
    pub key: Key,
    hosts: Vec<Host>,
    ranges: Vec<AddressRange>,
    ports: Vec<Port>,
    resolution: Way,
    inline: Vec<Inline>,
    /// Labels of pods behind it.
    selector: Option<Labels>,
    external: bool,
    visibility: Visibility,
    /// Who may answer besides those that endpoints name.
    identities: BTreeSet<SpiffeId>,
    /// What the object's label says.
    allocate: Option<bool>,
}

/// `spec.resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    Static,
    Dns { first_only: bool },
}

/// The services of all entries, by host.
pub fn build(
    snapshot: &Snapshot,
    config: &MeshConfig,
    endpoints: &EndpointTable,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Host, Arc<Service>> {
    let entries = all(snapshot, config);
    let written = entries.iter().flat_map(|(draft, _)| &draft.ranges).filter(|r| r.is_single());
    let mut allocator = Allocator::reserving(written.map(|range| range.address));
    let mut services = BTreeMap::new();
    for (draft, mut report) in entries {
        fields::check_tcp(&draft, config, &mut report);
        for host in &draft.hosts {
            let given = if draft.wants_address(host, config) {
                allocate(&mut allocator, &draft, host, &mut report)
            } else {
                Vec::new()
            };
            let service = draft.service(host, given, endpoints, &report);
            services.insert(host.clone(), Arc::new(service));
        }
        diagnostics.append(&mut report.diagnostics);
    }
    services
}

/// All entries with the hosts that are theirs, oldest first.
pub fn all(snapshot: &Snapshot, config: &MeshConfig) -> Vec<(Draft, Report)> {
    let mut owners: BTreeMap<Host, String> = BTreeMap::new();
    let mut entries = Vec::new();
    for object in by_age(&snapshot.service_entries) {
        let (mut draft, mut report) = convert(object, config);
        draft.hosts.retain(|host| {
            let service =
                service_of(host, config).filter(|key| snapshot.services.contains_key(key));
            let other =
                service.map(|key| format!("Service {key}")).or_else(|| owners.get(host).cloned());
            if let Some(other) = &other {
                let message = format!(
                    "{host} is a host of {other} already, which keeps it: remove it here or there"
                );
                report.error(&Path::SPEC.field("hosts"), "Conflict", message);
            }
            other.is_none()
        });
        for host in &draft.hosts {
            owners.insert(host.clone(), report.object.to_string());
        }
        entries.push((draft, report));
    }
    entries
}

/// The Service of Kubernetes that has this host, if there is one.
fn service_of(host: &str, config: &MeshConfig) -> Option<Key> {
    let short = host.strip_suffix(&config.cluster_domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = short.split_once('.')?;
    Some(Key::new(namespace, name))
}

fn allocate(
    allocator: &mut Allocator,
    draft: &Draft,
    host: &Host,
    report: &mut Report,
) -> Vec<IpAddr> {
    let Key { namespace, name } = &draft.key;
    let Some(given) = allocator.allocate(&format!("{namespace}/{name}/{host}")) else {
        let message = "240.240.0.0/16 has no address left for it: set spec.addresses";
        report.error(&Path::SPEC.field("addresses"), "AddressesExhausted", message);
        return Vec::new();
    };
    vec![given.v4.into(), given.v6.into()]
}

/// What one object says.
pub fn convert(object: &ServiceEntry, config: &MeshConfig) -> (Draft, Report) {
    let mut report = Report::new(object, "networking.istio.io/v1", "ServiceEntry");
    let spec = &object.spec;
    report.unsupported(&Path::SPEC, &spec.unsupported);
    let namespace = report.object.namespace.clone();
    let resolution = fields::resolution(spec.resolution.as_deref(), &mut report);
    let way = resolution.unwrap_or(Way::None);
    let external = fields::is_external(spec.location.as_deref(), &mut report);
    let ports = fields::ports(&spec.ports, &mut report);
    let mut draft = Draft {
        key: Key::new(&namespace, &report.object.name),
        hosts: fields::hosts(spec, way, &mut report),
        ranges: fields::addresses(&spec.addresses, way, &mut report),
        inline: fields::endpoints(spec, way, external, &ports, &mut report),
        selector: fields::selector(spec, way, &mut report),
        ports,
        resolution: way,
        external,
        visibility: names::export_to_or(
            spec.export_to.iter().map(String::as_str),
            &config.default_exports.services,
            &namespace,
        ),
        identities: fields::identities(&spec.subject_alt_names, external, &mut report),
        allocate: object.labels().get(ALLOCATE).and_then(|value| value.parse().ok()),
    };
    draft.identities.extend(draft.inline.iter().filter_map(|endpoint| {
        let service_account = endpoint.service_account.clone().filter(|_| !external)?;
        let trust_domain = config.trust_domain.clone();
        Some(SpiffeId { trust_domain, namespace: namespace.clone(), service_account })
    }));
    if resolution.is_none() {
        // Said already; to resolve it in some other way than asked for would be a surprise.
        draft.hosts.clear();
    }
    (draft, report)
}

impl Draft {
    /// Whether the host is to be given an address.
    fn wants_address(&self, host: &str, config: &MeshConfig) -> bool {
        self.allocate.unwrap_or(config.auto_allocate)
            && self.ranges.is_empty()
            && self.resolution != Way::None
            && !host.starts_with('*')
            && host.parse::<IpAddr>().is_err()
    }

    fn service(
        &self,
        host: &Host,
        given: Vec<IpAddr>,
        endpoints: &EndpointTable,
        report: &Report,
    ) -> Service {
        let alone = self.hosts.len() == 1;
        let (single, ranges): (Vec<_>, Vec<_>) =
            self.ranges.iter().copied().partition(|range| alone && range.is_single());
        let allocated = !given.is_empty();
        let written = single.into_iter().map(|range| range.address);
        let mut shape = endpoints.get(host).map(|e| e.shape.clone()).unwrap_or_default();
        shape.identities.extend(self.identities.iter().cloned());
        Service {
            key: Key { namespace: self.key.namespace.clone(), name: host.clone() },
            host: host.clone(),
            kind: ServiceKind::Entry(Entry {
                origin: report.object.clone(),
                addresses: written.chain(given).collect(),
                allocated,
                ranges,
                resolution: self.resolution(host),
                external: self.external,
            }),
            ports: self.ports.clone(),
            visibility: self.visibility.clone(),
            selector: self.selector.clone().unwrap_or_default(),
            shape,
        }
    }

    fn resolution(&self, host: &Host) -> Resolution {
        match self.resolution {
            Way::None => Resolution::ClientsChoice,
            Way::Static => Resolution::Endpoints,
            Way::Dns { first_only } => {
                let mut endpoints: Vec<_> = self.inline.iter().map(|e| self.by_dns(e)).collect();
                if endpoints.is_empty() {
                    let ports = self.ports.iter().map(|p| (p.number, fields::target(p))).collect();
                    let host = host.clone();
                    endpoints.push(DnsEndpoint {
                        host,
                        ports,
                        labels: Labels::new(),
                        meshed: false,
                    });
                }
                Resolution::Dns { endpoints, first_only }
            }
        }
    }

    fn by_dns(&self, endpoint: &Inline) -> DnsEndpoint {
        DnsEndpoint {
            host: endpoint.address.clone(),
            ports: self.ports.iter().map(|p| (p.number, endpoint.port(p))).collect(),
            labels: endpoint.labels.clone(),
            meshed: endpoint.meshed,
        }
    }

    pub fn into_hosts(self) -> impl Iterator<Item = Host> {
        self.hosts.into_iter()
    }

    fn tcp_ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.protocol != Protocol::Udp)
    }
}
