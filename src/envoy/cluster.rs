//! Clusters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster as PbCluster, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
                    LbPolicy, TransportSocketMatch,
                },
            },
            core::v3::{
                Address, BindConfig, ExtraSourceAddress, Http1ProtocolOptions,
                Http2ProtocolOptions, Metadata, TransportSocket,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    },
    google::protobuf::{Any, Struct, Value, value},
};
use prost::Message;

use super::{
    listener::keepalive,
    message::{address, any, dns_address, duration, from_ads, number, socket_address},
    names, ordered, tls,
};
use crate::{
    mesh::{LoadBalancing, MeshConfig},
    plan::{Cluster, Discovery, DnsTarget, Families, UpstreamProtocol, UpstreamTls},
    xds::{Resource, ResourceSet, resource::Discoverable},
};

/// The metadata namespace of what we tell Envoy about services and endpoints.
pub const METADATA: &str = "meshwright";

/// The metadata namespace by which Envoy chooses an endpoint's transport socket.
pub const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Gateways serve strangers: what one connection may pile up is bounded more tightly than in
/// sidecars, where Envoy's 1 MiB lets request bodies be kept for retries.
const GATEWAY_BUFFER_BYTES: u32 = 32 * 1024;

/// The cluster of a service, for `outbound` and `gateway` alike.
pub fn service(cluster: &Cluster, config: &MeshConfig, from_gateway: bool) -> Resource {
    let (kind, lb_policy) = match &cluster.discovery {
        Discovery::Endpoints(_) => (DiscoveryType::Eds, policy(cluster.load_balancing)),
        Discovery::ClientsChoice => (DiscoveryType::OriginalDst, LbPolicy::ClusterProvided),
        // Envoy takes one name there, no more and no less.
        Discovery::Dns { endpoints, first_only: true } if endpoints.len() == 1 => {
            (DiscoveryType::LogicalDns, policy(cluster.load_balancing))
        }
        Discovery::Dns { .. } => (DiscoveryType::StrictDns, policy(cluster.load_balancing)),
    };
    let mut message = base(names::cluster(&cluster.id), kind, lb_policy, config);
    message.alt_stat_name = cluster.stat_name.clone().unwrap_or_default();
    match &cluster.discovery {
        Discovery::Endpoints(name) => {
            message.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(from_ads()),
                service_name: name.to_string(),
            });
        }
        Discovery::Dns { endpoints, .. } => {
            message.load_assignment = Some(dns_endpoints(&message.name, endpoints));
            message.dns_lookup_family = DnsLookupFamily::All.into();
            set_dns_refresh(&mut message, config);
        }
        Discovery::ClientsChoice => {}
    }
    message.typed_extension_protocol_options = http_options(cluster.protocol);
    message.per_connection_buffer_limit_bytes =
        from_gateway.then_some(GATEWAY_BUFFER_BYTES).and_then(number);
    set_tls(&mut message, cluster, config);
    let key = &cluster.service;
    with_service(&message, &cluster.host, &key.name, &key.namespace)
}

/// The clusters that every sidecar's outbound side has.
pub fn insert_well_known(set: &mut ResourceSet, config: &MeshConfig) {
    set.insert_encoded(passthrough(config));
    set.insert_encoded(black_hole(config));
}

/// Wherever the client wanted to go, in whatever HTTP version it speaks.
fn passthrough(config: &MeshConfig) -> Resource {
    let name = names::PASSTHROUGH.to_owned();
    let mut cluster = base(name, DiscoveryType::OriginalDst, LbPolicy::ClusterProvided, config);
    cluster.typed_extension_protocol_options = http_options(UpstreamProtocol::AsDownstream);
    with_service(&cluster, "unknown", names::PASSTHROUGH, "unknown")
}

/// No endpoints: connections are closed, requests answered with 503.
pub fn black_hole(config: &MeshConfig) -> Resource {
    let name = names::BLACK_HOLE.to_owned();
    let cluster = base(name, DiscoveryType::Static, LbPolicy::RoundRobin, config);
    with_service(&cluster, "unknown", names::BLACK_HOLE, "unknown")
}

/// The application behind an inbound port, or behind any. The proxy comes from an address of its own
/// of these `families`, or, if there are none, in its client's name.
pub fn application(
    name: String,
    protocol: UpstreamProtocol,
    families: Option<Families>,
    config: &MeshConfig,
) -> PbCluster {
    let mut cluster = base(name, DiscoveryType::OriginalDst, LbPolicy::ClusterProvided, config);
    cluster.typed_extension_protocol_options = http_options(protocol);
    cluster.upstream_bind_config = families.map(own_addresses);
    cluster
}

/// The application at the loopback address of the first of these `families`.
pub fn local_application(
    name: String,
    protocol: UpstreamProtocol,
    families: Families,
    port: u16,
    config: &MeshConfig,
) -> PbCluster {
    let loopback: IpAddr =
        if families.v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let mut cluster = base(name, DiscoveryType::Static, LbPolicy::RoundRobin, config);
    let endpoint = lb_endpoint(address(loopback, port), None);
    cluster.load_assignment = Some(assignment(&cluster.name, vec![endpoint]));
    cluster.typed_extension_protocol_options = http_options(protocol);
    cluster
}

