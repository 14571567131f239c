//! `spec.mesh` → [`MeshConfig`].
//!
//! The admission webhook runs the same conversion without a cluster. A setting that cannot be is
//! reported and stands at its default: one mistake must not take the rest of the mesh with it.

mod exports;
mod format;
mod logs;
mod providers;
mod tls;
mod tracing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::providers::Providers;
use super::{
    Host, InboundTraffic, Keepalive, LoadBalancing, MeshConfig, OutboundTraffic, PathNormalization,
    Retries, Service, discovery,
    report::{OrReport, Path, Report},
    syntax,
};
use crate::{
    api::meshwright::{
        LoadBalancing as ApiLoadBalancing, MeshInstallation, MeshSettings, OutboundTrafficMode,
        mesh::{HttpRetryPolicy, InboundTrafficMode, PathNormalizationType, TcpKeepalive},
    },
    diagnostic::Diagnostic,
    watch::Snapshot,
};

pub(super) const MESH: Path<'static> = Path::Field(&Path::SPEC, "mesh");

/// Envoy's conditions for retries.
const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

/// The settings of the installation, or the defaults without one. Where providers are is not looked
/// up: for that, the services must be known, which are made by these settings.
pub fn build(snapshot: &Snapshot) -> MeshConfig {
    with_services(snapshot, None).0
}

/// The settings with those providers that exist, and what is wrong with them.
pub fn complete(
    snapshot: &Snapshot,
    services: &BTreeMap<Host, Arc<Service>>,
) -> (MeshConfig, Vec<Diagnostic>) {
    with_services(snapshot, Some(services))
}

fn with_services(
    snapshot: &Snapshot,
    services: Option<&BTreeMap<Host, Arc<Service>>>,
) -> (MeshConfig, Vec<Diagnostic>) {
    let mut config = MeshConfig::default();
    if !snapshot.system_namespace.is_empty() {
        config.system_namespace = snapshot.system_namespace.clone();
    }
    match &snapshot.installation {
        None => (config, Vec::new()),
        Some(installation) => {
            let report = convert(installation, &mut config, services);
            (config, report.diagnostics)
        }
    }
}

/// What one installation says, on top of what `config` says already.
pub fn convert(
    installation: &MeshInstallation,
    config: &mut MeshConfig,
    services: Option<&BTreeMap<Host, Arc<Service>>>,
) -> Report {
    let mut report = Report::new(installation, "meshwright.dev/v1alpha1", "MeshInstallation");
    let spec = &installation.spec;
    config.trust_domain.clone_from(&spec.trust_domain);
    config.cluster_domain.clone_from(&spec.cluster_domain);
    config.auto_allocate = spec.dns.auto_allocate;
    traffic(&spec.mesh, config, &mut report);
    exports::convert(&spec.mesh, config, &mut report);
    tls::convert(&spec.mesh, config, &mut report);
    stat_names(&spec.mesh, config, &mut report);
    discovery::check(&spec.mesh, &mut report);
    let standard = logs::standard(&spec.mesh, &mut report);
    let providers = Providers::read(&spec.mesh, config, services, &standard, &mut report);
    config.access_logs = logs::convert(spec, &standard, &providers, &mut report);
    config.tracing = tracing::convert(&spec.mesh, &providers, &mut report);
    providers.check_metrics(&spec.mesh, &mut report);
    report
}

fn traffic(mesh: &MeshSettings, config: &mut MeshConfig, report: &mut Report) {
    config.outbound = match mesh.outbound_traffic_policy.mode {
        OutboundTrafficMode::AllowAny => OutboundTraffic::AllowAny,
        OutboundTrafficMode::RegistryOnly => OutboundTraffic::RegistryOnly,
    };
    config.inbound = match mesh.inbound_traffic_policy.mode {
        InboundTrafficMode::Passthrough => InboundTraffic::Passthrough,
        InboundTrafficMode::Localhost => InboundTraffic::Localhost,
    };
    config.load_balancing = match mesh.load_balancing {
        ApiLoadBalancing::RoundRobin => LoadBalancing::RoundRobin,
        ApiLoadBalancing::LeastRequest => LoadBalancing::LeastRequest,
        ApiLoadBalancing::Random => LoadBalancing::Random,
    };
    config.paths = match mesh.path_normalization.normalization {
        PathNormalizationType::None => PathNormalization::None,
        PathNormalizationType::Default | PathNormalizationType::Base => PathNormalization::Base,
        PathNormalizationType::MergeSlashes => PathNormalization::MergeSlashes,
        PathNormalizationType::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    };
    if let Some(time) = positive(&mesh.connect_timeout, &MESH.field("connectTimeout"), report) {
        config.connect_timeout = time;
    }
    config.keepalive = keepalive(&mesh.tcp_keepalive, config.keepalive, report);
    config.detection_timeout = mesh.protocol_detection_timeout.as_ref().and_then(|text| {
        let path = MESH.field("protocolDetectionTimeout");
        let time = syntax::timeout(text).or_report(report, &path, "InvalidDuration")?;
        Some(time.unwrap_or_default())
    });
    config.dns_refresh = mesh
        .dns_refresh_rate
        .as_ref()
        .and_then(|text| positive(text, &MESH.field("dnsRefreshRate"), report));
    let path = MESH.field("defaultHttpRetryPolicy");
    config.retries = retries(&mesh.default_http_retry_policy, &config.retries, &path, report);
    let path = MESH.field("defaultInboundHttpRetryPolicy");
    let policy = &mesh.default_inbound_http_retry_policy;
    config.inbound_retries = retries(policy, &config.inbound_retries, &path, report);
}

