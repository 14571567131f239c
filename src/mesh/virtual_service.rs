//! VirtualServices → [`HttpRouting`].

mod action;
mod matches;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    GatewayApi, GatewayRef, GatewayServers, Host, HttpMatch, HttpRouting, HttpRule, Key, Mesh,
    MeshConfig, by_age, names,
    report::{OrReport, Path, Report},
    syntax,
};
use crate::{
    api::istio::networking::{VirtualService, virtual_service as api},
    diagnostic::Diagnostic,
    watch::Snapshot,
};

/// The reserved word for all sidecars.
const MESH: &str = "mesh";

/// What conversion may look up; nothing of it is there when an object is only validated.
#[derive(Clone, Copy)]
pub struct World<'a> {
    mesh: &'a Mesh,
    gateways: &'a BTreeMap<&'a Key, &'a GatewayServers>,
}

/// The routing of all objects, oldest first.
pub fn build(
    snapshot: &Snapshot,
    mesh: &Mesh,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<HttpRouting>> {
    let gateways = mesh.gateways.iter().filter(|gateway| gateway.api == GatewayApi::Istio);
    let gateways: BTreeMap<_, _> = gateways.map(|gateway| (&gateway.key, &**gateway)).collect();
    let world = World { mesh, gateways: &gateways };
    let mut routes = Vec::new();
    for object in by_age(&snapshot.virtual_services) {
        let (routing, mut report) = convert(object, &mesh.config, Some(world));
        diagnostics.append(&mut report.diagnostics);
        if !routing.hosts.is_empty() && !routing.rules.is_empty() {
            routes.push(Arc::new(routing));
        }
    }
    routes
}

/// One object's routing.
pub fn convert(
    object: &VirtualService,
    config: &MeshConfig,
    world: Option<World<'_>>,
) -> (HttpRouting, Report) {
    let mut report = Report::new(object, "networking.istio.io/v1", "VirtualService");
    let spec = &object.spec;
    report.unsupported(&Path::SPEC, &spec.unsupported);
    let namespace = report.object.namespace.clone();
    let visibility = names::export_to_or(
        spec.export_to.iter().map(String::as_str),
        &config.default_exports.virtual_services,
        &namespace,
    );
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == MESH);
    let mut routing = HttpRouting {
        origin: report.object.clone(),
        hosts: Vec::new(),
        mesh: in_mesh.then_some(visibility.clone()),
        gateways: gateways(&spec.gateways, world, &mut report),
        rules: Vec::new(),
    };
    let restricted = !spec.export_to.is_empty() && visibility != super::Visibility::Everyone;
    if restricted && !routing.gateways.is_empty() {
        let message = "restricts sidecars; the gateways in spec.gateways apply the routes wherever \
                       they run";
        report.warning(&Path::SPEC.field("exportTo"), "NotRestricted", message);
    }
    routing.hosts = hosts(spec, &routing, config, world, &mut report);
    let ports = gateway_ports(&routing.gateways, world);
    let http = Path::SPEC.field("http");
    for (i, rule) in spec.http.iter().enumerate() {
        let context = RuleContext { config, world, gateway_ports: &ports };
        routing.rules.extend(context.rules(i, rule, &http.index(i), &mut report));
    }
    let other_protocols = ["tcp", "tls"].iter().any(|name| spec.unsupported.contains_key(*name));
    if spec.http.is_empty() && !other_protocols {
        report.error(&http, "RulesMissing", "give at least one rule");
    }
    (routing, report)
}

fn gateways(names: &[String], world: Option<World<'_>>, report: &mut Report) -> Vec<GatewayRef> {
    let path = Path::SPEC.field("gateways");
    let mut gateways = Vec::new();
    for (i, name) in names.iter().enumerate().filter(|(_, name)| *name != MESH) {
        let path = path.index(i);
        let Some(gateway) =
            gateway(name, &report.object.namespace).or_report(report, &path, "InvalidGateway")
        else {
            continue;
        };
        if world.is_some_and(|world| !world.gateways.contains_key(&gateway.key)) {
            let message =
                format!("there is no Gateway {}: create it or correct the name", gateway.key);
            report.error(&path, "GatewayNotFound", message);
        }
        gateways.push(gateway);
    }
    gateways
}

/// `NAME` or `NAMESPACE/NAME`.
fn gateway(text: &str, own_namespace: &str) -> Result<GatewayRef, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((own_namespace, text));
    let namespace = if namespace == "." { own_namespace } else { namespace };
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("{text:?} is not of the form NAME or NAMESPACE/NAME"));
    }
    let key = Key::new(namespace, name);
    Ok(GatewayRef { api: GatewayApi::Istio, key, listener: None })
}

