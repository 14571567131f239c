//! What gateways listen on.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChain, FilterChainMatch, Listener},
};

use super::{
    Encoded, cluster,
    http::{self, Clients, Observed, Routes},
    listener as parts,
    message::{number, seconds},
    names, route,
    secret::{self, Secrets},
    telemetry::{self, Reporter},
    tls, tracing,
};
use crate::{
    diagnostic::Diagnostic,
    mesh::{Host, Key},
    plan::{GatewayPlan, GatewayServes, TableName, TlsChain},
    xds::Resource,
};

/// Strangers' connections may not pile up much in memory.
const BUFFER_BYTES: u32 = 32 * 1024;

/// A gateway's resources. Also says which Secrets cannot be served with: only here are they read.
pub fn gateway(plan: &GatewayPlan, secrets: &Secrets) -> (Encoded, Vec<Diagnostic>) {
    let mut encoded = Encoded::default();
    let mut diagnostics = Vec::new();
    cluster::insert_well_known(&mut encoded.clusters, &plan.config);
    for cluster in plan.clusters.values() {
        encoded.clusters.insert_encoded(cluster::service(cluster, &plan.config, true));
    }
    let usable = usable(plan, secrets, &mut diagnostics);
    let mut served = BTreeSet::new();
    for (port, listener) in &plan.listeners {
        let chains = match &listener.serves {
            GatewayServes::Http { routes } => {
                served.insert(routes);
                vec![FilterChain { filters: vec![manager(plan, routes)], ..chain("http", &[]) }]
            }
            GatewayServes::Https(chains) => {
                let chains: Vec<_> = chains.iter().filter_map(|c| usable_of(c, &usable)).collect();
                served.extend(chains.iter().map(|(chain, _)| &chain.routes));
                chains.iter().map(|(chain, names)| https(plan, chain, names)).collect()
            }
        };
        if !chains.is_empty() {
            encoded.listeners.insert(&self::listener(plan, *port, chains));
        }
    }
    for table in served.into_iter().filter_map(|name| plan.tables.get(name)) {
        encoded.routes.insert(&route::table(table, &plan.config));
    }
    for resource in usable.into_values() {
        encoded.secrets.insert_encoded(resource);
    }
    (encoded, diagnostics)
}

/// The Secrets that the plan names and that can be served with.
fn usable(
    plan: &GatewayPlan,
    secrets: &Secrets,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Key, Resource> {
    let mut usable = BTreeMap::new();
    for listener in plan.listeners.values() {
        let GatewayServes::Https(chains) = &listener.serves else { continue };
        for chain in chains {
            for key in &chain.credentials {
                match secret::resource(key, secrets) {
                    Ok(resource) => drop(usable.insert(key.clone(), resource)),
                    Err(reason) => diagnostics.push(Diagnostic::error(
                        &chain.origin,
                        chain.path.clone(),
                        "InvalidCredential",
                        format!("Secret {key} cannot be used for TLS: {reason}"),
                    )),
                }
            }
        }
    }
    usable
}

/// A chain with the names of its usable Secrets; `None` where there are none. Envoy would wait for
/// a Secret that never comes, and the whole listener with it.
fn usable_of<'a>(
    chain: &'a TlsChain,
    usable: &BTreeMap<Key, Resource>,
) -> Option<(&'a TlsChain, Vec<String>)> {
    let keys = chain.credentials.iter().filter(|key| usable.contains_key(key));
    let names: Vec<_> = keys.map(names::secret).collect();
    (!names.is_empty()).then_some((chain, names))
}

fn listener(plan: &GatewayPlan, port: u16, chains: Vec<FilterChain>) -> Listener {
    let needs_server_name = chains.iter().any(|chain| {
        chain.filter_chain_match.as_ref().is_some_and(|looks| !looks.server_names.is_empty())
    });
    Listener {
        listener_filters: needs_server_name
            .then(|| parts::tls_inspector(&[]))
            .into_iter()
            .collect(),
        listener_filters_timeout: seconds(10),
        filter_chains: chains,
        per_connection_buffer_limit_bytes: number(BUFFER_BYTES),
        tcp_keepalive: Some(parts::keepalive(&plan.config)),
        ..parts::listener(
            names::listener(None, port),
            &parts::every_address(plan.families),
            port,
            TrafficDirection::Outbound,
        )
    }
}

fn https(plan: &GatewayPlan, tls_chain: &TlsChain, secrets: &[String]) -> FilterChain {
    FilterChain {
        filters: vec![manager(plan, &tls_chain.routes)],
        transport_socket: Some(tls::from_outside(secrets.iter().cloned(), &plan.config)),
        // Else a client that never finishes its handshake is kept for ever.
        transport_socket_connect_timeout: seconds(10),
        ..chain(&tls_chain.server, &tls_chain.hosts)
    }
}

fn chain(name: &str, server_names: &[Host]) -> FilterChain {
    let looks = FilterChainMatch {
        server_names: server_names.iter().map(ToString::to_string).collect(),
        ..FilterChainMatch::default()
    };
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: (!server_names.is_empty()).then_some(looks),
        ..FilterChain::default()
    }
}

fn manager(
    plan: &GatewayPlan,
    routes: &TableName,
) -> envoy_types::pb::envoy::config::listener::v3::Filter {
    let observed = Observed {
        logs: telemetry::of_requests(&Reporter::Source, &plan.config),
        tracing: tracing::of(&plan.config, &plan.traced_as),
    };
    let prefix = names::table(routes);
    http::filter(prefix, Routes::Discovered(routes), Clients::World, observed, &plan.config)
}
