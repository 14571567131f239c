//! The small pieces that Envoy's messages are made of.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource,
            GrpcService, SocketAddress, TransportSocket, address, api_config_source,
            config_source::ConfigSourceSpecifier,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            socket_address::PortSpecifier,
            transport_socket,
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{Any, BoolValue, Duration as PbDuration, UInt32Value},
};
use prost::{Message, Name};

use super::names;

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

#[expect(clippy::unnecessary_wraps, reason = "fields of Envoy's messages are optional")]
pub(super) fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

#[expect(clippy::unnecessary_wraps, reason = "fields of Envoy's messages are optional")]
pub(super) fn no() -> Option<BoolValue> {
    Some(BoolValue { value: false })
}

#[expect(clippy::unnecessary_wraps, reason = "fields of Envoy's messages are optional")]
pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[expect(clippy::unnecessary_wraps, reason = "fields of Envoy's messages are optional")]
pub(super) fn duration(value: Duration) -> Option<PbDuration> {
    Some(PbDuration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    })
}

pub(super) fn seconds(value: u64) -> Option<PbDuration> {
    duration(Duration::from_secs(value))
}

pub(super) fn address(ip: IpAddr, port: u16) -> Address {
    Address { address: Some(address::Address::SocketAddress(socket_address(ip, port))) }
}

pub(super) fn socket_address(ip: IpAddr, port: u16) -> SocketAddress {
    SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    }
}

pub(super) fn dns_address(host: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

/// From the control plane. Without a timeout: a listener that started before its routes arrived
/// would answer 404 for services that exist.
pub(super) fn from_ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: seconds(0),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// From the agent in the same pod, which holds the workload's identity.
pub(super) fn from_agent() -> ConfigSource {
    let grpc = EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..EnvoyGrpc::default() };
    let api = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
            ..GrpcService::default()
        }],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    ConfigSource {
        initial_fetch_timeout: seconds(0),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(api)),
        ..ConfigSource::default()
    }
}

pub(super) fn transport_socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(config))),
    }
}

pub(super) fn regex(regex: String) -> RegexMatcher {
    RegexMatcher { regex, ..RegexMatcher::default() }
}

pub(super) fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// The beginning of all identities of a trust domain.
pub(super) fn trust_domain_prefix(trust_domain: &str) -> StringMatcher {
    string(MatchPattern::Prefix(format!("spiffe://{trust_domain}/")))
}

/// The server name pattern of mesh TLS.
pub(super) fn mesh_server_names() -> Vec<String> {
    vec![format!("*{}", names::MESH_SNI_SUFFIX)]
}
