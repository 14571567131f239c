//! Istio's Gateways → [`GatewayServers`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    GatewayApi, GatewayProtocol, GatewayServer, GatewayServers, Host, Key, Labels, Mesh,
    MeshConfig, Service, Visibility, by_age, lookup, names,
    report::{OrReport, Path, Report},
};
use crate::{
    api::istio::networking::{Gateway, gateway as api},
    diagnostic::Diagnostic,
    watch::Snapshot,
};

/// What conversion may look up; nothing of it is there when an object is only validated.
#[derive(Clone, Copy)]
pub struct World<'a> {
    snapshot: &'a Snapshot,
    services: &'a BTreeMap<Host, Arc<Service>>,
    /// Namespaces of the gateway pods that the object selects.
    namespaces: &'a BTreeSet<&'a str>,
}

/// What all objects ask for, oldest first.
pub fn build(
    snapshot: &Snapshot,
    mesh: &Mesh,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<GatewayServers>> {
    let mut all = Vec::new();
    for object in by_age(&snapshot.istio_gateways) {
        let namespaces = pod_namespaces(mesh, &object.spec.selector);
        let world = World { snapshot, services: &mesh.services, namespaces: &namespaces };
        let (servers, mut report) = convert(object, &mesh.config, Some(world));
        if namespaces.is_empty() {
            let message = "no running gateway pod has these labels";
            report.warning(&Path::SPEC.field("selector"), "NoGatewayPods", message);
        }
        diagnostics.append(&mut report.diagnostics);
        all.push(Arc::new(servers));
    }
    all
}

fn pod_namespaces<'a>(mesh: &'a Mesh, selector: &Labels) -> BTreeSet<&'a str> {
    let selected = mesh.workloads.values().filter(|w| lookup::selects(selector, &w.labels));
    selected.map(|workload| &*workload.key.namespace).collect()
}

/// What one object asks for.
pub fn convert(
    object: &Gateway,
    config: &MeshConfig,
    world: Option<World<'_>>,
) -> (GatewayServers, Report) {
    let mut report = Report::new(object, "networking.istio.io/v1", "Gateway");
    let spec = &object.spec;
    report.unsupported(&Path::SPEC, &spec.unsupported);
    let path = Path::SPEC.field("servers");
    if spec.servers.is_empty() {
        report.error(&path, "ServersMissing", "give at least one server");
    }
    let servers = spec
        .servers
        .iter()
        .enumerate()
        .filter_map(|(i, server)| convert_server(i, server, config, world, &path, &mut report))
        .collect();
    let servers = GatewayServers {
        origin: report.object.clone(),
        api: GatewayApi::Istio,
        key: Key::new(&report.object.namespace, &report.object.name),
        selector: spec.selector.clone(),
        own_namespace_only: false,
        servers,
    };
    (servers, report)
}

fn convert_server(
    index: usize,
    server: &api::Server,
    config: &MeshConfig,
    world: Option<World<'_>>,
    servers: &Path<'_>,
    report: &mut Report,
) -> Option<GatewayServer> {
    let path = &servers.index(index);
    report.unsupported(path, &server.unsupported);
    let port = path.field("port");
    report.unsupported(&port, &server.port.unsupported);
    if server.port.number == 0 {
        report.error(&port.field("number"), "InvalidPort", "must be between 1 and 65535");
    }
    let hosts = hosts(&server.hosts, config, world, &path.field("hosts"), report);
    let protocol = protocol(server, world, path, report)?;
    if server.port.number == 0 || hosts.is_empty() {
        return None;
    }
    let name = server.name.clone().unwrap_or_else(|| server.port.name.clone());
    Some(GatewayServer { index, name, port: server.port.number, hosts, protocol })
}

fn hosts(
    list: &[String],
    config: &MeshConfig,
    world: Option<World<'_>>,
    path: &Path<'_>,
    report: &mut Report,
) -> Vec<(Visibility, Host)> {
    if list.is_empty() {
        report.error(path, "HostsMissing", "name at least one host; * stands for all");
    }
    let namespace = report.object.namespace.clone();
    let services = world.map(|world| world.services);
    let host = |(i, text): (usize, &String)| {
        let (visibility, name) = match text.split_once('/') {
            None => (Visibility::Everyone, text.as_str()),
            Some((from, name)) => (names::export_to([from], &namespace), name),
        };
        let host = names::resolve(name, &namespace, config, services);
        host.or_report(report, &path.index(i), "InvalidHost").map(|host| (visibility, host))
    };
    list.iter().enumerate().filter_map(host).collect()
}

fn protocol(
    server: &api::Server,
    world: Option<World<'_>>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<GatewayProtocol> {
    let tls_path = path.field("tls");
    if let Some(tls) = &server.tls {
        report.unsupported(&tls_path, &tls.unsupported);
    }
    match server.port.protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => {
            let tls = server.tls.as_ref();
            if tls.is_some_and(|tls| tls.mode.is_some() || tls.credential_name.is_some()) {
                let message = "has no effect on a plaintext port, except for httpsRedirect: set \
                               port.protocol to HTTPS";
                report.error(&tls_path, "TlsOnPlaintextPort", message);
            }
            let redirect_to_https = tls.and_then(|tls| tls.https_redirect).unwrap_or_default();
            Some(GatewayProtocol::Http { redirect_to_https })
        }
        "HTTPS" => {
            let credentials = if let Some(tls) = &server.tls {
                credentials(tls, world, &tls_path, report)
            } else {
                let message = "is needed for HTTPS: give mode SIMPLE and credentialName; until \
                               then connections are refused";
                report.error(&tls_path, "TlsMissing", message);
                Vec::new()
            };
            Some(GatewayProtocol::Https { credentials })
        }
        "TLS" | "TCP" | "MONGO" | "MYSQL" | "REDIS" | "AUTO" => {
            let consequence = "this server is left out, use HTTP or HTTPS";
            report.unsupported_field(&path.field("port").field("protocol"), consequence);
            None
        }
        _ => {
            let message = "must be HTTP, HTTP2, GRPC or HTTPS; until then this server is left out";
            report.error(&path.field("port").field("protocol"), "InvalidProtocol", message);
            None
        }
    }
}

/// The Secret with the server's certificate. Its namespace is left empty: that of the gateway pods,
/// which is known where a gateway's plan is made.
fn credentials(
    tls: &api::ServerTls,
    world: Option<World<'_>>,
    path: &Path<'_>,
    report: &mut Report,
) -> Vec<Key> {
    let mode = tls.mode.as_deref().unwrap_or("PASSTHROUGH");
    if mode != "SIMPLE" {
        // To serve it as SIMPLE would drop the demand for a client's certificate.
        let consequence = "connections are refused, use SIMPLE";
        report.unsupported_field(&path.field("mode"), consequence);
        return Vec::new();
    }
    let credential = path.field("credentialName");
    let Some(name) = tls.credential_name.as_deref().filter(|name| !name.is_empty()) else {
        let message = "is needed: name a Secret of type kubernetes.io/tls in the namespace of the \
                       gateway pods; until then connections are refused";
        report.error(&credential, "CredentialMissing", message);
        return Vec::new();
    };
    for namespace in world.iter().flat_map(|world| world.namespaces) {
        let secret = Key::new(namespace, name);
        if world.is_some_and(|world| !world.snapshot.tls_secrets.contains_key(&secret)) {
            let message = format!(
                "there is no Secret {secret} of type kubernetes.io/tls, which is where the gateway \
                 pods look for it; until it is there connections are refused"
            );
            report.error(&credential, "CredentialNotFound", message);
        }
    }
    vec![Key::new("", name)]
}
