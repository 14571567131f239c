//! What settings become, and what is said of those that cannot be.

use serde_json::{Value, json};

use super::*;
use crate::{
    api::meshwright::MeshInstallationSpec,
    diagnostic::Severity,
    mesh::{AccessLog, LogFormat, LogStream, Tracer},
};

fn convert_mesh(mesh: &Value) -> (MeshConfig, Vec<Diagnostic>) {
    let spec: MeshInstallationSpec = serde_json::from_value(json!({ "mesh": mesh })).unwrap();
    let mut config = MeshConfig::default();
    let report = convert(&MeshInstallation::new("mesh", spec), &mut config, None);
    (config, report.diagnostics)
}

fn settings(mesh: &Value) -> MeshConfig {
    let (config, found) = convert_mesh(mesh);
    assert_eq!(found, []);
    config
}

#[test]
fn an_empty_spec_is_the_default() {
    assert_eq!(settings(&json!({})), MeshConfig::default());
}

#[test]
fn profile_demo_logs_unless_told_otherwise() {
    let logs = |spec: Value| {
        let spec: MeshInstallationSpec = serde_json::from_value(spec).unwrap();
        let mut config = MeshConfig::default();
        convert(&MeshInstallation::new("mesh", spec), &mut config, None);
        config.access_logs
    };
    let stdout = AccessLog::File { stream: LogStream::Stdout, format: LogFormat::StandardText };
    assert_eq!(logs(json!({"profile": "demo"})), [stdout]);
    assert_eq!(logs(json!({"profile": "demo", "mesh": {"accessLogFile": ""}})), []);
    assert_eq!(logs(json!({"profile": "default"})), []);
}

#[test]
fn named_providers_take_the_place_of_the_file() {
    let config = settings(&json!({
        "accessLogFile": "/dev/stdout",
        "accessLogFormat": "%PROTOCOL%",
        "defaultProviders": {"accessLogging": ["errors"]},
        "extensionProviders": [
            {"name": "errors", "envoyFileAccessLog": {"path": "/dev/stderr"}},
        ],
    }));
    let format = LogFormat::Text("%PROTOCOL%\n".to_owned());
    assert_eq!(config.access_logs, [AccessLog::File { stream: LogStream::Stderr, format }]);
}

#[test]
fn a_wrong_setting_leaves_the_others() {
    let (config, found) = convert_mesh(&json!({
        "connectTimeout": "soon", "dnsRefreshRate": "10s", "accessLogFile": "/var/log/access",
    }));
    assert_eq!(config.connect_timeout, MeshConfig::default().connect_timeout);
    assert_eq!(config.dns_refresh, Some(Duration::from_secs(10)));
    let paths: Vec<_> = found.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(paths, ["spec.mesh.connectTimeout", "spec.mesh.accessLogFile"]);
}

#[test]
fn short_names_of_services_are_completed_where_there_are_services() {
    let provider = |service: &str| {
        json!({
            "defaultProviders": {"tracing": ["z"]},
            "extensionProviders": [{"name": "z", "zipkin": {"service": service, "port": 9411}}],
        })
    };
    let host = |service: &str| {
        let tracing = settings(&provider(service)).tracing.unwrap();
        let Tracer::Zipkin { collector, .. } = tracing.tracer else { panic!("not zipkin") };
        collector.host.to_string()
    };
    assert_eq!(host("tracing/zipkin"), "zipkin.tracing.svc.cluster.local");
    assert_eq!(host("zipkin.example.com"), "zipkin.example.com");
    let (config, found) = convert_mesh(&provider("zipkin"));
    assert_eq!(config.tracing, None);
    assert_eq!(found[0].path, "spec.mesh.extensionProviders[0].zipkin.service");
}

#[test]
fn a_provider_of_authorization_is_said_to_be_unused() {
    let (_, found) = convert_mesh(&json!({"extensionProviders": [
        {"name": "a", "envoyExtAuthzGrpc": {"service": "a.b.svc.cluster.local", "port": 1}},
    ]}));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].reason), (Severity::Warning, "NotUsed"));
}
