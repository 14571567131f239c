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
    mesh::{MeshConfig, Redirect, Retries, Rewrite},
    plan::{Action, ClusterId, Fallback, Route, RouteTable, Share, VirtualHost},
};

pub fn table(table: &RouteTable, config: &MeshConfig) -> RouteConfiguration {
    let hosts = table.virtual_hosts.iter().map(|host| virtual_host(host, config));
    RouteConfiguration {
        name: names::table(&table.name),
        virtual_hosts: hosts.chain(fallback(table.fallback)).collect(),
        // A route may come before its cluster, and one of them names none on purpose.
        validate_clusters: no(),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

pub fn virtual_host(host: &VirtualHost, config: &MeshConfig) -> PbVirtualHost {
    let require_tls =
        if host.redirect_to_https { TlsRequirementType::All } else { TlsRequirementType::None };
    PbVirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host.routes.iter().map(|route| self::route(route, config)).collect(),
        require_tls: require_tls.into(),
        retry_policy: default_retries(&config.retries, elsewhere),
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
pub fn to_application(
    virtual_host: String,
    cluster: String,
    retries: &Retries,
) -> RouteConfiguration {
    let name = cluster.clone();
    let route = PbRoute {
        name: "default".to_owned(),
        r#match: Some(any_path()),
        action: Some(everything_to(cluster)),
        ..PbRoute::default()
    };
    RouteConfiguration {
        name,
        virtual_hosts: vec![PbVirtualHost {
            name: virtual_host,
            domains: vec!["*".to_owned()],
            routes: vec![route],
            // There is one application, so there is no other endpoint to go to.
            retry_policy: default_retries(retries, |policy| policy),
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

fn route(route: &Route, config: &MeshConfig) -> PbRoute {
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
            let host = request.host.take();
            let mut action = forward(route, shares, rewrite.as_ref(), host);
            action.retry_policy = route.retries.as_ref().map(|own| retries(own, &config.retries));
            PbAction::Route(action)
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

/// The retries of a whole virtual host; none where the mesh wants none.
fn default_retries(
    retries: &Retries,
    finish: impl FnOnce(RetryPolicy) -> RetryPolicy,
) -> Option<RetryPolicy> {
    (retries.attempts > 0).then(|| finish(policy(retries, &retries.retry_on)))
}

/// Another try goes to another endpoint, where there is one.
fn elsewhere(policy: RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            ))),
        }],
        host_selection_retry_max_attempts: 5,
        ..policy
    }
}

/// A route's own retries; the conditions are the mesh's where it has none.
fn retries(own: &Retries, default: &Retries) -> RetryPolicy {
    if own.attempts == 0 {
        // An empty policy takes the place of the virtual host's.
        return RetryPolicy { num_retries: number(0), ..RetryPolicy::default() };
    }
    let conditions = if own.retry_on.is_empty() { &default.retry_on } else { &own.retry_on };
    elsewhere(policy(own, conditions))
}

fn policy(retries: &Retries, conditions: &str) -> RetryPolicy {
    // Status codes may stand among the conditions; Envoy wants them apart.
    let parts = conditions.split(',').map(str::trim).filter(|p| !p.is_empty());
    let (codes, mut conditions): (Vec<&str>, Vec<&str>) =
        parts.partition(|p| p.parse::<u32>().is_ok());
    if !codes.is_empty() && !conditions.contains(&"retriable-status-codes") {
        conditions.push("retriable-status-codes");
    }
    RetryPolicy {
        retry_on: conditions.join(","),
        num_retries: number(retries.attempts),
        per_try_timeout: retries.per_try_timeout.and_then(duration),
        retriable_status_codes: codes.iter().filter_map(|c| c.parse().ok()).collect(),
        ..RetryPolicy::default()
    }
}
