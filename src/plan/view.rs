//! The mesh as clients of one namespace see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Cluster, ClusterId, Discovery, DnsTarget, Fallback, Families, OutboundListener, Route,
    RouteTable, Serves, TableName, UpstreamProtocol, UpstreamTls, VirtualHost, domains::domains,
    entry, route, stat_name,
};
use crate::mesh::{
    BackendTarget, ClientTls, DestinationPolicy, EdsName, Entry, HeadlessEndpoint, HttpMatch,
    HttpRouting, Labels, MatchGateway, Mesh, OutboundTraffic, Port, Protocol, Service, ServiceKind,
    names::covers,
};

/// An alias may point at an alias; more hops than this are a loop.
pub(super) const MAX_ALIAS_HOPS: usize = 8;

/// What one namespace's clients see, with indices over it. Makes single clusters, virtual hosts and
/// listeners; the plans are loops over these.
pub struct View<'a> {
    pub mesh: &'a Mesh,
    pub namespace: Arc<str>,
    pub families: Families,
    /// Gateways may get any HTTP version from outside, and must not pass it on to whoever said
    /// `http`; sidecars carry what the application itself has chosen.
    pub from_gateway: bool,
    exact: BTreeMap<&'a str, Vec<&'a HttpRouting>>,
    /// Routings of wildcard hosts, longest first.
    wildcards: Vec<(&'a str, &'a HttpRouting)>,
}

impl<'a> View<'a> {
    /// As sidecars of `namespace` see it.
    pub fn of_sidecars(mesh: &'a Mesh, namespace: &Arc<str>, families: Families) -> Self {
        let mut view = Self::of_gateway(mesh, namespace, families);
        view.from_gateway = false;
        for routing in &mesh.routes {
            if !routing.mesh.as_ref().is_some_and(|m| m.includes(namespace)) {
                continue;
            }
            for host in &routing.hosts {
                if host.starts_with('*') {
                    view.wildcards.push((host, routing));
                } else {
                    view.exact.entry(host).or_default().push(routing);
                }
            }
        }
        view.wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        view
    }

    /// As a gateway in `namespace` sees it. Gateways find their routes by themselves.
    pub fn of_gateway(mesh: &'a Mesh, namespace: &Arc<str>, families: Families) -> Self {
        Self {
            mesh,
            namespace: namespace.clone(),
            families,
            from_gateway: true,
            exact: BTreeMap::new(),
            wildcards: Vec::new(),
        }
    }

    /// All services that are visible here.
    pub fn services(&self) -> impl Iterator<Item = &'a Service> + '_ {
        self.mesh.services.values().map(AsRef::as_ref).filter(|s| self.sees(s))
    }

