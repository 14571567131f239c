//! Settings of the whole mesh, under the names of Istio's MeshConfig where it has them.
//!
//! What they mean, and what of them cannot be, is for [`crate::mesh::config`] to say.

mod connections;
mod logs;
mod providers;
mod tracing;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    connections::{HttpRetryPolicy, TcpKeepalive, TlsProtocol, TlsSettings},
    logs::{AccessLogEncoding, LogFormat},
    providers::{
        BodyInCheck, DefaultProviders, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider,
        FileAccessLog, GrpcExporter, HeaderValue, HttpAccessLogService, HttpExporter,
        OpenTelemetryLogs, OpenTelemetryTracing, Prometheus, TcpAccessLogService, ZipkinTracing,
    },
    tracing::{CustomTag, EnvironmentTag, HeaderTag, LiteralTag, Tracing},
};

/// Settings of the whole mesh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshSettings {
    /// What happens to traffic for destinations that the mesh does not know.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Where sidecars send what comes in for their application.
    pub inbound_traffic_policy: InboundTrafficPolicy,
    /// Where proxies log each request and connection: `/dev/stdout` or `/dev/stderr` of their
    /// containers, nowhere if empty. Where it is not given, the profile `demo` logs to `/dev/stdout`
    /// and the others do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log_file: Option<String>,
    /// What is logged: with encoding `TEXT` a line with Envoy's `%COMMANDS%`, with `JSON` an object
    /// whose values are such texts. Istio's line, or an object of our own, if empty.
    #[schemars(length(max = 8192))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access_log_format: String,
    /// `TEXT` or `JSON`.
    pub access_log_encoding: AccessLogEncoding,
    /// How long a proxy waits for a connection to an endpoint to be made.
    pub connect_timeout: String,
    /// How proxies notice peers that went away without a word, on both sides of every connection.
    pub tcp_keepalive: TcpKeepalive,
    /// How long a proxy waits for the first bytes of a connection whose protocol nobody has declared
    /// before it takes it for TCP; `0s` for as long as it takes. Some seconds if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_detection_timeout: Option<String>,
    /// What is tried again where neither a VirtualService nor an HTTPRoute says.
    pub default_http_retry_policy: HttpRetryPolicy,
    /// What a sidecar tries again towards its own application.
    pub default_inbound_http_retry_policy: HttpRetryPolicy,
    /// Who sees Services and ServiceEntries that do not say: `*` everyone, `.` their own namespace,
    /// `~` nobody, or names of namespaces.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_service_export_to: Vec<String>,
    /// Who sees VirtualServices that do not say, in the same words.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_virtual_service_export_to: Vec<String>,
    /// Who sees DestinationRules that do not say, in the same words.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_destination_rule_export_to: Vec<String>,
    /// How often proxies look up the names of hosts outside the mesh again. Envoy's 5s if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_refresh_rate: Option<String>,
    /// Namespace whose configuration holds for the whole mesh; the control plane's own if empty.
    #[schemars(length(max = 63))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_namespace: String,
    /// Whether proxies use mutual TLS to endpoints that can, where no DestinationRule says.
    pub enable_auto_mtls: bool,
    /// TLS between workloads.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: TlsSettings,
    /// All other TLS: what gateways terminate.
    pub tls_defaults: TlsSettings,
    /// Trust domains whose identities are as good as the same identities of our own. The roots of
    /// their certificates must be trusted by themselves.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domain_aliases: Vec<String>,
    /// How paths of requests are brought into one form before they are looked at.
    pub path_normalization: PathNormalization,
    /// Namespaces that the control plane sees, by their labels; all if not given. What is in others
    /// (services, pods, configuration) is not there for the mesh. The root namespace is always seen.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovery_selectors: Vec<LabelSelector>,
    /// Whether proxies report traces to the default tracing provider.
    pub enable_tracing: bool,
    /// What of requests is traced.
    pub tracing: Tracing,
    /// What the statistics of proxies' clusters for other services are called, with `%SERVICE%`,
    /// `%SERVICE_NAME%`, `%SERVICE_FQDN%`, `%SERVICE_PORT%`, `%SERVICE_PORT_NAME%` and
    /// `%SUBSET_NAME%`. The cluster's name if empty.
    #[schemars(length(max = 256))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outbound_cluster_stat_name: String,
    /// The same of sidecars' clusters for their own application, with `%TARGET_PORT%` too, and
    /// without `%SUBSET_NAME%`.
    #[schemars(length(max = 256))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub inbound_cluster_stat_name: String,
    /// The providers that every proxy uses.
    pub default_providers: DefaultProviders,
    /// Systems that proxies work with: where traces and logs go, who is asked about requests.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extension_providers: Vec<ExtensionProvider>,
    /// How an endpoint is chosen where no DestinationRule says.
    pub load_balancing: LoadBalancing,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            access_log_file: None,
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            connect_timeout: "10s".to_owned(),
            tcp_keepalive: TcpKeepalive::default(),
            protocol_detection_timeout: None,
            default_http_retry_policy: HttpRetryPolicy::of_routes(),
            default_inbound_http_retry_policy: HttpRetryPolicy::of_applications(),
            default_service_export_to: Vec::new(),
            default_virtual_service_export_to: Vec::new(),
            default_destination_rule_export_to: Vec::new(),
            dns_refresh_rate: None,
            root_namespace: String::new(),
            enable_auto_mtls: true,
            mesh_mtls: TlsSettings::default(),
            tls_defaults: TlsSettings::default(),
            trust_domain_aliases: Vec::new(),
            path_normalization: PathNormalization::default(),
            discovery_selectors: Vec::new(),
            enable_tracing: true,
            tracing: Tracing::default(),
            outbound_cluster_stat_name: String::new(),
            inbound_cluster_stat_name: String::new(),
            default_providers: DefaultProviders::default(),
            extension_providers: Vec::new(),
            load_balancing: LoadBalancing::default(),
        }
    }
}

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// `ALLOW_ANY` passes it through as it is, `REGISTRY_ONLY` refuses it.
    pub mode: OutboundTrafficMode,
}

/// Modes of [`OutboundTrafficPolicy`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// Where sidecars send what comes in for their application.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct InboundTrafficPolicy {
    /// `PASSTHROUGH` to the pod's address, as without a mesh; `LOCALHOST` to the loopback address, for
    /// applications that listen there alone. Pods whose proxy is transparent (`TPROXY`) keep
    /// `PASSTHROUGH`: nobody can come to a loopback address in a client's name.
    pub mode: InboundTrafficMode,
}

/// Modes of [`InboundTrafficPolicy`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficMode {
    #[default]
    Passthrough,
    Localhost,
}

/// How paths of requests are brought into one form before they are looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    /// `NONE` leaves paths alone. `BASE` (and `DEFAULT`) resolves `.` and `..` and makes escapes
    /// uniform, `MERGE_SLASHES` also makes one slash of several, `DECODE_AND_MERGE_SLASHES` also
    /// decodes escaped slashes first.
    pub normalization: PathNormalizationType,
}

/// Kinds of [`PathNormalization`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathNormalizationType {
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// Ways of choosing an endpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadBalancing {
    RoundRobin,
    #[default]
    LeastRequest,
    Random,
}
