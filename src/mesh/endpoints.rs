//! Endpoints: from EndpointSlices and pods, one service at a time.
//!
//! They are most of the churn, so one service's can be rebuilt alone, at the cost of its own slices
//! and a look over those of its namespace.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Endpoint, EndpointState, EndpointTable, HeadlessEndpoint, Host, Key, Labels, Locality, Mesh,
    MeshConfig, PeerPolicy, PeerTls, ResolvedAddress, ServiceEndpoints, ServiceKind, config,
    lookup, names, peer_authentication, service_entry, syntax,
};
use crate::{
    api::gateway::GATEWAY_NAME_LABEL,
    identity::SpiffeId,
    watch::{
        Changes, Snapshot,
        snapshot::{EndpointSlice, Pod, Service, SliceEndpoint},
    },
};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of the pods of our own gateways.
const GATEWAY_LABEL: &str = "meshwright.dev/gateway";

/// The endpoints of every service and every entry that has some.
pub fn build(snapshot: &Snapshot) -> EndpointTable {
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for (key, slice) in snapshot.endpoint_slices.iter() {
        slices.entry((&key.namespace, &slice.service)).or_default().push(slice);
    }
    let settings = config::build(snapshot);
    let policies = policies(snapshot, &settings);
    let mut table: EndpointTable = snapshot
        .services
        .iter()
        .filter(|(_, service)| service.external_name.is_none())
        .map(|(key, service)| {
            let own = slices.get(&(&*key.namespace, &*key.name)).map_or(&[][..], Vec::as_slice);
            let endpoints =
                Collector::new(snapshot, &settings, &policies, (key, service)).collect(own);
            (names::service_host(key, &settings.cluster_domain), Arc::new(endpoints))
        })
        .collect();
    for (draft, _) in service_entry::all(snapshot, &settings) {
        if let Some(found) = service_entry::endpoints::of(&draft, snapshot, &settings, &policies) {
            let found = Arc::new(found);
            table.extend(draft.into_hosts().map(|host| (host, found.clone())));
        }
    }
    table
}

/// The endpoints of one host of `mesh`. Settings and policies are those of `mesh`: a change of them
/// makes a new mesh, and with it all endpoints anew.
pub fn for_host(snapshot: &Snapshot, mesh: &Mesh, host: &str) -> ServiceEndpoints {
    let Some(service) = mesh.services.get(host) else { return ServiceEndpoints::default() };
    let ServiceKind::Entry(entry) = &service.kind else {
        return for_service(snapshot, mesh, &service.key);
    };
    let key = Key::new(&entry.origin.namespace, &entry.origin.name);
    let Some(object) = snapshot.service_entries.get(&key) else {
        return ServiceEndpoints::default();
    };
    let (draft, _) = service_entry::convert(object, &mesh.config);
    let found =
        service_entry::endpoints::of(&draft, snapshot, &mesh.config, &mesh.peer_authentication);
    found.unwrap_or_default()
}

/// The hosts of `mesh` whose endpoints may be others now.
pub fn changed_hosts(snapshot: &Snapshot, mesh: &Mesh, changes: &Changes) -> BTreeSet<Host> {
    let domain = &mesh.config.cluster_domain;
    let of_services = changes.endpoints_of.iter().map(|key| names::service_host(key, domain));
    let entries = changes.entries.iter().filter_map(|key| snapshot.service_entries.get(key));
    let hosts = entries.flat_map(|entry| &entry.spec.hosts);
    let of_entries = hosts.filter_map(|text| Some(syntax::host(text).ok()?.into()));
    of_services.chain(of_entries).collect()
}

/// The endpoints of one service; none where it does not exist or is an ExternalName.
fn for_service(snapshot: &Snapshot, mesh: &Mesh, key: &Key) -> ServiceEndpoints {
    let Some(service) = snapshot.services.get(key).filter(|s| s.external_name.is_none()) else {
        return ServiceEndpoints::default();
    };
    let first = Key { namespace: key.namespace.clone(), name: "".into() };
    let own: Vec<&EndpointSlice> = snapshot
        .endpoint_slices
        .range(first..)
        .take_while(|(slice, _)| slice.namespace == key.namespace)
        .filter(|(_, slice)| slice.service == key.name)
        .map(|(_, slice)| &**slice)
        .collect();
    Collector::new(snapshot, &mesh.config, &mesh.peer_authentication, (key, service)).collect(&own)
}

/// What pods accept; what is wrong with the policies is for [`super::build`] to say.
fn policies(snapshot: &Snapshot, settings: &MeshConfig) -> Vec<Arc<PeerPolicy>> {
    peer_authentication::build(snapshot, settings, &mut Vec::new())
}

struct Collector<'a> {
    snapshot: &'a Snapshot,
    settings: &'a MeshConfig,
    policies: &'a [Arc<PeerPolicy>],
    key: &'a Key,
    service: &'a Service,
    out: ServiceEndpoints,
}

impl<'a> Collector<'a> {
    fn new(
        snapshot: &'a Snapshot,
        settings: &'a MeshConfig,
        policies: &'a [Arc<PeerPolicy>],
        (key, service): (&'a Key, &'a Service),
    ) -> Self {
        let mut out = ServiceEndpoints::default();
        // A port without endpoints is known to be empty, which is not the same as unknown.
        let tcp = service.ports.iter().filter(|port| port.transport == "TCP");
        out.ports.extend(tcp.map(|port| (port.port, Vec::new())));
        Self { snapshot, settings, policies, key, service, out }
    }

