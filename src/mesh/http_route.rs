//! HTTPRoutes of the Kubernetes Gateway API → [`HttpRouting`].
//!
//! Rules are split so that each has one condition, and sorted by the API's precedence.

mod filters;
mod matches;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Backend, BackendTarget, GatewayApi, HttpAction, HttpMatch, HttpRouting, HttpRule, Mesh,
    Retries, Visibility, backend, by_age,
    grants::{Referent, permit},
    names, parents, precedence,
    report::{OrReport, Path, Report},
    syntax,
};
use crate::{
    api::gateway::http_route as api,
    diagnostic::Diagnostic,
    watch::{Key, Snapshot},
};

/// What requests get that a rule cannot serve as written: the API asks for it.
const FAILED: u16 = 500;
/// Retries of a route that only limits the time of each attempt.
const DEFAULT_ATTEMPTS: u32 = 2;

/// The routing of all objects. Those for clients of one namespace come before those that a
/// Service's owner made for everyone; beyond that the oldest comes first.
pub fn build(
    snapshot: &Snapshot,
    mesh: &Mesh,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<HttpRouting>> {
    let gateways = mesh.gateways.iter().filter(|gateway| gateway.api == GatewayApi::Kubernetes);
    let gateways: BTreeMap<_, _> = gateways.map(|gateway| (&gateway.key, &**gateway)).collect();
    let mut routings = Vec::new();
    for object in by_age(&snapshot.http_routes) {
        let mut report = Report::new(object.as_ref(), "gateway.networking.k8s.io/v1", "HTTPRoute");
        let attachments = parents::resolve(object, snapshot, mesh, &gateways, &mut report);
        if let Some(attachments) = attachments {
            let rules = Converter { snapshot, mesh, report: &mut report }.rules(&object.spec);
            routings.extend(attach(&attachments, &rules, &report));
            diagnostics.append(&mut report.diagnostics);
        }
    }
    let for_everyone = |routing: &HttpRouting| routing.mesh == Some(Visibility::Everyone);
    routings.sort_by_key(for_everyone);
    routings.into_iter().map(Arc::new).collect()
}

/// One routing for each set of hosts.
fn attach(
    attachments: &parents::Attachments,
    rules: &[HttpRule],
    report: &Report,
) -> Vec<HttpRouting> {
    let listeners = attachments.listeners.iter().map(|(hosts, gateways)| HttpRouting {
        origin: report.object.clone(),
        hosts: hosts.clone(),
        mesh: None,
        gateways: gateways.clone(),
        rules: rules.to_vec(),
    });
    let services = attachments.services.iter().map(|service| HttpRouting {
        origin: report.object.clone(),
        hosts: vec![service.host.clone()],
        mesh: Some(service.clients.clone()),
        gateways: Vec::new(),
        rules: rules.iter().map(|rule| on_port(rule, service.port)).collect(),
    });
    listeners.chain(services).filter(|routing| !routing.rules.is_empty()).collect()
}

fn on_port(rule: &HttpRule, port: Option<u16>) -> HttpRule {
    let mut rule = rule.clone();
    for condition in &mut rule.matches {
        condition.port = port;
    }
    rule
}

struct Converter<'a> {
    snapshot: &'a Snapshot,
    mesh: &'a Mesh,
    report: &'a mut Report,
}

