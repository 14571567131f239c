//! TLS between workloads, and of gateways towards the outside.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::{
    config::core::v3::TransportSocket,
    extensions::transport_sockets::{
        raw_buffer::v3::RawBuffer,
        tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::message::{
    from_ads, from_agent, no, string, transport_socket, trust_domain_prefix, yes,
};
use crate::{
    identity::SpiffeId,
    mesh::{MeshConfig, TlsVersions},
};

const TLS: &str = "envoy.transport_sockets.tls";

/// Mesh TLS towards `identities`; where there are none known, towards anybody of the trust domain.
pub fn to_mesh(
    sni: String,
    identities: &BTreeSet<SpiffeId>,
    config: &MeshConfig,
) -> TransportSocket {
    let accepted = if identities.is_empty() {
        anybody(config)
    } else {
        let known = |id: &SpiffeId| {
            let aliases = config.trust_domain_aliases.iter().cloned();
            let same = |trust_domain| SpiffeId { trust_domain, ..id.clone() };
            std::iter::once(id.clone()).chain(aliases.map(same)).collect::<Vec<_>>()
        };
        let all = identities.iter().flat_map(known);
        all.map(|id| string(MatchPattern::Exact(id.to_string()))).collect()
    };
    // No ALPN: Envoy's HTTP pools offer the version they speak, and TCP has none to offer.
    let context = UpstreamTlsContext {
        common_tls_context: Some(workload_identity(accepted, Vec::new(), config)),
        sni,
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

/// Mesh TLS from any workload of the trust domain.
pub fn from_mesh(config: &MeshConfig) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(workload_identity(anybody(config), http_versions(), config)),
        require_client_certificate: yes(),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

/// TLS that a gateway terminates, with certificates from the control plane.
pub fn from_outside(secrets: impl Iterator<Item = String>, config: &MeshConfig) -> TransportSocket {
    let secret = |name| SdsSecretConfig { name, sds_config: Some(from_ads()) };
    let common = CommonTlsContext {
        tls_params: Some(versions(&config.other_tls)),
        tls_certificate_sds_secret_configs: secrets.map(secret).collect(),
        alpn_protocols: http_versions(),
        ..CommonTlsContext::default()
    };
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: no(),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS, &context)
}

pub fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}

fn http_versions() -> Vec<String> {
    vec!["h2".to_owned(), "http/1.1".to_owned()]
}

/// Any workload of the trust domain or its aliases.
fn anybody(config: &MeshConfig) -> Vec<StringMatcher> {
    let domains = std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
    domains.map(|domain| trust_domain_prefix(domain)).collect()
}

fn versions(wanted: &TlsVersions) -> TlsParameters {
    let oldest = if wanted.newest_only { TlsProtocol::TlSv13 } else { TlsProtocol::TlSv12 };
    TlsParameters {
        tls_minimum_protocol_version: oldest.into(),
        cipher_suites: wanted.ciphers.clone(),
        ecdh_curves: wanted.curves.clone(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..TlsParameters::default()
    }
}

/// The workload's own certificate and roots, which the agent provides, and who is accepted.
fn workload_identity(
    accepted: Vec<StringMatcher>,
    alpn: Vec<String>,
    config: &MeshConfig,
) -> CommonTlsContext {
    let secret =
        |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: Some(from_agent()) };
    let matchers = accepted.into_iter().map(|matcher| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(matcher),
        oid: String::new(),
    });
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: matchers.collect(),
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..CombinedCertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_params: Some(versions(&config.mesh_tls)),
        tls_certificate_sds_secret_configs: vec![secret("default")],
        alpn_protocols: alpn,
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}
