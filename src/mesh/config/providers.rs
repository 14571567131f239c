//! Extension providers: what they are, and where.

mod authorization;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::target::Targets;
use super::{MESH, in_range, logs, positive};
use crate::{
    api::meshwright::{
        MeshSettings,
        mesh::{
            ExtensionProvider, FileAccessLog, HeaderValue, HttpAccessLogService, OpenTelemetryLogs,
            OpenTelemetryTracing, TcpAccessLogService, ZipkinTracing,
        },
    },
    mesh::{
        AccessLog, Host, LogFormat, LogStream, MeshConfig, Service, Tracer,
        report::{OrReport, Path, Report},
        syntax,
    },
};

/// What a provider is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tracing,
    Log,
    Metrics,
    Authorization,
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Tracing => "traces: it must be of kind zipkin or opentelemetry",
            Self::Log => {
                "access logs: it must be of kind envoyFileAccessLog, envoyHttpAls, envoyTcpAls or \
                 envoyOtelAls"
            }
            Self::Metrics => "metrics: it must be of kind prometheus",
            Self::Authorization => "authorization",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Tracing { tracer: Tracer, max_path_length: Option<u32> },
    Log(AccessLog),
    Metrics,
    Authorization,
}

/// All providers by name, the built-in ones too.
#[derive(Debug)]
pub(super) struct Providers(BTreeMap<String, (Kind, Option<Provider>)>);

impl Providers {
    /// Reads all; what is wrong with one is reported, and it is none that could be used.
    pub(super) fn read(
        mesh: &MeshSettings,
        config: &MeshConfig,
        services: Option<&BTreeMap<Host, Arc<Service>>>,
        standard: &LogFormat,
        report: &mut Report,
    ) -> Self {
        let path = MESH.field("extensionProviders");
        let targets = Targets { config, services };
        let stdout = AccessLog::File { stream: LogStream::Stdout, format: standard.clone() };
        let mut all = BTreeMap::from([
            ("prometheus".to_owned(), (Kind::Metrics, Some(Provider::Metrics))),
            ("envoy".to_owned(), (Kind::Log, Some(Provider::Log(stdout)))),
        ]);
        let mut names = BTreeSet::new();
        for (index, provider) in mesh.extension_providers.iter().enumerate() {
            let path = path.index(index);
            if provider.name.is_empty() {
                report.error(&path.field("name"), "NameMissing", "give the provider a name");
                continue;
            }
            if !names.insert(&provider.name) {
                let message = format!("a provider {} stands above it already", provider.name);
                report.error(&path.field("name"), "Duplicate", message);
                continue;
            }
            if let Some((kind, read)) = one(provider, &targets, standard, &path, report) {
                all.insert(provider.name.clone(), (kind, read));
            }
        }
        Self(all)
    }

    /// The providers of these names that can be used as what they are named for.
    pub(super) fn named(
        &self,
        names: &[String],
        wanted: Kind,
        path: &Path<'_>,
        report: &mut Report,
    ) -> Vec<&Provider> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = path.index(index);
            match self.0.get(name) {
                _ if !seen.insert(name) => {
                    report.error(&path, "Duplicate", format!("{name} stands above it already"));
                }
                None => report.error(&path, "UnknownProvider", self.unknown(name)),
                Some((kind, _)) if *kind != wanted => {
                    let message = format!("{name} is no provider of {}", wanted.what());
                    report.error(&path, "WrongProvider", message);
                }
                Some((_, provider)) => found.extend(provider),
            }
        }
        found
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<_> = self.0.keys().map(String::as_str).collect();
        format!(
            "there is no provider {name:?} under extensionProviders, where there are: {}",
            known.join(", ")
        )
    }

    /// Metrics are there for Prometheus whoever is named; nobody else can be.
    pub(super) fn check_metrics(&self, mesh: &MeshSettings, report: &mut Report) {
        let path = MESH.field("defaultProviders");
        let path = path.field("metrics");
        self.named(&mesh.default_providers.metrics, Kind::Metrics, &path, report);
    }
}

