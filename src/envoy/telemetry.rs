//! Metrics and logs of requests and connections: Istio's standard metrics, same names and labels, by
//! Envoy's own stats access logger.
//!
//! Envoy prefixes the names with `envoy_` in its Prometheus text; the agent takes that off. What a
//! format finds no value for is empty.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog, AccessLogFilter, HeaderFilter, LogTypeFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier,
            },
            route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
        },
        data::accesslog::v3::AccessLogType,
        extensions::access_loggers::stats::v3::{
            Config,
            config::{Counter, Histogram, Stat, Tag, histogram::Unit},
        },
        r#type::{matcher::v3::string_matcher::MatchPattern, v3::Scope},
    },
    google::protobuf::UInt64Value,
};

use super::{
    access_log,
    message::{any, string},
};
use crate::mesh::{Host, Key, MeshConfig};

type Tags = Vec<(&'static str, String)>;

/// Which side of a request or connection reports, and what it knows about both ends beforehand.
#[derive(Clone, Debug)]
pub enum Reporter<'a> {
    /// The client's proxy. It learns the server from the chosen endpoint and cluster. Its own
    /// workload comes from its environment: a plan is shared by many workloads.
    Source,
    /// The server's proxy. It learns the client from its certificate.
    Destination {
        workload: &'a str,
        namespace: &'a str,
        service: Option<&'a (Host, Key)>,
        mutual_tls: bool,
    },
}

impl Reporter<'_> {
    fn tags(&self) -> Tags {
        match self {
            Self::Source => source_tags(),
            Self::Destination { workload, namespace, service, mutual_tls } => {
                destination_tags(workload, namespace, *service, *mutual_tls)
            }
        }
    }
}

