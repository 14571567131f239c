//! What sidecars listen on for connections to their application.
//!
//! Envoy picks a chain by destination port first, then server name, transport protocol, application
//! protocol, and never goes back: once a port (or a transport) has a chain of its own, what fits
//! none of that port's chains is closed. So each port lists all that it accepts.

use std::time::Duration;

use envoy_types::pb::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChain, FilterChainMatch, Listener},
};

use super::{
    Encoded, cluster,
    http::{self, Clients, Observed, Routes},
    listener::{self as parts, MESH_HTTP, PLAIN_HTTP},
    message::{duration, mesh_server_names, seconds, yes},
    names, route,
    telemetry::{self, Reporter},
    tls, tracing,
};
use crate::{
    mesh::{InboundTraffic, Interception, PeerTls, Protocol},
    plan::{InboundPlan, InboundPort, UpstreamProtocol},
};

/// Where the redirection rules send all inbound connections.
const PORT: u16 = 15006;
/// The redirection rules let packets with this mark through to the application, and bring what it
/// answers back.
const CLIENTS_MARK: u32 = 1337;

pub fn inbound(plan: &InboundPlan) -> Encoded {
    let mut encoded = Encoded::default();
    let config = &plan.config;
    let families = (plan.interception == Interception::Redirect).then_some(plan.families);
    for (port, inbound) in &plan.ports {
        let protocol = match inbound.protocol {
            Protocol::Tcp | Protocol::ServerFirst | Protocol::Tls | Protocol::Udp => {
                UpstreamProtocol::Tcp
            }
            // The application hears what its clients say, as it would without a mesh.
            _ => UpstreamProtocol::AsDownstream,
        };
        let name = names::inbound_cluster(*port);
        let mut cluster = if at_loopback(plan) {
            cluster::local_application(name, protocol, plan.families, *port, config)
        } else {
            cluster::application(name, protocol, families, config)
        };
        cluster.alt_stat_name = inbound.stat_name.clone().unwrap_or_default();
        encoded.clusters.insert(&cluster);
    }
    encoded.clusters.insert(&cluster::application(
        names::INBOUND_PASSTHROUGH.to_owned(),
        UpstreamProtocol::AsDownstream,
        families,
        config,
    ));
    for cluster in plan.clusters.values() {
        encoded.clusters.insert_encoded(cluster::service(cluster, config, false));
    }
    encoded.clusters.insert_encoded(cluster::black_hole(config));
    encoded.listeners.insert(&virtual_inbound(plan));
    encoded
}

/// Whether the application is reached at the loopback address. A transparent proxy goes on in its
/// client's name, which nobody can at that address.
fn at_loopback(plan: &InboundPlan) -> bool {
    plan.config.inbound == InboundTraffic::Localhost && plan.interception == Interception::Redirect
}

pub fn virtual_inbound(plan: &InboundPlan) -> Listener {
    // Somebody who connects to this port itself would be connected to this port, and so on.
    let direct = parts::chain(
        "direct".to_owned(),
        parts::on_port(Some(PORT)),
        parts::tcp_proxy(names::BLACK_HOLE.to_owned(), names::BLACK_HOLE.to_owned(), Vec::new()),
    );
    let others = InboundPort {
        protocol: Protocol::Detect,
        tls: plan.other_ports,
        service: None,
        stat_name: None,
    };
    let ports =
        plan.ports.iter().map(|(number, port)| Chains { plan, number: Some(*number), port });
    let others = Chains { plan, number: None, port: &others };
    let without = |needs: fn(&InboundPort) -> bool| -> Vec<u16> {
        plan.ports.iter().filter(|(_, port)| !needs(port)).map(|(number, _)| *number).collect()
    };
    // A plaintext client that waits for the server to speak waits this long for nothing: TLS is
    // looked for, and it says nothing. Where there are such ports the wait is short; elsewhere it is
    // long enough for a busy machine not to take a late handshake for plaintext.
    let first_bytes = Duration::from_secs(if plan.has_waiting_clients() { 1 } else { 5 });
    let first_bytes = plan.config.detection_timeout.unwrap_or(first_bytes);
    let transparent = plan.interception == Interception::Tproxy;
    Listener {
        transparent: transparent.then(yes).flatten(),
        listener_filters: std::iter::once(parts::original_destination())
            .chain(transparent.then(|| parts::original_source(CLIENTS_MARK)))
            .chain([
                parts::tls_inspector(&without(looks_for_tls)),
                parts::http_inspector(&without(looks_for_http)),
            ])
            .collect(),
        listener_filters_timeout: duration(first_bytes),
        continue_on_listener_filters_timeout: true,
        filter_chains: std::iter::once(direct)
            .chain(ports.flat_map(|port| port.all()))
            .chain(others.all())
            .collect(),
        tcp_keepalive: Some(parts::keepalive(&plan.config)),
        ..parts::listener(
            names::VIRTUAL_INBOUND.to_owned(),
            &parts::every_address(plan.families),
            PORT,
            TrafficDirection::Inbound,
        )
    }
}

