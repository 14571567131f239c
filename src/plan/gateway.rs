//! What a gateway pod listens on and where it sends requests.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{
    Cluster, ClusterId, Fallback, Families, RouteTable, TableName, View, VirtualHost,
    gateway_target_port, route, traced_as,
};
use crate::{
    diagnostic::{Diagnostic, ObjectRef},
    mesh::{
        GatewayApi, GatewayProtocol, GatewayRef, GatewayServer, GatewayServers, Host, HttpMatch,
        HttpRouting, Key, MatchGateway, Mesh, MeshConfig, ProxyNode, Visibility, names, selects,
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPlan {
    pub config: MeshConfig,
    /// What traces call the gateway.
    pub traced_as: String,
    pub families: Families,
    /// By the port that the pods listen on. None: the gateway is ready, and serves nothing.
    pub listeners: BTreeMap<u16, GatewayListener>,
    pub tables: BTreeMap<TableName, RouteTable>,
    pub clusters: BTreeMap<ClusterId, Cluster>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayListener {
    /// The Service's port.
    pub port: u16,
    pub serves: GatewayServes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayServes {
    Http { routes: TableName },
    Https(Vec<TlsChain>),
}

/// TLS that is terminated for some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsChain {
    /// The Gateway that asks for it.
    pub origin: ObjectRef,
    /// Where in it the server stands.
    pub path: String,
    pub server: String,
    /// Server names; empty for all.
    pub hosts: Vec<Host>,
    /// Secrets; at least one.
    pub credentials: Vec<Key>,
    pub routes: TableName,
}

/// A server of a Gateway that this pod takes.
#[derive(Clone, Copy)]
struct Taken<'a> {
    gateway: &'a GatewayServers,
    server: &'a GatewayServer,
}

pub fn gateway(mesh: &Mesh, node: &ProxyNode) -> (GatewayPlan, Vec<Diagnostic>) {
    let families = Families::of(&node.addresses);
    let view = View::of_gateway(mesh, &node.key.namespace, families);
    let mut plan = GatewayPlan {
        config: mesh.config.clone(),
        traced_as: traced_as(&node.workload, &node.key.namespace),
        families,
        listeners: BTreeMap::new(),
        tables: BTreeMap::new(),
        clusters: view.collectors(),
    };
    let mut diagnostics = Vec::new();
    let mut http: BTreeMap<u16, Vec<Taken<'_>>> = BTreeMap::new();
    for taken in taken(mesh, node) {
        match claim_port(&mut plan, taken) {
            Err(diagnostic) => diagnostics.push(*diagnostic),
            Ok(target) => match &taken.server.protocol {
                GatewayProtocol::Http { .. } => http.entry(target).or_default().push(taken),
                GatewayProtocol::Https { credentials } => {
                    add_tls(&view, &mut plan, target, taken, credentials, &mut diagnostics);
                }
            },
        }
    }
    for (target, servers) in http {
        let name = TableName::GatewayHttp { port: target };
        let table = table(&view, name.clone(), &servers);
        plan.tables.insert(name, table);
    }
    plan.listeners.retain(|_, listener| match &listener.serves {
        GatewayServes::Http { .. } => true,
        GatewayServes::Https(chains) => !chains.is_empty(),
    });
    view.add_named_clusters(plan.tables.values(), &mut plan.clusters);
    (plan, diagnostics)
}

fn taken<'a>(mesh: &'a Mesh, node: &ProxyNode) -> impl Iterator<Item = Taken<'a>> {
    let takes = |gateway: &&GatewayServers| {
        (!gateway.own_namespace_only || gateway.key.namespace == node.key.namespace)
            && selects(&gateway.selector, &node.labels)
    };
    let gateways: Vec<_> = mesh.gateways.iter().map(AsRef::as_ref).filter(takes).collect();
    gateways
        .into_iter()
        .flat_map(|gateway| gateway.servers.iter().map(move |server| Taken { gateway, server }))
}

