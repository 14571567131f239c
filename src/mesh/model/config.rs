//! Settings of the whole mesh, as plans and their encoding read them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Host, LoadBalancing, Retries};

/// Mesh-wide settings, from the MeshInstallation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    pub trust_domain: String,
    /// Trust domains whose identities count as the same ones of ours.
    pub trust_domain_aliases: Vec<String>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Whose policies hold for the whole mesh.
    pub system_namespace: Arc<str>,
    pub outbound: OutboundTraffic,
    pub inbound: InboundTraffic,
    /// Whether mutual TLS is used wherever it can be.
    pub auto_tls: bool,
    /// TLS between workloads, and all other.
    pub mesh_tls: TlsVersions,
    pub other_tls: TlsVersions,
    /// Load balancing where nobody says otherwise.
    pub load_balancing: LoadBalancing,
    /// Whether hosts of ServiceEntries without addresses are given some.
    pub auto_allocate: bool,
    pub connect_timeout: Duration,
    pub keepalive: Keepalive,
    /// How long an undeclared protocol is waited for; zero for ever, `None` as long as the listener's
    /// own reasons want.
    pub detection_timeout: Option<Duration>,
    /// How often names outside the mesh are looked up; `None` for Envoy's own rate.
    pub dns_refresh: Option<Duration>,
    /// What is tried again where no route says.
    pub retries: Retries,
    /// What sidecars try again towards their application.
    pub inbound_retries: Retries,
    pub default_exports: DefaultExports,
    pub paths: PathNormalization,
    /// What statistics of clusters are called, with placeholders; `None`: after the cluster.
    pub outbound_stat_name: Option<String>,
    pub inbound_stat_name: Option<String>,
    /// Where every proxy logs.
    pub access_logs: Vec<AccessLog>,
    pub tracing: Option<Tracing>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let retries =
            |on: &str| Retries { attempts: 2, per_try_timeout: None, retry_on: on.to_owned() };
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            system_namespace: "meshwright-system".into(),
            outbound: OutboundTraffic::AllowAny,
            inbound: InboundTraffic::Passthrough,
            auto_tls: true,
            mesh_tls: TlsVersions::default(),
            other_tls: TlsVersions::default(),
            load_balancing: LoadBalancing::LeastRequest,
            auto_allocate: false,
            connect_timeout: Duration::from_secs(10),
            keepalive: Keepalive { probes: 3, time: 180, interval: 30 },
            detection_timeout: None,
            dns_refresh: None,
            retries: retries("connect-failure,refused-stream,unavailable,cancelled"),
            inbound_retries: retries("reset-before-request"),
            default_exports: DefaultExports::default(),
            paths: PathNormalization::Base,
            outbound_stat_name: None,
            inbound_stat_name: None,
            access_logs: Vec::new(),
            tracing: None,
        }
    }
}

impl MeshConfig {
    /// The services that proxies themselves send something to.
    pub fn collectors(&self) -> impl Iterator<Item = &Collector> {
        let logs = self.access_logs.iter().filter_map(AccessLog::collector);
        logs.chain(self.tracing.as_ref().map(|tracing| tracing.tracer.collector()))
    }
}

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundTraffic {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// Where sidecars send what comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InboundTraffic {
    /// To the address that the client meant.
    #[default]
    Passthrough,
    /// To the loopback address.
    Localhost,
}

/// What TLS may be; empty lists are Envoy's own choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsVersions {
    /// Only TLS 1.3.
    pub newest_only: bool,
    pub ciphers: Vec<String>,
    pub curves: Vec<String>,
}

/// How peers that are gone are noticed; times in seconds, as the kernel has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub probes: u32,
    pub time: u32,
    pub interval: u32,
}

/// `exportTo` of objects that have none; empty for everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultExports {
    pub services: Vec<String>,
    pub virtual_services: Vec<String>,
    pub destination_rules: Vec<String>,
}

/// How paths are brought into one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// A service that proxies themselves send something to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collector {
    pub host: Host,
    pub port: u16,
    /// Whether it is spoken to in gRPC, whatever its port declares.
    pub grpc: bool,
}

/// Where something is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    File {
        stream: LogStream,
        format: LogFormat,
    },
    /// Requests, in Envoy's protocol.
    Requests {
        collector: Collector,
        log_name: String,
        filter_state: Vec<String>,
        request_headers: Vec<String>,
        response_headers: Vec<String>,
        response_trailers: Vec<String>,
    },
    /// Connections, in Envoy's protocol.
    Connections {
        collector: Collector,
        log_name: String,
        filter_state: Vec<String>,
    },
    OpenTelemetry {
        collector: Collector,
        log_name: String,
        body: Option<String>,
        attributes: BTreeMap<String, String>,
    },
}

impl AccessLog {
    fn collector(&self) -> Option<&Collector> {
        match self {
            Self::File { .. } => None,
            Self::Requests { collector, .. }
            | Self::Connections { collector, .. }
            | Self::OpenTelemetry { collector, .. } => Some(collector),
        }
    }
}

/// A stream of the proxy's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// What a line of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Istio's line.
    StandardText,
    /// An object of our own, for requests and connections each.
    StandardJson,
    /// Ends in a line break.
    Text(String),
    Json(BTreeMap<String, String>),
}

/// What of requests is traced, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    pub tracer: Tracer,
    /// In hundredths of a percent.
    pub sampling: u32,
    pub tags: BTreeMap<String, TagValue>,
    pub max_path_length: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracer {
    Zipkin {
        collector: Collector,
        path: String,
        wide_trace_ids: bool,
    },
    OpenTelemetry {
        collector: Collector,
        /// The path, where spans go by HTTP.
        http_path: Option<String>,
        timeout: Option<Duration>,
        headers: Vec<(String, String)>,
    },
}

impl Tracer {
    pub fn collector(&self) -> &Collector {
        match self {
            Self::Zipkin { collector, .. } | Self::OpenTelemetry { collector, .. } => collector,
        }
    }
}

/// Where a tag's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    Literal(String),
    Environment { name: String, default: String },
    Header { name: String, default: String },
}
