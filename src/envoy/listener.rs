//! What all listeners are made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::AccessLog,
            core::v3::{TcpKeepalive, TrafficDirection},
            listener::v3::{
                AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter,
                ListenerFilterChainMatchPredicate, filter, listener_filter,
                listener_filter_chain_match_predicate::{MatchSet, Rule},
            },
        },
        extensions::filters::{
            listener::{
                http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
                original_src::v3::OriginalSrc, tls_inspector::v3::TlsInspector,
            },
            network::tcp_proxy::v3::{
                TcpProxy, UpstreamConnectMode,
                tcp_proxy::{ClusterSpecifier, TcpAccessLogOptions},
            },
        },
        r#type::v3::Int32Range,
    },
    google::protobuf::Any,
};

use super::message::{address, any, number, seconds};
use crate::{mesh::MeshConfig, plan::Families};

/// What the HTTP inspector calls plaintext HTTP.
pub const PLAIN_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];
/// What mesh TLS negotiates for HTTP.
pub const MESH_HTTP: [&str; 2] = ["h2", "http/1.1"];

/// A listener on `addresses`, all with one port.
pub fn listener(name: String, addresses: &[IpAddr], port: u16, way: TrafficDirection) -> Listener {
    let mut addresses = addresses.iter().map(|ip| address(*ip, port));
    Listener {
        name,
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..Default::default() })
            .collect(),
        traffic_direction: way.into(),
        ..Listener::default()
    }
}

/// Every address of the families that the proxy has.
pub fn every_address(families: Families) -> Vec<IpAddr> {
    let v4 = families.v4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let v6 = families.v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    v4.into_iter().chain(v6).collect()
}

/// Notices peers that went away without a word.
pub fn keepalive(config: &MeshConfig) -> TcpKeepalive {
    let keepalive = config.keepalive;
    TcpKeepalive {
        keepalive_probes: number(keepalive.probes),
        keepalive_time: number(keepalive.time),
        keepalive_interval: number(keepalive.interval),
    }
}

pub fn original_destination() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", any(&OriginalDst {}))
}

/// Connections go on from their client's address, in packets with this mark.
pub fn original_source(mark: u32) -> ListenerFilter {
    let filter = OriginalSrc { mark, ..OriginalSrc::default() };
    listener_filter("envoy.filters.listener.original_src", any(&filter))
}

/// Looks for a TLS handshake, but on these ports.
pub fn tls_inspector(but: &[u16]) -> ListenerFilter {
    let inspector =
        listener_filter("envoy.filters.listener.tls_inspector", any(&TlsInspector::default()));
    ListenerFilter { filter_disabled: any_port_of(but), ..inspector }
}

/// Looks for HTTP, but on these ports.
pub fn http_inspector(but: &[u16]) -> ListenerFilter {
    let inspector =
        listener_filter("envoy.filters.listener.http_inspector", any(&HttpInspector::default()));
    ListenerFilter { filter_disabled: any_port_of(but), ..inspector }
}

fn listener_filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        filter_disabled: None,
    }
}

fn any_port_of(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let predicate = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| {
            let start = i32::from(*port);
            predicate(Rule::DestinationPortRange(Int32Range { start, end: start + 1 }))
        })
        .collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(predicate(Rule::OrMatch(MatchSet { rules }))),
    }
}

/// A chain for connections that look like this.
pub fn chain(name: String, looks: FilterChainMatch, filter: Filter) -> FilterChain {
    FilterChain {
        name,
        filter_chain_match: Some(looks),
        filters: vec![filter],
        ..FilterChain::default()
    }
}

pub fn on_port(port: Option<u16>) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: port.and_then(|port| number(port.into())),
        ..FilterChainMatch::default()
    }
}

pub fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Everything to one cluster, byte by byte.
pub fn tcp_proxy(stat_prefix: String, cluster: String, access_log: Vec<AccessLog>) -> Filter {
    tcp_filter(&tcp(stat_prefix, cluster, access_log))
}

/// The same behind TLS: who has not shown a certificate yet does not even reach the application.
pub fn tcp_proxy_after_handshake(
    stat_prefix: String,
    cluster: String,
    access_log: Vec<AccessLog>,
) -> Filter {
    tcp_filter(&TcpProxy {
        upstream_connect_mode: UpstreamConnectMode::OnDownstreamTlsHandshake.into(),
        max_early_data_bytes: number(0),
        ..tcp(stat_prefix, cluster, access_log)
    })
}

fn tcp(stat_prefix: String, cluster: String, access_log: Vec<AccessLog>) -> TcpProxy {
    TcpProxy {
        stat_prefix,
        access_log,
        // Counts connections when they begin, not only when they end.
        access_log_options: Some(TcpAccessLogOptions {
            flush_access_log_on_connected: true,
            ..TcpAccessLogOptions::default()
        }),
        // A connection may be silent for as long as its two ends like; peers that are gone are
        // found by keepalives.
        idle_timeout: seconds(0),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..TcpProxy::default()
    }
}

fn tcp_filter(proxy: &TcpProxy) -> Filter {
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(proxy))),
    }
}
