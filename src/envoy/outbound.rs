//! What sidecars listen on for their applications' connections.

use std::time::Duration;

use envoy_types::pb::envoy::config::{
    core::v3::{CidrRange, TrafficDirection},
    listener::v3::{Filter, FilterChain, FilterChainMatch, Listener},
};

use super::{
    Encoded, cluster,
    http::{self, Clients, Observed, Routes},
    listener::{self as parts, PLAIN_HTTP},
    message::{duration, no, number, yes},
    names, route,
    telemetry::{self, Reporter},
    tracing,
};
use crate::{
    mesh::MeshConfig,
    plan::{Claim, ClusterId, Families, OutboundListener, OutboundPlan, Serves, TableName},
};

/// Where the redirection rules send all outbound connections.
const PORT: u16 = 15001;
/// How long a client may take to say something before its connection counts as TCP. Most speak at
/// once; for those that wait for the server it is the delay of their connections.
const FIRST_BYTES: Duration = Duration::from_secs(3);

pub fn outbound(plan: &OutboundPlan) -> Encoded {
    let mut encoded = Encoded::default();
    cluster::insert_well_known(&mut encoded.clusters, &plan.config);
    for cluster in plan.clusters.values() {
        encoded.clusters.insert_encoded(cluster::service(cluster, &plan.config, false));
    }
    for table in plan.tables.values() {
        encoded.routes.insert(&route::table(table, &plan.config));
    }
    let families = plan.families();
    encoded.listeners.insert(&virtual_outbound(&plan.unclaimed, &plan.config, families));
    for one in &plan.listeners {
        encoded.listeners.insert(&listener(one, plan));
    }
    encoded
}

/// The listener that all connections come in by. It hands each to the listener of its original
/// destination, and keeps those that have none.
pub fn virtual_outbound(
    unclaimed: &ClusterId,
    config: &MeshConfig,
    families: Families,
) -> Listener {
    // Somebody who connects to this port itself would be connected to this port, and so on.
    let direct = parts::chain(
        "direct".to_owned(),
        parts::on_port(Some(PORT)),
        parts::tcp_proxy(names::BLACK_HOLE.to_owned(), names::BLACK_HOLE.to_owned(), Vec::new()),
    );
    let otherwise = FilterChain {
        name: "otherwise".to_owned(),
        filters: vec![to_cluster(unclaimed, config)],
        ..FilterChain::default()
    };
    Listener {
        use_original_dst: yes(),
        filter_chains: vec![direct],
        default_filter_chain: Some(otherwise),
        ..parts::listener(
            names::VIRTUAL_OUTBOUND.to_owned(),
            &parts::every_address(families),
            PORT,
            TrafficDirection::Outbound,
        )
    }
}

/// The listener of some addresses, or of all.
pub fn listener(one: &OutboundListener, plan: &OutboundPlan) -> Listener {
    let (config, families) = (&plan.config, plan.families());
    let addresses = if one.addresses.is_empty() {
        parts::every_address(families)
    } else {
        one.addresses.clone()
    };
    let name = names::listener(one.addresses.first(), one.port);
    let listener = Listener {
        bind_to_port: no(),
        ..parts::listener(name.clone(), &addresses, one.port, TrafficDirection::Outbound)
    };
    match &one.serves {
        // Nothing looks at these connections, so nothing waits for their first bytes.
        Serves::Tcp(cluster) => Listener {
            filter_chains: vec![FilterChain {
                name: "tcp".to_owned(),
                filters: vec![to_cluster(cluster, config)],
                ..FilterChain::default()
            }],
            ..listener
        },
        Serves::Inspected { routes, claims, otherwise } => {
            let http = routes.as_ref().map(|routes| http_chain(&name, routes, plan));
            let claimed = claims.iter().map(|claim| claimed_chain(claim, config));
            let looks_at_tls = http.is_some() || claims.iter().any(|c| c.server_name.is_some());
            let tls = looks_at_tls.then(|| parts::tls_inspector(&[]));
            let inspectors =
                tls.into_iter().chain(http.as_ref().map(|_| parts::http_inspector(&[])));
            Listener {
                listener_filters: inspectors.collect(),
                listener_filters_timeout: duration(config.detection_timeout.unwrap_or(FIRST_BYTES)),
                continue_on_listener_filters_timeout: true,
                filter_chains: http.into_iter().chain(claimed).collect(),
                default_filter_chain: Some(FilterChain {
                    name: "otherwise".to_owned(),
                    filters: vec![to_cluster(otherwise, config)],
                    ..FilterChain::default()
                }),
                ..listener
            }
        }
    }
}

/// Connections that speak HTTP.
fn http_chain(listener: &str, routes: &TableName, plan: &OutboundPlan) -> FilterChain {
    let looks = FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: parts::texts(&PLAIN_HTTP),
        ..FilterChainMatch::default()
    };
    let observed = Observed {
        logs: telemetry::of_requests(&Reporter::Source, &plan.config),
        tracing: tracing::of(&plan.config, &plan.traced_as),
    };
    let name = format!("outbound_{listener}");
    let routes = Routes::Discovered(routes);
    let manager = http::filter(name, routes, Clients::Application, observed, &plan.config);
    parts::chain("http".to_owned(), looks, manager)
}

/// Connections to some addresses, or with some server name.
fn claimed_chain(claim: &Claim, config: &MeshConfig) -> FilterChain {
    let range = claim.range.map(|range| CidrRange {
        address_prefix: range.address.to_string(),
        prefix_len: number(range.prefix.into()),
    });
    let looks = FilterChainMatch {
        prefix_ranges: range.into_iter().collect(),
        server_names: claim.server_name.iter().map(ToString::to_string).collect(),
        ..FilterChainMatch::default()
    };
    let range = claim.range.map(|range| range.to_string());
    let name: Vec<_> = range.as_deref().into_iter().chain(claim.server_name.as_deref()).collect();
    parts::chain(name.join(" "), looks, to_cluster(&claim.cluster, config))
}

fn to_cluster(id: &ClusterId, config: &MeshConfig) -> Filter {
    let name = names::cluster(id);
    let logs = telemetry::of_connections(&Reporter::Source, config);
    parts::tcp_proxy(name.clone(), name, logs)
}