/// What one provider is. `None` where not even its kind is known.
fn one(
    provider: &ExtensionProvider,
    targets: &Targets<'_>,
    standard: &LogFormat,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<(Kind, Option<Provider>)> {
    let mut kinds = Vec::new();
    if let Some(zipkin) = &provider.zipkin {
        let path = path.field("zipkin");
        kinds.push((Kind::Tracing, self::zipkin(zipkin, targets, &path, report)));
    }
    if let Some(otel) = &provider.opentelemetry {
        let path = path.field("opentelemetry");
        kinds.push((Kind::Tracing, opentelemetry(otel, targets, &path, report)));
    }
    if let Some(file) = &provider.envoy_file_access_log {
        let path = path.field("envoyFileAccessLog");
        kinds.push((Kind::Log, self::file(file, standard, &path, report)));
    }
    if let Some(als) = &provider.envoy_http_als {
        let path = path.field("envoyHttpAls");
        kinds.push((Kind::Log, requests(als, targets, &path, report)));
    }
    if let Some(als) = &provider.envoy_tcp_als {
        let path = path.field("envoyTcpAls");
        kinds.push((Kind::Log, connections(als, targets, &path, report)));
    }
    if let Some(als) = &provider.envoy_otel_als {
        let path = path.field("envoyOtelAls");
        kinds.push((Kind::Log, otel_logs(als, targets, &path, report)));
    }
    if provider.prometheus.is_some() {
        kinds.push((Kind::Metrics, Some(Provider::Metrics)));
    }
    if let Some(http) = &provider.envoy_ext_authz_http {
        let path = path.field("envoyExtAuthzHttp");
        authorization::http(http, targets, &path, report);
        kinds.push((Kind::Authorization, Some(Provider::Authorization)));
    }
    if let Some(grpc) = &provider.envoy_ext_authz_grpc {
        let path = path.field("envoyExtAuthzGrpc");
        authorization::grpc(grpc, targets, &path, report);
        kinds.push((Kind::Authorization, Some(Provider::Authorization)));
    }
    match kinds.len() {
        1 => kinds.pop(),
        0 => {
            let message = "say what it is: zipkin, opentelemetry, envoyFileAccessLog, envoyHttpAls, \
                           envoyTcpAls, envoyOtelAls, prometheus, envoyExtAuthzHttp or \
                           envoyExtAuthzGrpc";
            report.error(path, "KindMissing", message);
            None
        }
        _ => {
            report.error(path, "Contradiction", "it is of several kinds; make a provider of each");
            None
        }
    }
}

fn zipkin(
    zipkin: &ZipkinTracing,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    let collector = targets.find(&zipkin.service, zipkin.port, false, path, report);
    let url_path = match zipkin.path.as_str() {
        "" => Some("/api/v2/spans".to_owned()),
        given => url_path(given).or_report(report, &path.field("path"), "InvalidPath"),
    };
    let max_path_length = max_tag_length(zipkin.max_tag_length, path, report);
    let wide_trace_ids = !zipkin.enable_64bit_trace_id;
    let tracer = Tracer::Zipkin { collector: collector?, path: url_path?, wide_trace_ids };
    Some(Provider::Tracing { tracer, max_path_length })
}

fn opentelemetry(
    otel: &OpenTelemetryTracing,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    if otel.http.is_some() && otel.grpc.is_some() {
        report.error(path, "Contradiction", "give one of http and grpc, not both");
        return None;
    }
    let collector = targets.find(&otel.service, otel.port, otel.http.is_none(), path, report);
    let max_path_length = max_tag_length(otel.max_tag_length, path, report);
    let (http_path, timeout, headers) = if let Some(http) = &otel.http {
        let path = path.field("http");
        let url = url_path(&http.path).or_report(report, &path.field("path"), "InvalidPath");
        let timeout = time(http.timeout.as_ref(), &path, report);
        (Some(url?), timeout?, headers(&http.headers, &path.field("headers"), report)?)
    } else if let Some(grpc) = &otel.grpc {
        let path = path.field("grpc");
        let timeout = time(grpc.timeout.as_ref(), &path, report);
        let metadata = &path.field("initialMetadata");
        (None, timeout?, headers(&grpc.initial_metadata, metadata, report)?)
    } else {
        (None, None, Vec::new())
    };
    let collector = collector?;
    let tracer = Tracer::OpenTelemetry { collector, http_path, timeout, headers };
    Some(Provider::Tracing { tracer, max_path_length })
}

/// A `timeout`; `Some(None)` where none is given, `None` where it is wrong.
#[expect(clippy::option_option, reason = "wrong and absent are not the same")]
fn time(
    text: Option<&String>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Option<std::time::Duration>> {
    match text {
        None => Some(None),
        Some(text) => positive(text, &path.field("timeout"), report).map(Some),
    }
}

fn max_tag_length(length: Option<u32>, path: &Path<'_>, report: &mut Report) -> Option<u32> {
    in_range(length?, 1..=65536, &path.field("maxTagLength"), report)
}

fn url_path(path: &str) -> Result<String, String> {
    let sound = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    sound.then(|| path.to_owned()).ok_or_else(|| format!("{path:?} is no path: begin it with /"))
}

fn headers(
    headers: &[HeaderValue],
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<(String, String)>> {
    let mut sound = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let path = path.index(index);
        let name = syntax::header_name(&header.name).and_then(|name| match name.as_str() {
            "host" => Err("the host follows from the service".to_owned()),
            _ => Ok(name),
        });
        let name = name.or_report(report, &path.field("name"), "InvalidHeader");
        let value = syntax::header_value(&header.value).or_report(
            report,
            &path.field("value"),
            "InvalidHeader",
        );
        sound.extend(name.zip(value));
    }
    (sound.len() == headers.len()).then_some(sound)
}

/// Names of headers, in lower case.
fn header_names(names: &[String], path: &Path<'_>, report: &mut Report) -> Option<Vec<String>> {
    let read = |(index, name): (usize, &String)| {
        syntax::header_name(name).or_report(report, &path.index(index), "InvalidHeader")
    };
    let sound: Vec<_> = names.iter().enumerate().filter_map(read).collect();
    (sound.len() == names.len()).then_some(sound)
}

fn file(
    file: &FileAccessLog,
    standard: &LogFormat,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    let where_to = logs::stream(&file.path).or_report(report, &path.field("path"), "InvalidPath");
    let format_path = path.field("logFormat");
    let format = logs::of_file(file.log_format.as_ref(), standard, &format_path, report);
    Some(Provider::Log(AccessLog::File { stream: where_to?, format: format? }))
}

fn requests(
    als: &HttpAccessLogService,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    let collector = targets.find(&als.service, als.port, true, path, report);
    let mut names = |names: &[String], field| header_names(names, &path.field(field), report);
    let request = names(&als.additional_request_headers_to_log, "additionalRequestHeadersToLog");
    let response = names(&als.additional_response_headers_to_log, "additionalResponseHeadersToLog");
    let trailers =
        names(&als.additional_response_trailers_to_log, "additionalResponseTrailersToLog");
    Some(Provider::Log(AccessLog::Requests {
        collector: collector?,
        log_name: named(&als.log_name, "http_envoy_accesslog"),
        filter_state: als.filter_state_objects_to_log.clone(),
        request_headers: request?,
        response_headers: response?,
        response_trailers: trailers?,
    }))
}

fn connections(
    als: &TcpAccessLogService,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    let collector = targets.find(&als.service, als.port, true, path, report)?;
    Some(Provider::Log(AccessLog::Connections {
        collector,
        log_name: named(&als.log_name, "tcp_envoy_accesslog"),
        filter_state: als.filter_state_objects_to_log.clone(),
    }))
}

fn otel_logs(
    als: &OpenTelemetryLogs,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Provider> {
    let collector = targets.find(&als.service, als.port, true, path, report);
    let format = als.log_format.clone().unwrap_or_default();
    let path = path.field("logFormat");
    let attributes = logs::labels(&format.labels, &path, report);
    let body = match format.text.as_str() {
        "" => None,
        text => {
            let text = super::format::checked(text);
            Some(text.or_report(report, &path.field("text"), "InvalidLogFormat")?)
        }
    };
    Some(Provider::Log(AccessLog::OpenTelemetry {
        collector: collector?,
        log_name: named(&als.log_name, "otel_envoy_accesslog"),
        body,
        attributes: attributes?,
    }))
}

fn named(given: &str, otherwise: &str) -> String {
    if given.is_empty() { otherwise } else { given }.to_owned()
}