impl Converter<'_> {
    fn rules(&mut self, spec: &api::HttpRouteSpec) -> Vec<HttpRule> {
        self.report.unsupported(&Path::SPEC, &spec.unsupported);
        let path = Path::SPEC.field("rules");
        let mut rules = Vec::new();
        for (i, rule) in spec.rules.iter().enumerate() {
            rules.extend(self.rule(i, rule, &path.index(i)));
        }
        precedence::sort(&mut rules);
        rules
    }

    fn rule(&mut self, index: usize, rule: &api::Rule, path: &Path<'_>) -> Vec<HttpRule> {
        self.report.unsupported(path, &rule.unsupported);
        let filters = filters::all(&rule.filters, &path.field("filters"), self.report);
        let backends = self.backends(&rule.backend_refs, &path.field("backendRefs"));
        let action = match (filters.valid, filters.redirect) {
            (false, _) => HttpAction::Respond { status: FAILED, body: String::new() },
            (true, Some(redirect)) => HttpAction::Redirect(redirect),
            // Also where there is no backend at all.
            (true, None) if backends.iter().all(|backend| backend.weight == 0) => {
                HttpAction::Respond { status: FAILED, body: String::new() }
            }
            (true, None) => HttpAction::Forward { backends, rewrite: filters.rewrite },
        };
        let (timeout, retries) = self.timeouts(rule.timeouts.as_ref(), &path.field("timeouts"));
        let name = rule.name.clone().unwrap_or_else(|| {
            let object = &self.report.object;
            format!("{}.{}.{index}", object.namespace, object.name)
        });
        let conditions = matches::all(&rule.matches, &path.field("matches"), self.report);
        let rule = |condition: HttpMatch| HttpRule {
            name: name.clone(),
            matches: vec![condition],
            action: action.clone(),
            request_headers: filters.request_headers.clone(),
            response_headers: filters.response_headers.clone(),
            timeout,
            retries: retries.clone(),
        };
        conditions.into_iter().map(rule).collect()
    }

    fn timeouts(
        &mut self,
        timeouts: Option<&api::Timeouts>,
        path: &Path<'_>,
    ) -> (Option<Duration>, Option<Retries>) {
        let Some(timeouts) = timeouts else { return (None, None) };
        let mut read = |text: &Option<String>, name: &str| {
            let text = text.as_ref()?;
            syntax::timeout(text).or_report(self.report, &path.field(name), "UnsupportedValue")?
        };
        let request = read(&timeouts.request, "request");
        let attempt = read(&timeouts.backend_request, "backendRequest");
        let retries = attempt.map(|attempt| Retries {
            attempts: DEFAULT_ATTEMPTS,
            per_try_timeout: Some(attempt),
            retry_on: String::new(),
        });
        (request, retries)
    }

    fn backends(&mut self, references: &[api::BackendReference], path: &Path<'_>) -> Vec<Backend> {
        let references = references.iter().enumerate();
        references.map(|(i, reference)| self.backend(reference, &path.index(i))).collect()
    }

    fn backend(&mut self, reference: &api::BackendReference, path: &Path<'_>) -> Backend {
        self.report.unsupported(path, &reference.unsupported);
        let filters_path = path.field("filters");
        let filters = filters::all(&reference.filters, &filters_path, self.report);
        let headers_only = filters.redirect.is_none() && filters.rewrite.is_none();
        if !headers_only {
            let message = "only header modifiers are supported on a single backend; until then its \
                           share is answered with 500";
            self.report.error(&filters_path, "UnsupportedValue", message);
        }
        let target = match self.target(reference) {
            Ok(target) if filters.valid && headers_only => Ok(target),
            Ok(_) => Err(FAILED),
            Err((reason, message)) => {
                self.report.error(path, reason, message);
                Err(FAILED)
            }
        };
        Backend {
            target,
            weight: reference.weight.unwrap_or(1),
            request_headers: filters.request_headers,
            response_headers: filters.response_headers,
        }
    }

    fn target(
        &self,
        reference: &api::BackendReference,
    ) -> Result<BackendTarget, (&'static str, String)> {
        let kind = reference.kind.as_deref().unwrap_or("Service");
        let group = reference.group.as_deref().unwrap_or_default();
        if kind != "Service" || !(group.is_empty() || group == "core") {
            let message = format!("{kind} cannot be a backend in this version: use a Service");
            return Err(("InvalidKind", message));
        }
        let own = &self.report.object.namespace;
        let namespace = reference.namespace.as_deref().unwrap_or(own);
        let name = &reference.name;
        if !permit(self.snapshot, "HTTPRoute", own, Referent { kind, namespace, name }) {
            let message = format!(
                "no ReferenceGrant in namespace {namespace} lets HTTPRoutes of {own} use Service {name}"
            );
            return Err(("RefNotPermitted", message));
        }
        let host =
            names::service_host(&Key::new(namespace, name), &self.mesh.config.cluster_domain);
        let Some(service) = self.mesh.services.get(&host) else {
            let suggestion = self.mesh.suggestion(&host);
            let message = format!("there is no Service {namespace}/{name}: {suggestion}");
            return Err(("BackendNotFound", message));
        };
        let ports = backend::tcp_ports(service);
        match reference.port {
            Some(port) if ports.contains(&port) => Ok(BackendTarget { host, port, subset: None }),
            Some(port) => {
                let ports = backend::list(&ports);
                let message =
                    format!("Service {namespace}/{name} has no port {port}; it has {ports}");
                Err(("BackendNotFound", message))
            }
            None => {
                let ports = backend::list(&ports);
                let message = format!("name the port of Service {namespace}/{name}: {ports}");
                Err(("BackendNotFound", message))
            }
        }
    }
}
