//! Route tables.

mod headers;
mod matches;

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{DataSource, data_source::Specifier},
        route::v3::{
            DirectResponseAction, RedirectAction, RetryPolicy, Route as PbRoute, RouteAction,
            RouteConfiguration, RouteMatch, VirtualHost as PbVirtualHost, WeightedCluster,
            redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
            retry_policy::{RetryHostPredicate, retry_host_predicate},
            route::Action as PbAction,
            route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier},
            route_match::PathSpecifier,
            virtual_host::TlsRequirementType,
            weighted_cluster::{ClusterWeight, cluster_weight},
        },
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};

use self::headers::Changes;
use super::{
    message::{any, duration, no, number, seconds},
    names,
};
use crate::{
    mesh::{Redirect, Retries, Rewrite},
    plan::{Action, ClusterId, Fallback, Route, RouteTable, Share, VirtualHost},
};

/// What is retried unless a route says otherwise: only what cannot have reached the application, or
/// what it says may be tried again.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
const RETRY_ATTEMPTS: u32 = 2;

pub fn table(table: &RouteTable) -> RouteConfiguration {
    let hosts = table.virtual_hosts.iter().map(virtual_host);
    RouteConfiguration {
        name: names::table(&table.name),
        virtual_hosts: hosts.chain(fallback(table.fallback)).collect(),
        // A route may come before its cluster, and one of them names none on purpose.
        validate_clusters: no(),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

pub fn virtual_host(host: &VirtualHost) -> PbVirtualHost {
    let require_tls =
        if host.redirect_to_https { TlsRequirementType::All } else { TlsRequirementType::None };
    PbVirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host.routes.iter().map(route).collect(),
        require_tls: require_tls.into(),
        retry_policy: Some(default_retries()),
        ..PbVirtualHost::default()
    }
}

fn fallback(fallback: Fallback) -> Option<PbVirtualHost> {
    let (name, action) = match fallback {
        Fallback::NotFound => return None,
        Fallback::Passthrough => ("allow_any", everything_to(names::PASSTHROUGH.to_owned())),
        Fallback::Refuse => ("block_all", PbAction::DirectResponse(respond(502, ""))),
    };
    let route = PbRoute {
        name: name.to_owned(),
        r#match: Some(any_path()),
        action: Some(action),
        ..PbRoute::default()
    };
    Some(PbVirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..PbVirtualHost::default()
    })
}

/// A virtual host for an application's own port: everything goes there.
pub fn to_application(name: String, virtual_host: String, cluster: String) -> RouteConfiguration {
    let route = PbRoute {
        name: "default".to_owned(),
        r#match: Some(any_path()),
        action: Some(everything_to(cluster)),
        ..PbRoute::default()
    };
    // The application may close an idle connection just as a request is sent on it; before any
    // answer has begun it is safe to send it again.
    let retries = RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: number(RETRY_ATTEMPTS),
        ..RetryPolicy::default()
    };
    RouteConfiguration {
        name,
        virtual_hosts: vec![PbVirtualHost {
            name: virtual_host,
            domains: vec!["*".to_owned()],
            routes: vec![route],
            retry_policy: Some(retries),
            ..PbVirtualHost::default()
        }],
        validate_clusters: no(),
        ..RouteConfiguration::default()
    }
}

fn any_path() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}

fn everything_to(cluster: String) -> PbAction {
    PbAction::Route(RouteAction {
        timeout: seconds(0),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..RouteAction::default()
    })
}

fn respond(status: u16, body: &str) -> DirectResponseAction {
    let inline = DataSource {
        specifier: Some(Specifier::InlineString(body.to_owned())),
        ..DataSource::default()
    };
    DirectResponseAction {
        status: status.into(),
        body: (!body.is_empty()).then_some(inline),
        body_format: None,
    }
}