fn own_addresses(families: Families) -> BindConfig {
    // The redirection rules let connections from these addresses through to the application.
    let v4 = || socket_address([127, 0, 0, 6].into(), 0);
    let v6 = || socket_address([0, 0, 0, 0, 0, 0, 0, 6].into(), 0);
    let both = families.v4 && families.v6;
    BindConfig {
        source_address: Some(if families.v4 { v4() } else { v6() }),
        extra_source_addresses: both
            .then(|| ExtraSourceAddress { address: Some(v6()), socket_options: None })
            .into_iter()
            .collect(),
        ..BindConfig::default()
    }
}

fn base(name: String, kind: DiscoveryType, lb_policy: LbPolicy, config: &MeshConfig) -> PbCluster {
    PbCluster {
        name,
        connect_timeout: duration(config.connect_timeout),
        lb_policy: lb_policy.into(),
        circuit_breakers: Some(unlimited()),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive(config)),
            ..UpstreamConnectionOptions::default()
        }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        ..PbCluster::default()
    }
}

/// Envoy's own limits (1,024 connections and requests, three retries) would surprise people who
/// have asked for none.
fn unlimited() -> CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: number(u32::MAX),
        max_pending_requests: number(u32::MAX),
        max_requests: number(u32::MAX),
        max_retries: number(u32::MAX),
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

fn policy(load_balancing: LoadBalancing) -> LbPolicy {
    match load_balancing {
        LoadBalancing::RoundRobin => LbPolicy::RoundRobin,
        LoadBalancing::LeastRequest => LbPolicy::LeastRequest,
        LoadBalancing::Random => LbPolicy::Random,
    }
}

#[expect(deprecated, reason = "the type of cluster that has it instead is not in older Envoys")]
fn set_dns_refresh(message: &mut PbCluster, config: &MeshConfig) {
    message.dns_refresh_rate = config.dns_refresh.and_then(duration);
}

fn dns_endpoints(cluster: &str, targets: &[DnsTarget]) -> ClusterLoadAssignment {
    let endpoint = |target: &DnsTarget| {
        let metadata = target.meshed.then(|| Metadata {
            filter_metadata: [(SOCKET_MATCH.to_owned(), tls_mode(Some("istio")))].into(),
            ..Metadata::default()
        });
        lb_endpoint(dns_address(&target.host, target.port), metadata)
    };
    assignment(cluster, targets.iter().map(endpoint).collect())
}

fn lb_endpoint(address: Address, metadata: Option<Metadata>) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        metadata,
        ..LbEndpoint::default()
    }
}

fn assignment(cluster: &str, lb_endpoints: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

type Extensions = std::collections::HashMap<String, Any>;

fn http_options(protocol: UpstreamProtocol) -> Extensions {
    let http1 = Http1ProtocolOptions::default;
    let http2 = Http2ProtocolOptions::default;
    let explicit = |protocol| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })
    };
    let options = match protocol {
        UpstreamProtocol::Tcp => return Extensions::new(),
        UpstreamProtocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1())),
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        UpstreamProtocol::AsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                http3_protocol_options: None,
            })
        }
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        ..HttpProtocolOptions::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    Extensions::from([(name, any(&options))])
}

fn set_tls(message: &mut PbCluster, cluster: &Cluster, config: &MeshConfig) {
    let mesh = || tls::to_mesh(names::sni(&cluster.id), &cluster.identities, config);
    match cluster.tls {
        UpstreamTls::Never => {}
        UpstreamTls::Always => message.transport_socket = Some(mesh()),
        UpstreamTls::Auto => {
            message.transport_socket_matches = vec![
                socket_for("tlsMode-istio", Some("istio"), mesh()),
                socket_for("tlsMode-disabled", None, tls::plaintext()),
            ];
        }
    }
}

fn socket_for(
    name: &str,
    tls_mode: Option<&str>,
    transport_socket: TransportSocket,
) -> TransportSocketMatch {
    TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(self::tls_mode(tls_mode)),
        transport_socket: Some(transport_socket),
    }
}

fn tls_mode(mode: Option<&str>) -> Struct {
    let value = |mode: &str| Value { kind: Some(value::Kind::StringValue(mode.to_owned())) };
    let fields = mode.map(|mode| ("tlsMode".to_owned(), value(mode)));
    Struct { fields: fields.into_iter().collect() }
}

/// Encodes a cluster with what metrics say about its service.
fn with_service(cluster: &PbCluster, host: &str, name: &str, namespace: &str) -> Resource {
    let service = ordered::Struct::of_texts([
        ("host", host.to_owned()),
        ("name", name.to_owned()),
        ("namespace", namespace.to_owned()),
    ]);
    let metadata = ordered::ClusterMetadata {
        metadata: Some(ordered::Metadata {
            filter_metadata: [(METADATA.to_owned(), service)].into(),
        }),
    };
    let mut body = cluster.encode_to_vec();
    metadata.encode_raw(&mut body);
    Resource::from_encoded(&cluster.name, body).waiting_for(cluster.warmed_by())
}
