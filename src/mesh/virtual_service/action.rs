//! What becomes of the requests that a VirtualService rule matches.

use std::collections::BTreeSet;

use super::RuleContext;
use crate::{
    api::istio::networking::virtual_service as api,
    mesh::{
        HeaderChanges, HttpAction, PathRewrite, Redirect, Retries, Rewrite,
        backend::{self, Draft},
        report::{OrReport, Path, Report},
        syntax, text_match,
    },
};

/// Retries where an object asks for some but not how many; Istio's number.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Envoy's own limit is lower, ours is what routes are built with.
const LONGEST_BODY: usize = 1024 * 1024;

/// What a rule does, before the port of the request is known.
pub enum Action {
    Fixed(HttpAction),
    Forward { drafts: Vec<Draft>, rewrite: Option<Rewrite> },
}

impl Action {
    /// The ports on which the request's port decides about the destination's.
    pub fn ports(&self) -> BTreeSet<u16> {
        match self {
            Self::Fixed(_) => BTreeSet::new(),
            Self::Forward { drafts, .. } => {
                drafts.iter().flat_map(Draft::ports_of_request).copied().collect()
            }
        }
    }

    pub fn on_port(&self, port: Option<u16>) -> HttpAction {
        match self {
            Self::Fixed(action) => action.clone(),
            Self::Forward { drafts, rewrite } => HttpAction::Forward {
                backends: drafts.iter().map(|draft| draft.at_port(port)).collect(),
                rewrite: rewrite.clone(),
            },
        }
    }
}

/// What a rule without a valid action does. It must not be left out: a request would fall through
/// to a rule that was not meant for it.
fn unavailable() -> Action {
    Action::Fixed(HttpAction::Respond { status: 503, body: String::new() })
}