    fn collect(mut self, slices: &[&EndpointSlice]) -> ServiceEndpoints {
        for slice in slices {
            for endpoint in &slice.endpoints {
                self.add(slice, endpoint);
            }
        }
        for endpoints in self.out.ports.values_mut() {
            deduplicate(endpoints);
        }
        self.out.shape.headless.sort();
        self.out.shape.headless.dedup();
        self.out
    }

    /// What DNS says: ready endpoints, whatever their ports.
    fn resolve(&mut self, endpoint: &SliceEndpoint) {
        if self.service.headless && (endpoint.ready || self.service.publish_not_ready) {
            let hostname = &endpoint.hostname;
            let resolved = endpoint
                .addresses
                .iter()
                .map(|address| ResolvedAddress { address: *address, hostname: hostname.clone() });
            self.out.resolved.extend(resolved);
        }
    }

    fn add(&mut self, slice: &EndpointSlice, endpoint: &SliceEndpoint) {
        let pod = endpoint.pod.as_ref().and_then(|name| {
            let key = Key { namespace: self.key.namespace.clone(), name: name.clone() };
            self.snapshot.pods.get(&key)
        });
        let meshed = pod.is_some_and(|pod| speaks_mesh_tls(pod));
        if let (Some(pod), true) = (pod, meshed) {
            // Whether it is ready does not matter here: a change of identities is a change of
            // clusters, and readiness must remain a matter of endpoints alone.
            self.out.shape.identities.insert(SpiffeId {
                trust_domain: self.settings.trust_domain.clone(),
                namespace: self.key.namespace.to_string(),
                service_account: pod.service_account.to_string(),
            });
        }
        self.resolve(endpoint);
        let Some(state) = state(endpoint, self.service.publish_not_ready) else { return };
        let template = Endpoint {
            address: IpAddr::from([0; 4]),
            port: 0,
            labels: Arc::new(pod.map(|pod| pod.labels.clone()).unwrap_or_default()),
            meshed,
            workload: pod.map_or_else(|| "".into(), |pod| pod.workload.clone()),
            namespace: self.key.namespace.clone(),
            locality: locality(
                self.snapshot,
                endpoint.zone.clone(),
                endpoint.node.as_ref().or_else(|| pod.map(|pod| &pod.node)),
            ),
            state,
        };
        for service_port in self.service.ports.iter().filter(|port| port.transport == "TCP") {
            let Some((_, port)) = slice.ports.iter().find(|(name, _)| *name == service_port.name)
            else {
                continue;
            };
            let meshed = template.meshed
                && pod
                    .is_some_and(|pod| accepts_tls(self.policies, pod, &self.key.namespace, *port));
            for address in &endpoint.addresses {
                if self.service.headless {
                    self.out.shape.headless.push(HeadlessEndpoint {
                        address: *address,
                        service_port: service_port.port,
                        port: *port,
                        meshed,
                        hostname: endpoint.hostname.clone(),
                    });
                }
                self.out.ports.entry(service_port.port).or_default().push(Endpoint {
                    address: *address,
                    port: *port,
                    meshed,
                    ..template.clone()
                });
            }
        }
    }
}

/// Mesh TLS towards a port for which it is switched off would be taken for the application's.
pub(super) fn accepts_tls(
    policies: &[Arc<PeerPolicy>],
    pod: &Pod,
    namespace: &str,
    port: u16,
) -> bool {
    lookup::peer_tls(policies, &pod.labels, namespace, Some(port)) != PeerTls::Disabled
}

/// Whether clients in the mesh may use mutual TLS to it. A gateway runs a proxy too, but listens
/// for the world outside; a pod on the node's network is not redirected to its proxy.
pub(super) fn speaks_mesh_tls(pod: &Pod) -> bool {
    pod.meshed
        && !pod.host_network
        && !pod.labels.contains_key(GATEWAY_LABEL)
        && !pod.labels.contains_key(GATEWAY_NAME_LABEL)
}

fn state(endpoint: &SliceEndpoint, publish_not_ready: bool) -> Option<EndpointState> {
    if endpoint.terminating {
        (endpoint.serving || publish_not_ready).then_some(EndpointState::Draining)
    } else {
        (endpoint.ready || publish_not_ready).then_some(EndpointState::Ready)
    }
}

pub(super) fn locality(
    snapshot: &Snapshot,
    zone: Option<Arc<str>>,
    node: Option<&Arc<str>>,
) -> Option<Locality> {
    let labels = node
        .filter(|name| !name.is_empty())
        .and_then(|name| snapshot.nodes.get(&Key { namespace: "".into(), name: name.clone() }))
        .map(|node| &node.labels);
    let label = |name: &str| -> Option<Arc<str>> {
        labels.and_then(|labels: &Labels| labels.get(name)).map(|value| value.as_str().into())
    };
    let region = label(REGION);
    let zone = zone.or_else(|| label(ZONE));
    if region.is_none() && zone.is_none() {
        return None;
    }
    Some(Locality {
        region: region.unwrap_or_else(|| "".into()),
        zone: zone.unwrap_or_else(|| "".into()),
    })
}

/// Sorts by address, and keeps one of those that several slices list (which happens while the API
/// server moves endpoints between slices), a ready one if there is one.
fn deduplicate(endpoints: &mut Vec<Endpoint>) {
    let mut by_address: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for endpoint in endpoints.drain(..) {
        match by_address.entry((endpoint.address, endpoint.port)) {
            Entry::Vacant(entry) => {
                entry.insert(endpoint);
            }
            Entry::Occupied(mut entry) => {
                if endpoint.state == EndpointState::Ready {
                    entry.insert(endpoint);
                }
            }
        }
    }
    endpoints.extend(by_address.into_values());
}
