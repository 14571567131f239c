//! Access logs: files, and services that take them.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog as PbAccessLog, access_log},
            core::v3::{
                ApiVersion, DataSource, GrpcService,
                data_source::Specifier,
                grpc_service::{EnvoyGrpc, TargetSpecifier},
            },
        },
        extensions::access_loggers::{
            grpc::v3::{
                CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
            },
            open_telemetry::v3::OpenTelemetryAccessLogConfig,
        },
    },
    google::protobuf::Any,
    opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value},
};
use prost::{Message, Name};

use super::{message::any, names, ordered};
use crate::mesh::{AccessLog, Collector, LogFormat, LogStream};

type Fields = &'static [(&'static str, &'static str)];

const HTTP_LOG: Fields = &[
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_peer", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

const TCP_LOG: Fields = &[
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_peer", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Istio's line, which holds what requests and connections have.
const LINE: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ",
    "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" ",
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The loggers of requests.
pub(super) fn of_requests(logs: &[AccessLog]) -> Vec<PbAccessLog> {
    logs.iter().filter_map(|log| logger(log, HTTP_LOG, true)).collect()
}

/// The loggers of connections.
pub(super) fn of_connections(logs: &[AccessLog]) -> Vec<PbAccessLog> {
    logs.iter().filter_map(|log| logger(log, TCP_LOG, false)).collect()
}

/// `None` where a log takes the other of requests and connections.
fn logger(log: &AccessLog, standard: Fields, requests: bool) -> Option<PbAccessLog> {
    match log {
        AccessLog::File { stream, format } => Some(file(*stream, self::format(format, standard))),
        AccessLog::Requests {
            collector,
            log_name,
            filter_state,
            request_headers,
            response_headers,
            response_trailers,
        } => {
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(common(collector, log_name, filter_state)),
                additional_request_headers_to_log: request_headers.clone(),
                additional_response_headers_to_log: response_headers.clone(),
                additional_response_trailers_to_log: response_trailers.clone(),
            };
            requests.then(|| named("envoy.access_loggers.http_grpc", &config))
        }
        AccessLog::Connections { collector, log_name, filter_state } => {
            let common_config = Some(common(collector, log_name, filter_state));
            let config = TcpGrpcAccessLogConfig { common_config };
            (!requests).then(|| named("envoy.access_loggers.tcp_grpc", &config))
        }
        AccessLog::OpenTelemetry { collector, log_name, body, attributes } => {
            let body = body.clone().unwrap_or_else(|| LINE.trim_end().to_owned());
            let attribute = |(key, value): (&String, &String)| KeyValue {
                key: key.clone(),
                value: Some(text(value.clone())),
                ..KeyValue::default()
            };
            let config = OpenTelemetryAccessLogConfig {
                grpc_service: Some(grpc(collector)),
                log_name: log_name.clone(),
                body: Some(text(body)),
                attributes: (!attributes.is_empty())
                    .then(|| KeyValueList { values: attributes.iter().map(attribute).collect() }),
                ..OpenTelemetryAccessLogConfig::default()
            };
            Some(named("envoy.access_loggers.open_telemetry", &config))
        }
    }
}

fn format(format: &LogFormat, standard: Fields) -> ordered::LogFormat {
    match format {
        LogFormat::StandardText => line(LINE),
        LogFormat::Text(text) => line(text),
        LogFormat::StandardJson => json(standard.iter().copied()),
        LogFormat::Json(fields) => json(fields.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
    }
}

fn line(text: &str) -> ordered::LogFormat {
    let source = DataSource {
        specifier: Some(Specifier::InlineString(text.to_owned())),
        ..DataSource::default()
    };
    ordered::LogFormat { text_format_source: Some(source), json_format: None }
}

fn json<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> ordered::LogFormat {
    let fields = fields.map(|(name, format)| (name, format.to_owned()));
    let fields = ordered::Struct::of_texts(fields);
    ordered::LogFormat { json_format: Some(fields), text_format_source: None }
}

/// The container's own streams are those that Envoy has open: it may not open them by their names
/// where another user has made them.
fn file(stream: LogStream, format: ordered::LogFormat) -> PbAccessLog {
    let (kind, name) = match stream {
        LogStream::Stdout => ("Stdout", "envoy.access_loggers.stdout"),
        LogStream::Stderr => ("Stderr", "envoy.access_loggers.stderr"),
    };
    let log = ordered::StreamAccessLog { log_format: Some(format) };
    let type_url =
        format!("type.googleapis.com/envoy.extensions.access_loggers.stream.v3.{kind}AccessLog");
    encoded(name, Any { type_url, value: log.encode_to_vec() })
}

fn named<M: Message + Name>(name: &str, config: &M) -> PbAccessLog {
    encoded(name, any(config))
}

fn encoded(name: &str, config: Any) -> PbAccessLog {
    PbAccessLog {
        name: name.to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
    }
}

fn common(
    collector: &Collector,
    log_name: &str,
    filter_state: &[String],
) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(grpc(collector)),
        transport_api_version: ApiVersion::V3.into(),
        filter_state_objects_to_log: filter_state.to_vec(),
        ..CommonGrpcAccessLogConfig::default()
    }
}

/// A collector as the target of calls.
pub(super) fn grpc(collector: &Collector) -> GrpcService {
    let target = EnvoyGrpc {
        cluster_name: names::collector(collector),
        // Else it would be the cluster's name, which is no host's.
        authority: collector.host.to_string(),
        ..EnvoyGrpc::default()
    };
    GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        ..GrpcService::default()
    }
}

fn text(text: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text)) }
}