/// The listener for the server's port; an error where another Gateway already serves something else
/// there.
fn claim_port(plan: &mut GatewayPlan, taken: Taken<'_>) -> Result<u16, Box<Diagnostic>> {
    let Taken { gateway, server } = taken;
    let target = gateway_target_port(server.port);
    let serves = match server.protocol {
        GatewayProtocol::Http { .. } => {
            GatewayServes::Http { routes: TableName::GatewayHttp { port: target } }
        }
        GatewayProtocol::Https { .. } => GatewayServes::Https(Vec::new()),
    };
    match plan.listeners.entry(target) {
        Entry::Vacant(entry) => {
            entry.insert(GatewayListener { port: server.port, serves });
        }
        Entry::Occupied(entry) => {
            let listener = entry.get();
            let same = matches!(
                (&listener.serves, &serves),
                (GatewayServes::Http { .. }, GatewayServes::Http { .. })
                    | (GatewayServes::Https(_), GatewayServes::Https(_))
            );
            if !same || listener.port != server.port {
                return Err(Box::new(port_conflict(gateway, server, listener, target)));
            }
        }
    }
    Ok(target)
}

fn port_conflict(
    gateway: &GatewayServers,
    server: &GatewayServer,
    listener: &GatewayListener,
    target: u16,
) -> Diagnostic {
    let protocol = match listener.serves {
        GatewayServes::Http { .. } => "HTTP",
        GatewayServes::Https(_) => "HTTPS",
    };
    Diagnostic::error(
        &gateway.origin,
        server_path(gateway, server),
        "PortConflict",
        format!(
            "port {} is served by the gateway's pods on {target}, where port {} already speaks \
             {protocol}; choose another port",
            server.port, listener.port
        ),
    )
}

fn server_path(gateway: &GatewayServers, server: &GatewayServer) -> String {
    match gateway.api {
        GatewayApi::Istio => format!("spec.servers[{}]", server.index),
        GatewayApi::Kubernetes => format!("spec.listeners[{}]", server.index),
    }
}

fn add_tls(
    view: &View<'_>,
    plan: &mut GatewayPlan,
    target: u16,
    taken: Taken<'_>,
    credentials: &[Key],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Taken { gateway, server } = taken;
    let Some(GatewayListener { serves: GatewayServes::Https(chains), .. }) =
        plan.listeners.get_mut(&target)
    else {
        return;
    };
    if credentials.is_empty() {
        return; // the mesh has said why
    }
    let everyone = server.hosts.is_empty() || server.hosts.iter().any(|(_, h)| &**h == "*");
    let wanted: BTreeSet<Host> = if everyone {
        BTreeSet::new()
    } else {
        server.hosts.iter().map(|(_, host)| host.clone()).collect()
    };
    // Envoy refuses a listener with two chains for one server name.
    let is_taken = |host: &Host| chains.iter().any(|c| c.hosts.contains(host));
    let hosts: Vec<Host> = wanted.iter().filter(|host| !is_taken(host)).cloned().collect();
    let lost = wanted.len() - hosts.len();
    let whole = everyone && chains.iter().any(|c| c.hosts.is_empty());
    if lost > 0 || whole {
        diagnostics.push(Diagnostic::error(
            &gateway.origin,
            server_path(gateway, server),
            "HostConflict",
            format!("another server of port {} already terminates TLS for its hosts", server.port),
        ));
    }
    if whole || (hosts.is_empty() && !everyone) {
        return;
    }
    let name = TableName::GatewayHttps {
        port: target,
        server: server.name.clone(),
        gateway: gateway.key.name.to_string(),
        namespace: gateway.key.namespace.to_string(),
    };
    chains.push(TlsChain {
        origin: gateway.origin.clone(),
        path: server_path(gateway, server),
        server: server.name.clone(),
        hosts,
        // A Secret without a namespace is in the gateway's own.
        credentials: credentials
            .iter()
            .map(|key| match &*key.namespace {
                "" => Key { namespace: view.namespace.clone(), name: key.name.clone() },
                _ => key.clone(),
            })
            .collect(),
        routes: name.clone(),
    });
    plan.tables.insert(name.clone(), table(view, name, &[taken]));
}