/// A duration that is not zero.
fn positive(text: &str, path: &Path<'_>, report: &mut Report) -> Option<Duration> {
    let time = syntax::timeout(text).or_report(report, path, "InvalidDuration")?;
    time.ok_or_else(|| format!("{text:?} is no time: it must be at least 1ms")).or_report(
        report,
        path,
        "InvalidDuration",
    )
}

fn keepalive(given: &TcpKeepalive, default: Keepalive, report: &mut Report) -> Keepalive {
    let path = MESH.field("tcpKeepalive");
    // The kernel counts whole seconds, and no more than these.
    let mut seconds = |text: &str, name| {
        let path = path.field(name);
        let time = syntax::duration(text).or_report(report, &path, "InvalidDuration")?;
        u32::try_from(time.as_secs())
            .ok()
            .filter(|seconds| (1..=32767).contains(seconds) && time.subsec_nanos() == 0)
            .ok_or_else(|| format!("{text:?} must be whole seconds, from 1s to 32767s"))
            .or_report(report, &path, "InvalidDuration")
    };
    let time = seconds(&given.time, "time").unwrap_or(default.time);
    let interval = seconds(&given.interval, "interval").unwrap_or(default.interval);
    let probes = in_range(given.probes, 1..=100, &path.field("probes"), report);
    Keepalive { probes: probes.unwrap_or(default.probes), time, interval }
}

/// The number, if it is in the range that the schema says too: not all objects come by the API.
fn in_range(
    number: u32,
    range: std::ops::RangeInclusive<u32>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<u32> {
    let (least, most) = (range.start(), range.end());
    range
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| format!("{number} is not between {least} and {most}"))
        .or_report(report, path, "OutOfRange")
}

fn retries(
    policy: &HttpRetryPolicy,
    default: &Retries,
    path: &Path<'_>,
    report: &mut Report,
) -> Retries {
    let attempts = policy
        .attempts
        .and_then(|number| in_range(number, 0..=100, &path.field("attempts"), report));
    let per_try_timeout = policy
        .per_try_timeout
        .as_ref()
        .and_then(|text| positive(text, &path.field("perTryTimeout"), report));
    let retry_on = conditions(&policy.retry_on)
        .or_report(report, &path.field("retryOn"), "InvalidRetryCondition")
        .filter(|conditions| !conditions.is_empty());
    Retries {
        attempts: attempts.unwrap_or(default.attempts),
        per_try_timeout,
        retry_on: retry_on.unwrap_or_else(|| default.retry_on.clone()),
    }
}

/// Conditions and status codes; Envoy would leave out without a word what it does not know.
fn conditions(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let is_status = |part: &str| part.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
    match parts.iter().find(|part| !RETRY_CONDITIONS.contains(part) && !is_status(part)) {
        None => Ok(parts.join(",")),
        Some(unknown) => {
            let known = RETRY_CONDITIONS.join(", ");
            Err(format!("{unknown:?} is no condition: there are {known}, and status codes"))
        }
    }
}

/// Placeholders of names of statistics, for either direction.
pub const OUTBOUND_PLACEHOLDERS: [&str; 6] =
    ["SERVICE", "SERVICE_NAME", "SERVICE_FQDN", "SERVICE_PORT", "SERVICE_PORT_NAME", "SUBSET_NAME"];
pub const INBOUND_PLACEHOLDERS: [&str; 6] =
    ["SERVICE", "SERVICE_NAME", "SERVICE_FQDN", "SERVICE_PORT", "SERVICE_PORT_NAME", "TARGET_PORT"];

fn stat_names(mesh: &MeshSettings, config: &mut MeshConfig, report: &mut Report) {
    let mut template = |text: &str, field, placeholders: &[&str]| {
        let checked = stat_name(text, placeholders);
        checked
            .or_report(report, &MESH.field(field), "InvalidStatName")
            .filter(|text| !text.is_empty())
    };
    let outbound = &mesh.outbound_cluster_stat_name;
    config.outbound_stat_name =
        template(outbound, "outboundClusterStatName", &OUTBOUND_PLACEHOLDERS);
    let inbound = &mesh.inbound_cluster_stat_name;
    config.inbound_stat_name = template(inbound, "inboundClusterStatName", &INBOUND_PLACEHOLDERS);
}

fn stat_name(text: &str, placeholders: &[&str]) -> Result<String, String> {
    let parts: Vec<_> = text.split('%').collect();
    if parts.len() % 2 == 0 {
        return Err("one % has no other: placeholders are written %SERVICE%".to_owned());
    }
    let unknown = parts.iter().skip(1).step_by(2).find(|name| !placeholders.contains(name));
    if let Some(name) = unknown {
        return Err(format!("there is no %{name}% here: use %{}%", placeholders.join("%, %")));
    }
    let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "%._-|;:".contains(*c)));
    match odd {
        Some(c) => Err(format!("{c:?} cannot be part of a statistic's name")),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