/// The action of a rule.
pub fn of(
    rule: &api::HttpRoute,
    context: RuleContext<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Action {
    let rewrite = rule.rewrite.as_ref().map(|r| rewrite(r, &path.field("rewrite"), report));
    match (rule.route.as_slice(), &rule.redirect, &rule.direct_response) {
        ([], None, None) => {
            // A delegate is an action too, and was reported as such.
            if !rule.unsupported.contains_key("delegate") {
                let message = "give it one of route, redirect and directResponse; until then it \
                               answers with 503";
                report.error(path, "ActionMissing", message);
            }
            unavailable()
        }
        (routes, None, None) => forward(routes, rewrite, context, path, report),
        ([], Some(to), None) => redirect(to, &path.field("redirect"), report),
        ([], None, Some(response)) => respond(response, &path.field("directResponse"), report),
        _ => {
            let message = "has more than one of route, redirect and directResponse; until it has \
                           one, it answers with 503";
            report.error(path, "ActionAmbiguous", message);
            unavailable()
        }
    }
}

fn forward(
    routes: &[api::RouteDestination],
    rewrite: Option<Rewrite>,
    context: RuleContext<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Action {
    let path = path.field("route");
    let single = routes.len() == 1;
    let drafts: Vec<_> = routes
        .iter()
        .enumerate()
        .map(|(i, route)| draft(route, single, context, &path.index(i), report))
        .collect();
    let total = drafts.iter().try_fold(0_u32, |sum, draft| sum.checked_add(draft.weight));
    if let Some(1..) = total {
        Action::Forward { drafts, rewrite }
    } else {
        let message = "the weights must add up to between 1 and 4294967295; until then the \
                           rule answers with 503";
        report.error(&path, "InvalidWeight", message);
        unavailable()
    }
}

fn draft(
    route: &api::RouteDestination,
    single: bool,
    context: RuleContext<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Draft {
    report.unsupported(path, &route.unsupported);
    let mesh = context.world.map(|world| world.mesh);
    let destination = path.field("destination");
    let target = backend::target(&route.destination, mesh, context.config, &destination, report);
    let headers = route.headers.clone().unwrap_or_default();
    let (request_headers, response_headers) =
        self::headers(&headers, &path.field("headers"), report);
    // A single destination gets everything, whatever its weight says, as with Istio.
    let weight = if single { 1 } else { route.weight.unwrap_or_default() };
    let draft = Draft { target, weight, request_headers, response_headers };
    let ports = draft.ports_of_request();
    let unserved: Vec<_> =
        context.gateway_ports.iter().copied().filter(|port| !ports.contains(port)).collect();
    if !ports.is_empty() && !unserved.is_empty() {
        let message = format!(
            "requests come in through the gateway on port {}, and the service has the ports {}: \
             name the one that is meant; until then they are answered with 503",
            backend::list(&unserved),
            backend::list(ports)
        );
        report.error(&destination.field("port"), "PortNotFound", message);
    }
    draft
}

fn rewrite(rewrite: &api::Rewrite, path: &Path<'_>, report: &mut Report) -> Rewrite {
    report.unsupported(path, &rewrite.unsupported);
    Rewrite {
        // Envoy takes the whole path for the prefix where the match is not one.
        path: rewrite.uri.clone().map(PathRewrite::Prefix),
        authority: rewrite.authority.as_ref().and_then(|authority| {
            let path = path.field("authority");
            syntax::header_value(authority).or_report(report, &path, "InvalidHost")
        }),
    }
}

fn redirect(redirect: &api::Redirect, path: &Path<'_>, report: &mut Report) -> Action {
    report.unsupported(path, &redirect.unsupported);
    if let Some(scheme) = &redirect.scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        report.error(&path.field("scheme"), "InvalidScheme", "must be http or https");
    }
    let status = redirect.redirect_code.unwrap_or(301);
    if ![301, 302, 303, 307, 308].contains(&status) {
        let message = "must be 301, 302, 303, 307 or 308; until then it is 301";
        report.error(&path.field("redirectCode"), "InvalidStatus", message);
    }
    if redirect.uri.is_some() && redirect.prefix_rewrite.is_some() {
        report.error(&path.field("prefixRewrite"), "Conflict", "has no effect beside uri");
    }
    let prefix = redirect.prefix_rewrite.clone().map(PathRewrite::Prefix);
    Action::Fixed(HttpAction::Redirect(Redirect {
        scheme: redirect.scheme.clone().filter(|scheme| ["http", "https"].contains(&&**scheme)),
        authority: redirect.authority.clone(),
        port: redirect.port,
        path: redirect.uri.clone().map(PathRewrite::Full).or(prefix),
        status: if [301, 302, 303, 307, 308].contains(&status) { status } else { 301 },
    }))
}

fn respond(response: &api::DirectResponse, path: &Path<'_>, report: &mut Report) -> Action {
    report.unsupported(path, &response.unsupported);
    let mut status = response.status;
    if !(200..=599).contains(&status) {
        report.error(&path.field("status"), "InvalidStatus", "must be between 200 and 599");
        status = 503;
    }
    let body_path = path.field("body");
    let mut body = String::new();
    if let Some(given) = &response.body {
        report.unsupported(&body_path, &given.unsupported);
        body = given.string.clone().unwrap_or_default();
    }
    if body.len() > LONGEST_BODY {
        report.error(&body_path.field("string"), "BodyTooLong", "is longer than 1 MiB");
        body.clear();
    }
    Action::Fixed(HttpAction::Respond { status, body })
}

/// The retries of a rule.
pub fn retries(retries: &api::Retries, path: &Path<'_>, report: &mut Report) -> Retries {
    report.unsupported(path, &retries.unsupported);
    let per_try = retries.per_try_timeout.as_ref().and_then(|text| {
        syntax::timeout(text).or_report(report, &path.field("perTryTimeout"), "InvalidDuration")
    });
    Retries {
        attempts: retries.attempts.unwrap_or(DEFAULT_ATTEMPTS),
        per_try_timeout: per_try.flatten(),
        retry_on: retries.retry_on.clone().unwrap_or_default(),
    }
}

/// Header changes in both directions.
pub fn headers(
    headers: &api::Headers,
    path: &Path<'_>,
    report: &mut Report,
) -> (HeaderChanges, HeaderChanges) {
    report.unsupported(path, &headers.unsupported);
    (
        text_match::header_changes(headers.request.as_ref(), &path.field("request"), report),
        text_match::header_changes(headers.response.as_ref(), &path.field("response"), report),
    )
}