/// What some servers route between them, by host.
fn table(view: &View<'_>, name: TableName, servers: &[Taken<'_>]) -> RouteTable {
    let mut bound: BTreeMap<String, Vec<(Taken<'_>, &HttpRouting)>> = BTreeMap::new();
    let mut redirected = BTreeSet::new();
    for taken in servers {
        let redirects =
            matches!(taken.server.protocol, GatewayProtocol::Http { redirect_to_https: true });
        for (visibility, host) in &taken.server.hosts {
            if redirects {
                redirected.insert(host.to_string());
                bound.entry(host.to_string()).or_default();
            }
            for (domain, routing) in bindings(view.mesh, *taken, visibility, host) {
                let routings = bound.entry(domain).or_default();
                if !routings.iter().any(|(t, r)| same(t, taken) && std::ptr::eq(*r, routing)) {
                    routings.push((*taken, routing));
                }
            }
        }
    }
    let covered = |domain: &str| redirected.iter().any(|host| names::covers(host, domain));
    let virtual_hosts = bound
        .into_iter()
        .map(|(domain, routings)| virtual_host(view, covered(&domain), domain, &routings))
        .collect();
    RouteTable { name, virtual_hosts, fallback: Fallback::NotFound }
}

fn same(a: &Taken<'_>, b: &Taken<'_>) -> bool {
    std::ptr::eq(a.server, b.server)
}

fn virtual_host(
    view: &View<'_>,
    redirect_to_https: bool,
    domain: String,
    bound: &[(Taken<'_>, &HttpRouting)],
) -> VirtualHost {
    let mut routings: Vec<&HttpRouting> = Vec::new();
    for (_, routing) in bound {
        if !routings.iter().any(|r| std::ptr::eq(*r, *routing)) {
            routings.push(routing);
        }
    }
    let applies = |routing: &HttpRouting, m: &HttpMatch| {
        let servers = bound.iter().filter(|(_, r)| std::ptr::eq(*r, routing));
        servers.into_iter().any(|(taken, _)| applies_to_server(*taken, m))
    };
    let routes = route::routes(view, &routings, &applies);
    VirtualHost { name: domain.clone(), domains: vec![domain], redirect_to_https, routes }
}

/// Whether `reference` names the server.
fn refers_to(reference: &GatewayRef, Taken { gateway, server }: Taken<'_>) -> bool {
    reference.api == gateway.api
        && reference.key == gateway.key
        && reference.listener.as_ref().is_none_or(|listener| *listener == server.name)
}

fn applies_to_server(taken: Taken<'_>, m: &HttpMatch) -> bool {
    let gateways = &m.gateways;
    m.port.is_none_or(|port| port == taken.server.port)
        && (gateways.is_empty()
            || gateways
                .iter()
                .any(|g| matches!(g, MatchGateway::Gateway(r) if refers_to(r, taken))))
}

/// The routings that bind to a host of a server, each with the hosts that both have in common.
fn bindings<'a>(
    mesh: &'a Mesh,
    taken: Taken<'_>,
    visibility: &Visibility,
    host: &str,
) -> Vec<(String, &'a HttpRouting)> {
    let mut bindings = Vec::new();
    for routing in &mesh.routes {
        if !routing.gateways.iter().any(|reference| refers_to(reference, taken))
            || !visibility.includes(&routing.origin.namespace)
        {
            continue;
        }
        for wanted in &routing.hosts {
            if let Some(common) = names::intersection(host, wanted) {
                bindings.push((common.to_owned(), &**routing));
            }
        }
    }
    bindings
}
