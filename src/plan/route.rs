//! HTTP routing of one proxy: rules with their destinations resolved to clusters.

use std::time::Duration;

use super::{ClusterId, View};
use crate::mesh::{
    Backend, HeaderChanges, Host, HttpAction, HttpMatch, HttpRouting, HttpRule, Redirect, Retries,
    Rewrite, precedence,
};

/// Names a route table; `envoy::names` makes the RDS name of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// All HTTP services of one port number.
    Port(u16),
    /// One service, whatever the Host header says: the connection's address has decided.
    Service {
        host: Host,
        port: u16,
    },
    /// The same of a headless service, for endpoints that do not speak mesh TLS.
    PlainService {
        host: Host,
        port: u16,
    },
    GatewayHttp {
        port: u16,
    },
    GatewayHttps {
        port: u16,
        server: String,
        gateway: String,
        namespace: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    pub name: TableName,
    pub virtual_hosts: Vec<VirtualHost>,
    pub fallback: Fallback,
}

/// What happens to requests for hosts that no virtual host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Passthrough,
    /// 502: the mesh allows only what it knows.
    Refuse,
    /// 404.
    NotFound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    pub name: String,
    /// Without ports: these are ignored when matching.
    pub domains: Vec<String>,
    pub redirect_to_https: bool,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub name: String,
    pub matches: HttpMatch,
    pub action: Action,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    /// Whether header values may contain Envoy's `%COMMANDS%`: VirtualServices document it,
    /// HTTPRoutes mean what they say.
    pub header_commands: bool,
    pub timeout: Option<Duration>,
    /// `None`: the mesh's default retries.
    pub retries: Option<Retries>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To clusters by weight; never empty.
    Forward {
        shares: Vec<Share>,
        rewrite: Option<Rewrite>,
    },
    Redirect(Redirect),
    Respond {
        status: u16,
        body: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub cluster: ClusterId,
    pub weight: u32,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
}

impl Route {
    /// Everything to one cluster.
    pub fn everything_to(cluster: ClusterId) -> Self {
        let share = Share {
            cluster,
            weight: 1,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        };
        Self {
            name: "default".to_owned(),
            matches: HttpMatch::default(),
            action: Action::Forward { shares: vec![share], rewrite: None },
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            header_commands: false,
            timeout: None,
            retries: None,
        }
    }
}

impl Route {
    /// The clusters that it may send requests to.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterId> {
        let shares = match &self.action {
            Action::Forward { shares, .. } => &shares[..],
            Action::Redirect(_) | Action::Respond { .. } => &[],
        };
        shares.iter().map(|share| &share.cluster)
    }
}

/// The routes that `routings` make for one port, in the order in which they are to be tried;
/// `applies` says which matches count here. Empty where none does.
pub(super) fn routes(
    view: &View<'_>,
    routings: &[&HttpRouting],
    applies: &dyn Fn(&HttpRouting, &HttpMatch) -> bool,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for routing in routings {
        for rule in &routing.rules {
            let matches = if rule.matches.is_empty() {
                &[HttpMatch::default()][..]
            } else {
                &rule.matches[..]
            };
            let matches = matches.iter().filter(|m| applies(routing, m));
            routes.extend(matches.map(|m| route(view, routing, rule, m)));
        }
    }
    if routings.iter().all(|r| is_gateway_api(r)) {
        // The Gateway API's precedence holds across all routes of a host; the sort is stable, so
        // that ties keep the order of age and name that the mesh has them in.
        routes.sort_by_cached_key(|route| precedence::of(&route.matches));
    }
    routes
}

pub(super) fn is_gateway_api(routing: &HttpRouting) -> bool {
    routing.origin.kind != "VirtualService"
}

fn route(view: &View<'_>, routing: &HttpRouting, rule: &HttpRule, matches: &HttpMatch) -> Route {
    let action = match &rule.action {
        HttpAction::Forward { backends, rewrite } => forward(view, backends, rewrite.as_ref()),
        HttpAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        HttpAction::Respond { status, body } => {
            Action::Respond { status: *status, body: body.clone() }
        }
    };
    Route {
        name: rule.name.clone(),
        matches: matches.clone(),
        action,
        request_headers: rule.request_headers.clone(),
        response_headers: rule.response_headers.clone(),
        header_commands: !is_gateway_api(routing),
        timeout: rule.timeout,
        retries: rule.retries.clone(),
    }
}

fn forward(view: &View<'_>, backends: &[Backend], rewrite: Option<&Rewrite>) -> Action {
    let resolve = |backend: &Backend| {
        backend.target.as_ref().map_err(|status| *status).and_then(|target| view.resolve(target))
    };
    // A single destination gets everything, whatever its weight says.
    let weight = |backend: &Backend| if backends.len() == 1 { 1 } else { backend.weight };
    let live: Vec<_> = backends.iter().filter(|b| weight(b) > 0).map(|b| (b, resolve(b))).collect();
    if live.iter().all(|(_, cluster)| cluster.is_err()) {
        let status = live.iter().find_map(|(_, cluster)| cluster.as_ref().err()).copied();
        return Action::Respond { status: status.unwrap_or(500), body: String::new() };
    }
    let shares = live
        .into_iter()
        .map(|(backend, cluster)| Share {
            cluster: cluster.unwrap_or_else(|status| match status {
                503 => ClusterId::BlackHole,
                _ => ClusterId::Missing,
            }),
            weight: weight(backend),
            request_headers: backend.request_headers.clone(),
            response_headers: backend.response_headers.clone(),
        })
        .collect();
    Action::Forward { shares, rewrite: rewrite.cloned() }
}