/// Whether the port's chains ask if a connection is TLS. A port that accepts nothing but mesh TLS
/// needs not ask: what is none fails the handshake.
fn looks_for_tls(port: &InboundPort) -> bool {
    match port.tls {
        PeerTls::Permissive => true,
        PeerTls::Strict | PeerTls::Disabled => port.protocol == Protocol::Detect,
    }
}

fn looks_for_http(port: &InboundPort) -> bool {
    port.protocol == Protocol::Detect && port.tls != PeerTls::Strict
}

/// The chains of one port, or of all that have none of their own.
struct Chains<'a> {
    plan: &'a InboundPlan,
    number: Option<u16>,
    port: &'a InboundPort,
}

impl Chains<'_> {
    fn all(&self) -> Vec<FilterChain> {
        let plain = FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            ..parts::on_port(self.number)
        };
        let plain_http =
            FilterChainMatch { application_protocols: parts::texts(&PLAIN_HTTP), ..plain.clone() };
        let anything = || parts::on_port(self.number);
        let tls = FilterChainMatch { transport_protocol: "tls".to_owned(), ..anything() };
        let mesh = FilterChainMatch { server_names: mesh_server_names(), ..tls.clone() };
        let over_http = |looks: &FilterChainMatch| FilterChainMatch {
            application_protocols: parts::texts(&MESH_HTTP),
            ..looks.clone()
        };
        let is_http = self.port.protocol.is_http();
        let detects = self.port.protocol == Protocol::Detect;
        match self.port.tls {
            PeerTls::Strict if detects => {
                vec![self.mesh_http(over_http(&tls)), self.mesh_tcp(tls)]
            }
            PeerTls::Strict if is_http => vec![self.mesh_http(anything())],
            PeerTls::Strict => vec![self.mesh_tcp(anything())],
            PeerTls::Permissive if detects => vec![
                self.mesh_http(over_http(&mesh)),
                self.mesh_tcp(mesh),
                self.plain_http(plain_http),
                self.plain_tcp("tcp", plain),
                self.plain_tcp("foreign-tls", tls),
            ],
            PeerTls::Permissive if is_http => vec![
                self.mesh_http(mesh),
                self.plain_http(plain),
                self.plain_tcp("foreign-tls", tls),
            ],
            PeerTls::Permissive => {
                vec![self.mesh_tcp(mesh), self.plain_tcp("tcp", anything())]
            }
            PeerTls::Disabled if detects => vec![
                self.plain_http(plain_http),
                self.plain_tcp("tcp", plain),
                self.plain_tcp("foreign-tls", tls),
            ],
            PeerTls::Disabled if is_http => vec![self.plain_http(anything())],
            PeerTls::Disabled => vec![self.plain_tcp("tcp", anything())],
        }
    }

    fn mesh_http(&self, looks: FilterChainMatch) -> FilterChain {
        self.secured(self.http("mesh-http", looks, Clients::Mesh))
    }

    fn mesh_tcp(&self, looks: FilterChainMatch) -> FilterChain {
        self.secured(self.tcp("mesh-tcp", looks, true))
    }

    fn plain_http(&self, looks: FilterChainMatch) -> FilterChain {
        self.http("http", looks, Clients::Cluster)
    }

    fn plain_tcp(&self, name: &str, looks: FilterChainMatch) -> FilterChain {
        self.tcp(name, looks, false)
    }

    fn secured(&self, chain: FilterChain) -> FilterChain {
        let socket = tls::from_mesh(&self.plan.config);
        FilterChain {
            transport_socket: Some(socket),
            // Else who never begins a handshake keeps a connection for ever.
            transport_socket_connect_timeout: seconds(10),
            ..chain
        }
    }

    fn http(&self, name: &str, looks: FilterChainMatch, clients: Clients) -> FilterChain {
        let config = &self.plan.config;
        let port = self.port_text();
        let host = format!("inbound|http|{port}");
        let routes = route::to_application(host, self.cluster(), &config.inbound_retries);
        let observed = Observed {
            logs: telemetry::of_requests(&self.reporter(clients == Clients::Mesh), config),
            tracing: tracing::of(config, &self.plan.traced_as),
        };
        let routes = Routes::Inline(Box::new(routes));
        let manager = http::filter(format!("inbound_{port}"), routes, clients, observed, config);
        parts::chain(self.name(name), looks, manager)
    }

    fn tcp(&self, name: &str, looks: FilterChainMatch, mutual_tls: bool) -> FilterChain {
        let logs = telemetry::of_connections(&self.reporter(mutual_tls), &self.plan.config);
        let proxy = if mutual_tls { parts::tcp_proxy_after_handshake } else { parts::tcp_proxy };
        let proxy = proxy(format!("inbound_{}", self.port_text()), self.cluster(), logs);
        parts::chain(self.name(name), looks, proxy)
    }

    fn cluster(&self) -> String {
        self.number.map_or_else(|| names::INBOUND_PASSTHROUGH.to_owned(), names::inbound_cluster)
    }

    fn port_text(&self) -> String {
        self.number.map_or_else(|| "other".to_owned(), |number| number.to_string())
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.port_text())
    }

    fn reporter(&self, mutual_tls: bool) -> Reporter<'_> {
        Reporter::Destination {
            workload: &self.plan.workload,
            namespace: &self.plan.namespace,
            service: self.port.service.as_ref(),
            mutual_tls,
        }
    }
}
