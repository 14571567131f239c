//! Systems that proxies work with, in the shapes of Istio's extension providers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LogFormat;

/// The providers that every proxy uses, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    /// Where traces go; one provider of kind `zipkin` or `opentelemetry`.
    #[schemars(length(max = 1))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tracing: Vec<String>,
    /// Where requests and connections are logged, in place of `accessLogFile`. The built-in provider
    /// `envoy` is the container's log in the format of `accessLogFormat`.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_logging: Vec<String>,
    /// Who gets metrics: only `prometheus`, or a provider of that kind. Proxies are scraped whether it
    /// stands here or not.
    #[schemars(length(max = 1))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
}

/// A system that proxies work with: a name, and one of the kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// What it is called elsewhere. `prometheus` and `envoy` are built in.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Traces in the form of Zipkin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<ZipkinTracing>,
    /// Traces in the form of OpenTelemetry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opentelemetry: Option<OpenTelemetryTracing>,
    /// Logs to a stream of the proxy's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_file_access_log: Option<FileAccessLog>,
    /// Logs of requests to a service that speaks Envoy's gRPC protocol for access logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_http_als: Option<HttpAccessLogService>,
    /// Logs of connections to such a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_tcp_als: Option<TcpAccessLogService>,
    /// Logs to a service that takes OpenTelemetry logs by gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_otel_als: Option<OpenTelemetryLogs>,
    /// Metrics for Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// Who is asked by HTTP whether a request may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    /// Who is asked by gRPC whether a request may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
}

/// Traces in the form of Zipkin.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ZipkinTracing {
    /// Host name of the service: `zipkin.observability.svc.cluster.local`, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Longest part of a request's path in a span, in place of `tracing.maxPathTagLength`.
    #[schemars(range(min = 1, max = 65536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tag_length: Option<u32>,
    /// Whether trace ids have 64 bits, not 128.
    #[serde(rename = "enable64bitTraceId")]
    pub enable_64bit_trace_id: bool,
    /// Path that spans are sent to; `/api/v2/spans` if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// Traces in the form of OpenTelemetry, by gRPC unless `http` is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryTracing {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Longest part of a request's path in a span, in place of `tracing.maxPathTagLength`.
    #[schemars(range(min = 1, max = 65536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tag_length: Option<u32>,
    /// Sends spans by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpExporter>,
    /// How spans are sent by gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcExporter>,
}

/// How something is sent by HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpExporter {
    /// Path of the requests: `/v1/traces`.
    pub path: String,
    /// How long a request may take; 3s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Headers of the requests.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderValue>,
}

/// How something is sent by gRPC.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcExporter {
    /// How long a call may take; as long as it does if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Metadata of the calls.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initial_metadata: Vec<HeaderValue>,
}

/// A header with its value.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderValue {
    /// Name of the header.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Logs to a stream of the proxy's container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct FileAccessLog {
    /// `/dev/stdout` or `/dev/stderr`.
    pub path: String,
    /// What is logged; as `accessLogFormat` says if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// Logs of requests to a service that speaks Envoy's protocol.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpAccessLogService {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What the log is called; `http_envoy_accesslog` if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_name: String,
    /// Names of filter state that is logged.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_state_objects_to_log: Vec<String>,
    /// Headers of requests that are logged besides the usual ones.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_request_headers_to_log: Vec<String>,
    /// Headers of responses that are logged.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_response_headers_to_log: Vec<String>,
    /// Trailers of responses that are logged.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_response_trailers_to_log: Vec<String>,
}

/// Logs of connections to a service that speaks Envoy's protocol.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpAccessLogService {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What the log is called; `tcp_envoy_accesslog` if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_name: String,
    /// Names of filter state that is logged.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_state_objects_to_log: Vec<String>,
}

/// Logs to a service that takes OpenTelemetry logs by gRPC.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryLogs {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What the log is called; `otel_envoy_accesslog` if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_name: String,
    /// The body of each record, and its attributes; both may be given. Istio's line if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// Metrics for Prometheus. It has no fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Prometheus {}

/// Who is asked by HTTP whether a request may pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzHttp {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// How long an answer may take; 600s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What stands before the request's own path in the question.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_prefix: String,
    /// Whether requests pass where no answer comes.
    pub fail_open: bool,
    /// Whether the route is looked up again after headers were changed.
    pub clear_route_cache: bool,
    /// Status of the response where no answer comes; 403 if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status_on_error: String,
    /// Headers of the request that stand in the question too, besides `Authorization`.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include_request_headers_in_check: Vec<String>,
    /// Further headers of the question.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub include_additional_headers_in_check: std::collections::BTreeMap<String, String>,
    /// How much of the request's body stands in the question; none of it if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<BodyInCheck>,
    /// Headers of the answer that the application gets where a request may pass.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of the answer that the client gets where a request may not pass.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of the answer that the client gets where a request may pass.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// Who is asked by gRPC whether a request may pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzGrpc {
    /// Host name of the service, or `NAMESPACE/HOST`.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// How long an answer may take; 600s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Whether requests pass where no answer comes.
    pub fail_open: bool,
    /// Whether the route is looked up again after headers were changed.
    pub clear_route_cache: bool,
    /// Status of the response where no answer comes; 403 if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status_on_error: String,
    /// How much of the request's body stands in the question; none of it if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_request_body_in_check: Option<BodyInCheck>,
}

/// How much of a request's body stands in a question about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct BodyInCheck {
    /// Bytes at most.
    #[schemars(range(min = 1))]
    pub max_request_bytes: u32,
    /// Whether a longer body is cut off; else its request is refused.
    pub allow_partial_message: bool,
    /// Whether the body is sent as bytes, not as text. By gRPC only.
    pub pack_as_bytes: bool,
}
