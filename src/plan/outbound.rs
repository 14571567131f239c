//! What sidecars do with their applications' own connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Cluster, ClusterId, Fallback, Families, RouteTable, ScopeKey, TableName, View, entry, traced_as,
};
use crate::{
    diagnostic::Diagnostic,
    mesh::{
        AddressRange, Host, Mesh, MeshConfig, OutboundTraffic, Port, Protocol, Service, ServiceKind,
    },
};

/// Ports of the sidecar itself: a listener for all addresses of one of these would take its place.
pub const OWN_PORTS: [u16; 3] = [15001, 15006, 15090];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundPlan {
    pub scope: ScopeKey,
    pub config: MeshConfig,
    /// What traces call the workload.
    pub traced_as: String,
    pub clusters: BTreeMap<ClusterId, Cluster>,
    pub tables: BTreeMap<TableName, RouteTable>,
    pub listeners: Vec<OutboundListener>,
    /// Where connections go that no listener claims.
    pub unclaimed: ClusterId,
}

impl OutboundPlan {
    pub fn families(&self) -> Families {
        self.scope.families
    }
}

/// What happens to connections for some addresses and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundListener {
    /// Empty: every address that no other listener names.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub serves: Serves,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serves {
    Tcp(ClusterId),
    /// Looks at the first bytes: what is claimed goes there, HTTP by its routes, the rest
    /// `otherwise`.
    Inspected {
        routes: Option<TableName>,
        claims: Vec<Claim>,
        otherwise: ClusterId,
    },
}

/// Connections to a port that belong to an entry without an address of its own. No two claims of a
/// listener are for the same range and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `None`: wherever they go to.
    pub range: Option<AddressRange>,
    /// In the TLS handshake, maybe a wildcard; `None`: whatever they say.
    pub server_name: Option<Host>,
    pub cluster: ClusterId,
}

/// Everything that clients of a scope may reach.
pub fn outbound(mesh: &Mesh, scope: &ScopeKey) -> (OutboundPlan, Vec<Diagnostic>) {
    let view = View::of_sidecars(mesh, &scope.namespace, scope.families);
    let mut plan = OutboundPlan {
        scope: scope.clone(),
        config: mesh.config.clone(),
        traced_as: traced_as(scope.workload.as_deref().unwrap_or_default(), &scope.namespace),
        clusters: view.collectors(),
        tables: BTreeMap::new(),
        listeners: Vec::new(),
        unclaimed: view.unclaimed(),
    };
    let mut taken = BTreeSet::new();
    for service in view.services() {
        add_service(&view, service, &mut taken, &mut plan);
    }
    share_ports(&view, &mut plan);
    view.add_named_clusters(plan.tables.values(), &mut plan.clusters);
    (plan, Vec::new())
}

/// What one service adds: its clusters, and the listeners and tables of its own addresses.
fn add_service<'a>(
    view: &View<'a>,
    service: &'a Service,
    taken: &mut BTreeSet<(IpAddr, u16)>,
    plan: &mut OutboundPlan,
) {
    for port in &service.ports {
        if !matches!(service.kind, ServiceKind::ExternalName { .. }) {
            let clusters = view.clusters(service, port);
            plan.clusters.extend(clusters.into_iter().map(|c| (c.id.clone(), c)));
        }
        let (listeners, tables) = view.service_listeners(service, port);
        for mut listener in listeners {
            // Two headless services may have the same pods; Envoy takes one listener an address,
            // and what a client meant is not to be seen: the first by name gets it.
            listener.addresses.retain(|address| taken.insert((*address, listener.port)));
            if !listener.addresses.is_empty() {
                plan.listeners.push(listener);
            }
        }
        plan.tables.extend(tables.into_iter().map(|t| (t.name.clone(), t)));
    }
}

/// The listener of all addresses of a port number, and the table that all its HTTP services share.
fn share_ports(view: &View<'_>, plan: &mut OutboundPlan) {
    let fallback = match view.mesh.config.outbound {
        OutboundTraffic::AllowAny => Fallback::Passthrough,
        OutboundTraffic::RegistryOnly => Fallback::Refuse,
    };
    let http = shared_ports(view);
    let mut claimed = entry::claimed_ports(view);
    let numbers: BTreeSet<u16> = http.iter().chain(claimed.keys()).copied().collect();
    for port in numbers {
        let entry::Claimed { claims, rest } = claimed.remove(&port).unwrap_or_default();
        let otherwise = rest.unwrap_or_else(|| plan.unclaimed.clone());
        let table = http.contains(&port).then(|| shared_table(view, port, fallback));
        let routes = table.as_ref().map(|table| table.name.clone());
        let serves = if routes.is_none() && claims.is_empty() {
            Serves::Tcp(otherwise)
        } else {
            Serves::Inspected { routes, claims, otherwise }
        };
        plan.listeners.push(OutboundListener { addresses: Vec::new(), port, serves });
        plan.tables.extend(table.map(|table| (table.name.clone(), table)));
    }
}

/// The port numbers on which HTTP is declared, or looked for by host.
pub fn shared_ports<'v>(view: &View<'v>) -> BTreeSet<u16> {
    let of = |service: &'v Service| {
        let by_host = |port: &&Port| match &service.kind {
            // An alias need not say anything of its own; its target's ports do.
            ServiceKind::ExternalName { .. } => port.protocol.is_http(),
            _ => belongs(service, port.protocol),
        };
        view.ports(service).iter().filter(by_host).map(|port| port.number).collect::<Vec<_>>()
    };
    view.services().flat_map(of).filter(|number| !OWN_PORTS.contains(number)).collect()
}

/// All virtual hosts of one port number.
pub fn shared_table(view: &View<'_>, number: u16, fallback: Fallback) -> RouteTable {
    let mut virtual_hosts = Vec::new();
    for service in view.services() {
        let ports = view.ports(service).iter();
        let port = ports.clone().find(|p| p.number == number && belongs(service, p.protocol));
        virtual_hosts.extend(port.map(|port| view.virtual_host(service, port)));
    }
    if number == 80 {
        // A VirtualService may route a name that is no service; like Istio, on the port that a URL
        // without one means.
        let names = view.hosts_without_service();
        virtual_hosts.extend(names.filter_map(|name| view.virtual_host_of_name(name, number)));
    }
    // Envoy refuses a table that has a domain twice; names of services come first.
    let mut seen = BTreeSet::new();
    for host in &mut virtual_hosts {
        host.domains.retain(|domain| seen.insert(domain.clone()));
    }
    virtual_hosts.retain(|host| !host.domains.is_empty());
    RouteTable { name: TableName::Port(number), virtual_hosts, fallback }
}

/// Whether a port of `service` is looked up by Host header. Undeclared ports of services with an
/// address of their own have a table of their own; an alias and many an entry have none.
fn belongs(service: &Service, protocol: Protocol) -> bool {
    match service.kind {
        ServiceKind::ExternalName { .. } => protocol.is_http() || protocol == Protocol::Detect,
        ServiceKind::Entry(ref entry) => {
            protocol.is_http() || (protocol == Protocol::Detect && entry::is_found_by_name(entry))
        }
        _ => protocol.is_http(),
    }
}