fn route(route: &Route) -> PbRoute {
    let mut request = Changes::of(&route.request_headers, route.header_commands);
    let mut response = Changes::of(&route.response_headers, route.header_commands);
    let action = match &route.action {
        Action::Forward { shares, rewrite } => {
            if let [share] = &shares[..] {
                // The destination's own changes come first, as Envoy does it for several.
                let commands = route.header_commands;
                request = Changes::of(&share.request_headers, commands).then(request);
                response = Changes::of(&share.response_headers, commands).then(response);
            }
            PbAction::Route(forward(route, shares, rewrite.as_ref(), request.host.take()))
        }
        Action::Redirect(redirect) => PbAction::Redirect(redirection(route, redirect)),
        Action::Respond { status, body } => PbAction::DirectResponse(respond(*status, body)),
    };
    PbRoute {
        name: route.name.clone(),
        r#match: Some(matches::route_match(&route.matches)),
        action: Some(action),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        ..PbRoute::default()
    }
}

fn forward(
    route: &Route,
    shares: &[Share],
    rewrite: Option<&Rewrite>,
    host_header: Option<String>,
) -> RouteAction {
    let cluster = match shares {
        [share] => ClusterSpecifier::Cluster(names::cluster(&share.cluster)),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: shares.iter().map(|share| weighted(share, route)).collect(),
            ..WeightedCluster::default()
        }),
    };
    let host = rewrite.and_then(|r| r.authority.clone()).or(host_header);
    let mut action = RouteAction {
        // Only matters where a share names no cluster, see `ClusterId::Missing`.
        cluster_not_found_response_code: if shares.iter().any(|s| s.cluster == ClusterId::Missing) {
            ClusterNotFoundResponseCode::InternalServerError.into()
        } else {
            ClusterNotFoundResponseCode::ServiceUnavailable.into()
        },
        // Envoy's own 15 s would surprise people who have asked for none.
        timeout: duration(route.timeout.unwrap_or(Duration::ZERO)),
        retry_policy: route.retries.as_ref().map(retries),
        cluster_specifier: Some(cluster),
        host_rewrite_specifier: host.map(HostRewriteSpecifier::HostRewriteLiteral),
        ..RouteAction::default()
    };
    if let Some(path) = rewrite.and_then(|r| r.path.as_ref()) {
        match matches::rewritten(route.matches.path.as_ref(), path) {
            matches::Rewritten::Prefix(prefix) => action.prefix_rewrite = prefix,
            matches::Rewritten::Regex(regex) => action.regex_rewrite = Some(regex),
        }
    }
    action
}

fn weighted(share: &Share, route: &Route) -> ClusterWeight {
    let request = Changes::of(&share.request_headers, route.header_commands);
    let response = Changes::of(&share.response_headers, route.header_commands);
    ClusterWeight {
        name: names::cluster(&share.cluster),
        weight: number(share.weight),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        host_rewrite_specifier: request
            .host
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}

fn redirection(route: &Route, redirect: &Redirect) -> RedirectAction {
    let code = match redirect.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = redirect.path.as_ref().map(|path| match path {
        crate::mesh::PathRewrite::Full(path) => PathRewriteSpecifier::PathRedirect(path.clone()),
        prefix @ crate::mesh::PathRewrite::Prefix(_) => {
            match matches::rewritten(route.matches.path.as_ref(), prefix) {
                matches::Rewritten::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
                matches::Rewritten::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
            }
        }
    });
    RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        response_code: code.into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

fn default_retries() -> RetryPolicy {
    RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: number(RETRY_ATTEMPTS),
        // Another try goes to another endpoint, where there is one.
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            ))),
        }],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    }
}

fn retries(retries: &Retries) -> RetryPolicy {
    if retries.attempts == 0 {
        // An empty policy takes the place of the virtual host's.
        return RetryPolicy { num_retries: number(0), ..RetryPolicy::default() };
    }
    let mut policy = default_retries();
    policy.num_retries = number(retries.attempts);
    policy.per_try_timeout = retries.per_try_timeout.and_then(duration);
    if !retries.retry_on.is_empty() {
        // Status codes may stand among the conditions; Envoy wants them apart.
        let parts = retries.retry_on.split(',').map(str::trim).filter(|p| !p.is_empty());
        let (codes, mut conditions): (Vec<&str>, Vec<&str>) =
            parts.partition(|p| p.parse::<u32>().is_ok());
        policy.retriable_status_codes = codes.iter().filter_map(|c| c.parse().ok()).collect();
        if !codes.is_empty() && !conditions.contains(&"retriable-status-codes") {
            conditions.push("retriable-status-codes");
        }
        policy.retry_on = conditions.join(",");
    }
    policy
}
