//! Where requests and connections are logged, and in which words.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    MESH, format,
    providers::{Kind, Provider, Providers},
};
use crate::{
    api::meshwright::{
        MeshInstallationSpec, MeshSettings, Profile,
        mesh::{AccessLogEncoding, LogFormat as ApiFormat},
    },
    mesh::{
        AccessLog, LogFormat, LogStream,
        report::{OrReport, Path, Report},
    },
};

const STDOUT: &str = "/dev/stdout";
const STDERR: &str = "/dev/stderr";

/// The format of the mesh, for logs that have none of their own.
pub(super) fn standard(mesh: &MeshSettings, report: &mut Report) -> LogFormat {
    let path = MESH.field("accessLogFormat");
    let given = mesh.access_log_format.as_str();
    let reason = "InvalidLogFormat";
    match (mesh.access_log_encoding, given) {
        (AccessLogEncoding::Text, "") => LogFormat::StandardText,
        (AccessLogEncoding::Json, "") => LogFormat::StandardJson,
        (AccessLogEncoding::Text, text) => line(text)
            .or_report(report, &path, reason)
            .map_or(LogFormat::StandardText, LogFormat::Text),
        (AccessLogEncoding::Json, text) => object(text)
            .or_report(report, &path, reason)
            .map_or(LogFormat::StandardJson, LogFormat::Json),
    }
}

/// A line of a log; one that does not end would run into the next.
fn line(text: &str) -> Result<String, String> {
    let text = format::checked(text)?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// The fields of a JSON object whose values are texts.
fn object(text: &str) -> Result<BTreeMap<String, String>, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("with encoding JSON it must be a JSON object: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("with encoding JSON it must be a JSON object".to_owned());
    };
    let field = |(name, value): (String, Value)| match value {
        Value::String(text) => {
            let text = format::checked(&text).map_err(|error| format!("{name}: {error}"))?;
            Ok((name, text))
        }
        _ => Err(format!("the value of {name} must be a text in quotes")),
    };
    fields.into_iter().map(field).collect()
}

/// The format that a file of a provider has.
pub(super) fn of_file(
    given: Option<&ApiFormat>,
    standard: &LogFormat,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<LogFormat> {
    let Some(given) = given else { return Some(standard.clone()) };
    match (given.text.as_str(), given.labels.is_empty()) {
        ("", true) => Some(standard.clone()),
        (text, true) => line(text)
            .or_report(report, &path.field("text"), "InvalidLogFormat")
            .map(LogFormat::Text),
        ("", false) => labels(&given.labels, path, report).map(LogFormat::Json),
        (_, false) => {
            report.error(path, "Contradiction", "give one of text and labels, not both");
            None
        }
    }
}

/// Names with texts; `None` if one of them is wrong.
pub(super) fn labels(
    labels: &BTreeMap<String, String>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<BTreeMap<String, String>> {
    let path = path.field("labels");
    let mut sound = BTreeMap::new();
    for (name, text) in labels {
        let text = format::checked(text).or_report(report, &path.key(name), "InvalidLogFormat");
        sound.extend(text.map(|text| (name.clone(), text)));
    }
    (sound.len() == labels.len()).then_some(sound)
}

/// Where every proxy logs.
pub(super) fn convert(
    spec: &MeshInstallationSpec,
    standard: &LogFormat,
    providers: &Providers,
    report: &mut Report,
) -> Vec<AccessLog> {
    let named = &spec.mesh.default_providers.access_logging;
    if named.is_empty() {
        let file = file(spec).or_report(report, &MESH.field("accessLogFile"), "InvalidPath");
        let file = file.flatten();
        return file
            .map(|stream| AccessLog::File { stream, format: standard.clone() })
            .into_iter()
            .collect();
    }
    let path = MESH.field("defaultProviders");
    let path = path.field("accessLogging");
    let mut logs = Vec::new();
    for provider in providers.named(named, Kind::Log, &path, report) {
        if let Provider::Log(log) = provider {
            logs.push(log.clone());
        }
    }
    logs
}

fn file(spec: &MeshInstallationSpec) -> Result<Option<LogStream>, String> {
    match spec.mesh.access_log_file.as_deref() {
        None if spec.profile == Profile::Demo => Ok(Some(LogStream::Stdout)),
        None | Some("") => Ok(None),
        Some(path) => stream(path).map(Some),
    }
}

/// One of the container's streams. Another file may be in a folder that some proxy does not have, and
/// Envoy refuses a listener whose log it cannot open: that proxy would be without any.
pub(super) fn stream(path: &str) -> Result<LogStream, String> {
    match path {
        STDOUT => Ok(LogStream::Stdout),
        STDERR => Ok(LogStream::Stderr),
        _ => Err(format!(
            "{path:?} may not be there in every proxy, which would then serve nothing: use {STDOUT} \
             or {STDERR}"
        )),
    }
}
