//! Where spans go, and what they carry.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{
            GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri,
            header_value_option::HeaderAppendAction, http_uri::HttpUpstreamType,
        },
        trace::v3::{
            OpenTelemetryConfig, ZipkinConfig,
            tracing::{Http, http::ConfigType},
            zipkin_config::CollectorEndpointVersion,
        },
    },
    extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing,
    r#type::{
        tracing::v3::{
            CustomTag,
            custom_tag::{Environment, Header, Literal, Type},
        },
        v3::Percent,
    },
};

use super::{
    access_log,
    message::{any, duration, no, number},
    names,
};
use crate::mesh::{Collector, MeshConfig, TagValue, Tracer};

/// How long spans may take to be sent by HTTP, as Istio has it.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);

/// Tracing of a connection manager; `None` where nobody wants traces.
pub(super) fn of(config: &MeshConfig, traced_as: &str) -> Option<Tracing> {
    let tracing = config.tracing.as_ref()?;
    let own = tracing.tags.iter().map(|(name, value)| tag(name, value));
    let percent = |value| Some(Percent { value });
    Some(Tracing {
        // Who comes with a trace of its own decides for itself.
        client_sampling: percent(100.0),
        random_sampling: percent(f64::from(tracing.sampling) / 100.0),
        overall_sampling: percent(100.0),
        max_path_tag_length: number(tracing.max_path_length),
        custom_tags: standard_tags(config).into_iter().chain(own).collect(),
        provider: Some(provider(&tracing.tracer, traced_as)),
        ..Tracing::default()
    })
}

/// Istio's tags, as far as a proxy knows them. A plan is shared by many workloads: who they are comes
/// from their environment.
fn standard_tags(config: &MeshConfig) -> Vec<CustomTag> {
    let environment =
        |name: &str| TagValue::Environment { name: name.to_owned(), default: String::new() };
    let all = [
        ("istio.canonical_service", environment("MESHWRIGHT_WORKLOAD")),
        ("istio.mesh_id", TagValue::Literal(config.trust_domain.clone())),
        ("istio.namespace", environment("POD_NAMESPACE")),
    ];
    let tracing = config.tracing.as_ref();
    let taken = |name: &str| tracing.is_some_and(|tracing| tracing.tags.contains_key(name));
    let left = all.iter().filter(|(name, _)| !taken(name));
    left.map(|(name, value)| tag(name, value)).collect()
}

fn tag(name: &str, value: &TagValue) -> CustomTag {
    let value = match value.clone() {
        TagValue::Literal(value) => Type::Literal(Literal { value }),
        TagValue::Environment { name, default } => {
            Type::Environment(Environment { name, default_value: default })
        }
        TagValue::Header { name, default } => {
            Type::RequestHeader(Header { name, default_value: default })
        }
    };
    CustomTag { tag: name.to_owned(), r#type: Some(value) }
}

fn provider(tracer: &Tracer, traced_as: &str) -> Http {
    let (name, config) = match tracer {
        Tracer::Zipkin { collector, path, wide_trace_ids } => {
            ("envoy.tracers.zipkin", any(&zipkin(collector, path, *wide_trace_ids)))
        }
        Tracer::OpenTelemetry { collector, http_path, timeout, headers } => {
            let mut config = OpenTelemetryConfig {
                service_name: traced_as.to_owned(),
                ..OpenTelemetryConfig::default()
            };
            match http_path {
                Some(path) => config.http_service = Some(http(collector, path, *timeout, headers)),
                None => config.grpc_service = Some(grpc(collector, *timeout, headers)),
            }
            ("envoy.tracers.opentelemetry", any(&config))
        }
    };
    Http { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn zipkin(collector: &Collector, path: &str, wide_trace_ids: bool) -> ZipkinConfig {
    ZipkinConfig {
        collector_cluster: names::collector(collector),
        collector_endpoint: path.to_owned(),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
        collector_hostname: collector.host.to_string(),
        trace_id_128bit: wide_trace_ids,
        // Both ends of a call have a span of their own.
        shared_span_context: no(),
        ..ZipkinConfig::default()
    }
}

fn http(
    collector: &Collector,
    path: &str,
    timeout: Option<Duration>,
    headers: &[(String, String)],
) -> HttpService {
    let add = |header| HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    HttpService {
        http_uri: Some(HttpUri {
            uri: format!("http://{}:{}{path}", collector.host, collector.port),
            timeout: duration(timeout.unwrap_or(HTTP_TIMEOUT)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(names::collector(collector))),
        }),
        request_headers_to_add: headers.iter().map(header).map(add).collect(),
        ..HttpService::default()
    }
}

fn grpc(
    collector: &Collector,
    timeout: Option<Duration>,
    headers: &[(String, String)],
) -> GrpcService {
    GrpcService {
        timeout: timeout.and_then(duration),
        initial_metadata: headers.iter().map(header).collect(),
        ..access_log::grpc(collector)
    }
}

/// Values mean what they say; Envoy takes a lone `%` for the beginning of a command.
fn header((name, value): &(String, String)) -> HeaderValue {
    HeaderValue { key: name.clone(), value: value.replace('%', "%%"), ..HeaderValue::default() }
}