fn hosts(
    spec: &api::VirtualServiceSpec,
    routing: &HttpRouting,
    config: &MeshConfig,
    world: Option<World<'_>>,
    report: &mut Report,
) -> Vec<Host> {
    let path = Path::SPEC.field("hosts");
    if spec.hosts.is_empty() {
        report.error(&path, "HostsMissing", "name at least one host");
    }
    let namespace = report.object.namespace.clone();
    let services = world.map(|world| &world.mesh.services);
    let mut hosts = Vec::new();
    for (i, text) in spec.hosts.iter().enumerate() {
        let path = path.index(i);
        let Some(host) = names::resolve(text, &namespace, config, services).or_report(
            report,
            &path,
            "InvalidHost",
        ) else {
            continue;
        };
        if &*host == "*" && routing.mesh.is_some() {
            let message = "stands for all hosts only on gateways: list spec.gateways without mesh, \
                           or name the hosts";
            report.error(&path, "InvalidHost", message);
            if routing.gateways.is_empty() {
                continue;
            }
        }
        if let Some(world) = world {
            check_host(&host, routing, world, &path, report);
        }
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// Whether requests for the host can get to the rules at all.
fn check_host(
    host: &str,
    routing: &HttpRouting,
    world: World<'_>,
    path: &Path<'_>,
    report: &mut Report,
) {
    if routing.mesh.is_some() {
        let name = !host.contains('*') && host.parse::<std::net::IpAddr>().is_err();
        if name && routing.gateways.is_empty() && !world.mesh.services.contains_key(host) {
            let message = format!("there is no service {host}: {}", world.mesh.suggestion(host));
            report.warning(path, "HostNotFound", message);
        }
        return;
    }
    let known: Vec<_> =
        routing.gateways.iter().filter_map(|gateway| world.gateways.get(&gateway.key)).collect();
    let served = known.iter().flat_map(|gateway| &gateway.servers).any(|server| {
        server.hosts.iter().any(|(visibility, pattern)| {
            visibility.includes(&report.object.namespace)
                && names::intersection(pattern, host).is_some()
        })
    });
    if !served && !known.is_empty() {
        let names: Vec<_> = known.iter().map(|gateway| gateway.key.to_string()).collect();
        let message = format!(
            "{host} is not among the hosts that Gateway {} serves to this namespace",
            names.join(", ")
        );
        report.error(path, "HostNotServed", message);
    }
}

/// The ports on which requests come in through the gateways.
fn gateway_ports(gateways: &[GatewayRef], world: Option<World<'_>>) -> BTreeSet<u16> {
    let known = gateways.iter().filter_map(|g| world.and_then(|w| w.gateways.get(&g.key)));
    known.flat_map(|gateway| &gateway.servers).map(|server| server.port).collect()
}

#[derive(Clone, Copy)]
struct RuleContext<'a> {
    config: &'a MeshConfig,
    world: Option<World<'a>>,
    gateway_ports: &'a BTreeSet<u16>,
}

impl RuleContext<'_> {
    /// What one rule comes to: none where no request can match it, several where the port of the
    /// request decides about the destination's.
    fn rules(
        self,
        index: usize,
        rule: &api::HttpRoute,
        path: &Path<'_>,
        report: &mut Report,
    ) -> Vec<HttpRule> {
        report.unsupported(path, &rule.unsupported);
        let alternatives = matches::all(&rule.matches, &path.field("match"), report);
        let action = action::of(rule, self, path, report);
        let timeout_path = path.field("timeout");
        let timeout = rule.timeout.as_ref().and_then(|text| {
            syntax::timeout(text).or_report(report, &timeout_path, "InvalidDuration")
        });
        let retries = rule
            .retries
            .as_ref()
            .map(|retries| action::retries(retries, &path.field("retries"), report));
        let headers = rule.headers.clone().unwrap_or_default();
        let (request_headers, response_headers) =
            action::headers(&headers, &path.field("headers"), report);
        let Some(alternatives) = alternatives else { return Vec::new() };
        let template = HttpRule {
            name: rule.name.clone().unwrap_or_else(|| {
                format!("{}.{}.{index}", report.object.namespace, report.object.name)
            }),
            matches: alternatives,
            action: action.on_port(None),
            request_headers,
            response_headers,
            timeout: timeout.flatten(),
            retries,
        };
        let mut rules: Vec<HttpRule> = action
            .ports()
            .into_iter()
            .filter_map(|port| {
                let matches = restrict_to_port(&template.matches, port)?;
                Some(HttpRule { matches, action: action.on_port(Some(port)), ..template.clone() })
            })
            .collect();
        rules.push(template);
        rules
    }
}

/// The alternatives for requests on one port; `None` where there are none.
fn restrict_to_port(matches: &[HttpMatch], port: u16) -> Option<Vec<HttpMatch>> {
    if matches.is_empty() {
        return Some(vec![HttpMatch { port: Some(port), ..HttpMatch::default() }]);
    }
    let restricted: Vec<_> = matches
        .iter()
        .filter(|alternative| alternative.port.is_none_or(|own| own == port))
        .map(|alternative| HttpMatch { port: Some(port), ..alternative.clone() })
        .collect();
    (!restricted.is_empty()).then_some(restricted)
}