fn source_tags() -> Tags {
    [
        ("reporter", "source"),
        ("source_workload", "%ENVIRONMENT(MESHWRIGHT_WORKLOAD)%"),
        ("source_workload_namespace", "%ENVIRONMENT(POD_NAMESPACE)%"),
        ("source_principal", "%UPSTREAM_LOCAL_URI_SAN%"),
        ("destination_workload", "%UPSTREAM_METADATA(meshwright:workload)%"),
        ("destination_workload_namespace", "%UPSTREAM_METADATA(meshwright:namespace)%"),
        ("destination_principal", "%UPSTREAM_PEER_URI_SAN%"),
        ("destination_service", "%CLUSTER_METADATA(meshwright:host)%"),
        ("destination_service_name", "%CLUSTER_METADATA(meshwright:name)%"),
        ("destination_service_namespace", "%CLUSTER_METADATA(meshwright:namespace)%"),
        // Only the server's side can say how it was reached.
        ("connection_security_policy", "unknown"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

fn destination_tags(
    workload: &str,
    namespace: &str,
    service: Option<&(Host, Key)>,
    mutual_tls: bool,
) -> Tags {
    let known = |value: &str| if value.is_empty() { "unknown" } else { value }.to_owned();
    let (host, name, service_namespace) = match service {
        Some((host, key)) => (&**host, &*key.name, &*key.namespace),
        None => ("", "", ""),
    };
    vec![
        ("reporter", "destination".to_owned()),
        ("source_workload", "unknown".to_owned()),
        ("source_workload_namespace", "unknown".to_owned()),
        ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%".to_owned()),
        ("destination_workload", known(workload)),
        ("destination_workload_namespace", known(namespace)),
        ("destination_principal", "%DOWNSTREAM_LOCAL_URI_SAN%".to_owned()),
        ("destination_service", known(host)),
        ("destination_service_name", known(name)),
        ("destination_service_namespace", known(service_namespace)),
        ("connection_security_policy", if mutual_tls { "mutual_tls" } else { "none" }.to_owned()),
    ]
}

/// What an HTTP connection manager logs.
pub fn of_requests(reporter: &Reporter<'_>, config: &MeshConfig) -> Vec<AccessLog> {
    // What makes a request gRPC is its content type, which only a filter can look at.
    let mut logs = vec![
        stats(is_grpc(false), &request_stats(reporter, "http", None)),
        stats(is_grpc(true), &request_stats(reporter, "grpc", Some("%GRPC_STATUS_NUMBER%"))),
    ];
    logs.extend(access_log::of_requests(&config.access_logs));
    logs
}

/// What a TCP proxy logs.
pub fn of_connections(reporter: &Reporter<'_>, config: &MeshConfig) -> Vec<AccessLog> {
    let mut tags = reporter.tags();
    tags.push(("request_protocol", "tcp".to_owned()));
    tags.push(("response_flags", "%RESPONSE_FLAGS%".to_owned()));
    let opened = logger(vec![fixed("istio_tcp_connections_opened_total", &tags)], Vec::new());
    let closed = logger(
        vec![
            fixed("istio_tcp_connections_closed_total", &tags),
            counted("istio_tcp_sent_bytes_total", &tags, "%BYTES_SENT%"),
            counted("istio_tcp_received_bytes_total", &tags, "%BYTES_RECEIVED%"),
        ],
        Vec::new(),
    );
    let mut logs = vec![
        stats(of_type(AccessLogType::TcpUpstreamConnected), &opened),
        stats(of_type(AccessLogType::TcpConnectionEnd), &closed),
    ];
    let ended = || Some(of_type(AccessLogType::TcpConnectionEnd));
    let each = access_log::of_connections(&config.access_logs);
    logs.extend(each.into_iter().map(|log| AccessLog { filter: ended(), ..log }));
    logs
}

fn request_stats(reporter: &Reporter<'_>, protocol: &str, grpc_status: Option<&str>) -> Config {
    let mut tags = reporter.tags();
    tags.push(("request_protocol", protocol.to_owned()));
    tags.push(("response_code", "%RESPONSE_CODE%".to_owned()));
    tags.push(("response_flags", "%RESPONSE_FLAGS%".to_owned()));
    tags.extend(grpc_status.map(|format| ("grpc_response_status", format.to_owned())));
    let duration = Histogram {
        stat: Some(stat("istio_request_duration_milliseconds", &tags)),
        unit: Unit::Milliseconds.into(),
        value_format: "%DURATION%".to_owned(),
    };
    logger(vec![fixed("istio_requests_total", &tags)], vec![duration])
}

fn logger(counters: Vec<Counter>, histograms: Vec<Histogram>) -> Config {
    // An empty scope, but a scope: the names stand as they are. (A shared one makes Envoy 1.40 crash
    // at the end of `--mode validate`.)
    Config { stats_scope: Some(Scope::default()), counters, histograms, ..Config::default() }
}

fn stat(name: &str, tags: &Tags) -> Stat {
    let tag = |(name, value): &(&str, String)| Tag {
        name: (*name).to_owned(),
        value_format: value.clone(),
        rules: None,
    };
    Stat { name: name.to_owned(), tags: tags.iter().map(tag).collect() }
}

fn fixed(name: &str, tags: &Tags) -> Counter {
    Counter {
        stat: Some(stat(name, tags)),
        value_fixed: Some(UInt64Value { value: 1 }),
        ..Counter::default()
    }
}

fn counted(name: &str, tags: &Tags, value_format: &str) -> Counter {
    Counter {
        stat: Some(stat(name, tags)),
        value_format: value_format.to_owned(),
        ..Counter::default()
    }
}

fn stats(filter: AccessLogFilter, config: &Config) -> AccessLog {
    AccessLog {
        name: "envoy.access_loggers.stats".to_owned(),
        filter: Some(filter),
        config_type: Some(ConfigType::TypedConfig(any(config))),
    }
}

fn filter(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}

fn is_grpc(grpc: bool) -> AccessLogFilter {
    let prefix = MatchPattern::Prefix("application/grpc".to_owned());
    filter(FilterSpecifier::HeaderFilter(HeaderFilter {
        header: Some(HeaderMatcher {
            name: "content-type".to_owned(),
            invert_match: !grpc,
            // A request without the header is not gRPC either.
            treat_missing_header_as_empty: true,
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(prefix))),
        }),
    }))
}

fn of_type(log_type: AccessLogType) -> AccessLogFilter {
    let types = vec![log_type.into()];
    filter(FilterSpecifier::LogTypeFilter(LogTypeFilter { types, exclude: false }))
}