    pub fn service(&self, host: &str) -> Option<&'a Service> {
        self.mesh.services.get(host).map(AsRef::as_ref).filter(|s| self.sees(s))
    }

    fn sees(&self, service: &Service) -> bool {
        service.visibility.includes(&self.namespace)
    }

    pub(super) fn policy(&self, host: &str) -> Option<&'a DestinationPolicy> {
        self.mesh.destination_policy(host, &self.namespace).map(AsRef::as_ref)
    }

    /// The hosts that sidecars' routing names and that no service has.
    pub fn hosts_without_service(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.exact.keys().copied().filter(|host| self.service(host).is_none())
    }

    /// What `service` stands for: itself, or the mesh's service that it is an alias of; `None` for
    /// an alias of a name outside.
    pub fn unaliased(&self, service: &'a Service) -> Option<&'a Service> {
        let mut service = service;
        for _ in 0..MAX_ALIAS_HOPS {
            match &service.kind {
                ServiceKind::ExternalName { target } => service = self.service(target)?,
                _ => return Some(service),
            }
        }
        None
    }

    /// The ports that clients of `service` may use: an alias need not name any.
    pub fn ports(&self, service: &'a Service) -> &'a [Port] {
        match self.unaliased(service) {
            Some(target) if service.ports.is_empty() => &target.ports,
            _ => &service.ports,
        }
    }

    /// The cluster of a route's destination, else the status that answers for it.
    pub fn resolve(&self, target: &BackendTarget) -> Result<ClusterId, u16> {
        const UNAVAILABLE: u16 = 503;
        let named = self.service(&target.host).ok_or(UNAVAILABLE)?;
        let service = self.unaliased(named).unwrap_or(named);
        let id = ClusterId::Service(BackendTarget { host: service.host.clone(), ..target.clone() });
        self.cluster(&id).map(|_| id).ok_or(UNAVAILABLE)
    }

    /// One cluster by name; `None` where there is none such for clients here.
    pub fn cluster(&self, id: &ClusterId) -> Option<Cluster> {
        let (host, number, subset) = match id {
            ClusterId::Service(target) => (&target.host, target.port, target.subset.as_deref()),
            ClusterId::Direct { host, port, .. } => (host, *port, None),
            ClusterId::Collector(collector) => return self.collector(collector),
            ClusterId::Passthrough | ClusterId::BlackHole | ClusterId::Missing => return None,
        };
        let service = self.service(host)?;
        let policy = self.policy(host);
        let (labels, traffic) = match subset {
            None => (Labels::new(), policy.map(|p| p.policy).unwrap_or_default()),
            Some(name) => {
                let subset = policy?.subsets.get(name)?;
                (subset.labels.clone(), subset.policy)
            }
        };
        let port = service.ports.iter().find(|p| p.number == number);
        let protocol = port.map(|p| p.protocol);
        let (discovery, tls) = match (&service.kind, id) {
            (ServiceKind::ExternalName { target }, _) => {
                if self.service(target).is_some() {
                    return None; // aliases have no clusters of their own
                }
                let target = DnsTarget { host: target.clone(), port: number, meshed: false };
                let discovery = Discovery::Dns { endpoints: vec![target], first_only: false };
                (discovery, UpstreamTls::Never)
            }
            (_, ClusterId::Direct { meshed, .. }) => {
                let tls = if *meshed { UpstreamTls::Always } else { UpstreamTls::Never };
                (Discovery::ClientsChoice, tls)
            }
            (kind, _) => {
                let name = EdsName { port: number, host: host.clone(), labels };
                let (discovery, unless_told) = match kind {
                    ServiceKind::Entry(entry) => entry::discovery(entry, name),
                    _ => (Discovery::Endpoints(name), UpstreamTls::Auto),
                };
                (discovery, self.tls(traffic.tls, unless_told))
            }
        };
        let protocol = match (protocol, &discovery) {
            (Some(Protocol::Udp), _) => return None,
            (Some(protocol), _) => self.upstream_protocol(protocol),
            // An alias of an outside name need not declare its ports.
            (None, Discovery::Dns { .. }) if service.ports.is_empty() => UpstreamProtocol::Http1,
            (None, _) => return None,
        };
        Some(Cluster {
            id: id.clone(),
            service: service.key.clone(),
            host: host.clone(),
            discovery,
            load_balancing: traffic.load_balancing.unwrap_or(self.mesh.config.load_balancing),
            tls,
            identities: Arc::new(service.shape.identities.clone()),
            protocol,
            stat_name: self.mesh.config.outbound_stat_name.as_ref().map(|template| {
                let subset = subset.unwrap_or_default();
                let named = stat_name::Named { service, port, number, target: None, subset };
                stat_name::of(template, &named)
            }),
        })
    }

    /// TLS to a destination, by what a DestinationRule tells.
    pub(super) fn tls(&self, told: Option<ClientTls>, unless_told: UpstreamTls) -> UpstreamTls {
        match (told, unless_told) {
            (None, UpstreamTls::Auto) if !self.mesh.config.auto_tls => UpstreamTls::Never,
            (None, unless_told) => unless_told,
            (Some(ClientTls::Disable), _) => UpstreamTls::Never,
            (Some(ClientTls::Mesh), _) => UpstreamTls::Always,
        }
    }

    fn upstream_protocol(&self, protocol: Protocol) -> UpstreamProtocol {
        match protocol {
            Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2,
            // A gateway's clients speak what they like, which says nothing about what this port
            // understands; HTTP/1.1 is what most do.
            Protocol::Http1 | Protocol::Detect if self.from_gateway => UpstreamProtocol::Http1,
            // gRPC on a port that is called `http` is common, and works without a mesh: what the
            // application speaks is passed on as it is.
            Protocol::Http1 | Protocol::Detect => UpstreamProtocol::AsDownstream,
            _ => UpstreamProtocol::Tcp,
        }
    }

    /// All clusters of one port of a service: the whole, each subset, and for headless services
    /// those of endpoints that clients pick themselves.
    pub fn clusters(&self, service: &Service, port: &Port) -> Vec<Cluster> {
        let target = |subset: Option<&String>| {
            ClusterId::Service(BackendTarget {
                host: service.host.clone(),
                port: port.number,
                subset: subset.cloned(),
            })
        };
        let mut ids = vec![target(None)];
        if let Some(policy) = self.policy(&service.host) {
            ids.extend(policy.subsets.keys().map(|name| target(Some(name))));
        }
        let direct: BTreeSet<_> = self
            .headless_endpoints(service, port)
            .map(|e| self.direct(service, port, e.meshed))
            .collect();
        ids.extend(direct);
        ids.iter().filter_map(|id| self.cluster(id)).collect()
    }

    /// The cluster of a headless service's endpoints that speak mesh TLS, or of the others.
    pub fn direct(&self, service: &Service, port: &Port, endpoint_meshed: bool) -> ClusterId {
        let meshed = match self.policy(&service.host).and_then(|p| p.policy.tls) {
            None => endpoint_meshed && self.mesh.config.auto_tls,
            Some(ClientTls::Disable) => false,
            Some(ClientTls::Mesh) => true,
        };
        ClusterId::Direct { host: service.host.clone(), port: port.number, meshed }
    }

    pub(super) fn headless_endpoints<'s>(
        &self,
        service: &'s Service,
        port: &Port,
    ) -> impl Iterator<Item = &'s HeadlessEndpoint> {
        let (families, number) = (self.families, port.number);
        let all = service.shape.headless.iter();
        all.filter(move |e| e.service_port == number && families.includes(&e.address))
    }

    /// The virtual host of one port of a service, in the table that all services of the port share.
    pub fn virtual_host(&self, service: &'a Service, port: &Port) -> VirtualHost {
        let target = self.unaliased(service).unwrap_or(service);
        let otherwise = if target.kind == ServiceKind::Headless {
            // Reached only by clients that go to an address that no listener stands for (yet).
            let meshed = self.headless_endpoints(target, port).all(|e| e.meshed);
            let known = self.headless_endpoints(target, port).next().is_some();
            self.direct(target, port, known && meshed)
        } else {
            ClusterId::service(&target.host, port.number)
        };
        VirtualHost {
            name: format!("{}:{}", service.host, port.number),
            domains: domains(self.mesh, service, &self.namespace),
            redirect_to_https: false,
            routes: self.routes(&service.host, port.number, otherwise),
        }
    }

    /// The table of one service alone, where the connection's address has already chosen it: any
    /// Host header will do.
    pub fn service_table(&self, service: &'a Service, port: &Port, to: &ClusterId) -> RouteTable {
        let (host, number) = (service.host.clone(), port.number);
        let name = match to {
            ClusterId::Direct { meshed: false, .. } => {
                TableName::PlainService { host, port: number }
            }
            _ => TableName::Service { host, port: number },
        };
        let virtual_host = VirtualHost {
            name: format!("{}:{number}", service.host),
            domains: vec!["*".to_owned()],
            redirect_to_https: false,
            routes: self.routes(&service.host, number, to.clone()),
        };
        RouteTable { name, virtual_hosts: vec![virtual_host], fallback: Fallback::NotFound }
    }

    /// The routes of a host on a port; `otherwise` where nobody has written any for it.
    pub fn routes(&self, host: &str, port: u16, otherwise: ClusterId) -> Vec<Route> {
        let routes = route::routes(self, &self.routings(host), &|_, m| applies_to_mesh(m, port));
        if routes.is_empty() { vec![Route::everything_to(otherwise)] } else { routes }
    }

    /// The virtual host of a routing's host that is no service; `None` where no rule applies.
    pub fn virtual_host_of_name(&self, host: &str, port: u16) -> Option<VirtualHost> {
        let routes = route::routes(self, &self.routings(host), &|_, m| applies_to_mesh(m, port));
        (!routes.is_empty()).then(|| VirtualHost {
            name: format!("{host}:{port}"),
            domains: vec![host.to_owned()],
            redirect_to_https: false,
            routes,
        })
    }

    /// The routings of a host that hold together: one VirtualService alone, or all HTTPRoutes.
    fn routings(&self, host: &str) -> Vec<&'a HttpRouting> {
        let candidates = if let Some(exact) = self.exact.get(host) {
            exact.clone()
        } else {
            let covering = || self.wildcards.iter().filter(|(w, _)| covers(w, host));
            let longest = covering().next().map(|(wildcard, _)| wildcard.len());
            covering().filter(|(w, _)| Some(w.len()) == longest).map(|(_, r)| *r).collect()
        };
        match candidates.first() {
            Some(first) if !route::is_gateway_api(first) => vec![*first],
            _ => candidates.into_iter().filter(|r| route::is_gateway_api(r)).collect(),
        }
    }

    /// Where traffic goes that no service claims.
    pub fn unclaimed(&self) -> ClusterId {
        match self.mesh.config.outbound {
            OutboundTraffic::AllowAny => ClusterId::Passthrough,
            OutboundTraffic::RegistryOnly => ClusterId::BlackHole,
        }
    }

    /// The listeners and route tables of one port of a service that has addresses of its own:
    /// services with a cluster IP, and hosts of entries, unless HTTP (those share a listener);
    /// headless ones always.
    pub fn service_listeners(
        &self,
        service: &'a Service,
        port: &Port,
    ) -> (Vec<OutboundListener>, Vec<RouteTable>) {
        match &service.kind {
            ServiceKind::ClusterIp(addresses) | ServiceKind::Entry(Entry { addresses, .. })
                if !port.protocol.is_http() =>
            {
                let usable = addresses.iter().filter(|a| self.families.includes(a));
                let addresses: Vec<_> = usable.copied().collect();
                if addresses.is_empty() || port.protocol == Protocol::Udp {
                    return Default::default();
                }
                let cluster = ClusterId::service(&service.host, port.number);
                let (serves, table) = self.serves(service, port, cluster);
                let listener = OutboundListener { addresses, port: port.number, serves };
                (vec![listener], table.into_iter().collect())
            }
            ServiceKind::Headless if port.protocol != Protocol::Udp => {
                let mut listeners = Vec::new();
                let mut tables: Vec<RouteTable> = Vec::new();
                for endpoint in self.headless_endpoints(service, port) {
                    let cluster = self.direct(service, port, endpoint.meshed);
                    let (serves, table) = self.serves(service, port, cluster);
                    let addresses = vec![endpoint.address];
                    listeners.push(OutboundListener { addresses, port: endpoint.port, serves });
                    tables.extend(table.filter(|t| !tables.iter().any(|u| u.name == t.name)));
                }
                (listeners, tables)
            }
            _ => Default::default(),
        }
    }

    fn serves(
        &self,
        service: &'a Service,
        port: &Port,
        cluster: ClusterId,
    ) -> (Serves, Option<RouteTable>) {
        if port.protocol.is_http() || port.protocol == Protocol::Detect {
            let table = self.service_table(service, port, &cluster);
            let routes = Some(table.name.clone());
            let serves = Serves::Inspected { routes, claims: Vec::new(), otherwise: cluster };
            (serves, Some(table))
        } else {
            (Serves::Tcp(cluster), None)
        }
    }

    /// The clusters that `tables` name, made where they are not made yet.
    pub(super) fn add_named_clusters<'t>(
        &self,
        tables: impl Iterator<Item = &'t RouteTable>,
        clusters: &mut BTreeMap<ClusterId, Cluster>,
    ) {
        let hosts = tables.flat_map(|t| &t.virtual_hosts);
        for id in hosts.flat_map(|h| &h.routes).flat_map(Route::clusters) {
            if !clusters.contains_key(id)
                && let Some(cluster) = self.cluster(id)
            {
                clusters.insert(id.clone(), cluster);
            }
        }
    }
}

fn applies_to_mesh(m: &HttpMatch, port: u16) -> bool {
    m.port.is_none_or(|p| p == port)
        && (m.gateways.is_empty() || m.gateways.contains(&MatchGateway::Mesh))
}
