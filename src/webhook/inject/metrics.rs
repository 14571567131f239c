//! One scrape for all: the pod's Prometheus annotations lead to the agent, which adds the
//! application's own metrics to the proxy's.

use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::container::{AGENT_PORT, MERGED_METRICS_PATH as MERGED_PATH};

const SCRAPE: &str = "prometheus.io/scrape";
const SCHEME: &str = "prometheus.io/scheme";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
/// Ours before Istio's, here and below.
const MERGE: [&str; 2] = ["meshwright.dev/merge-metrics", "prometheus.istio.io/merge-metrics"];
const TARGETS: [&str; 2] = ["meshwright.dev/scrape-targets", "prometheus.istio.io/scrape-targets"];
const SECURE_PORT: &str = "prometheus.istio.io/secure-port";

/// Where Prometheus looks if only the annotation that it should look is there.
const DEFAULT_PORT: u16 = 80;
const DEFAULT_PATH: &str = "/metrics";
/// More places than any pod has; the agent asks all of them at once.
const MOST_TARGETS: usize = 32;
/// Where the application cannot be, as the proxy is there.
const RESERVED: [(u16, &str); 9] = [
    (15000, "Envoy's administration"),
    (15001, "outbound traffic"),
    (15004, "debugging"),
    (15006, "inbound traffic"),
    (15008, "tunnels of the mesh"),
    (15020, "the agent"),
    (15021, "the proxy's health"),
    (15053, "the agent's DNS"),
    (15090, "Envoy's own metrics"),
];

/// An annotation that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {annotation} is {value:?}: {remedy}")]
pub struct Rejected {
    annotation: String,
    value: String,
    remedy: String,
}

/// Metrics of the application, as the agent reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Target {
    port: u16,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
}

/// Rewrites the annotations. What comes back is where the application's metrics are, for the agent;
/// `before` is what an earlier injection found, `wanted` whether pods that do not say want this.
pub(super) fn merge(
    annotations: &mut Map<String, Value>,
    before: Option<String>,
    wanted: bool,
) -> Result<Option<String>, Rejected> {
    let merged = is_merged(annotations);
    if !asked(annotations)?.unwrap_or(wanted) {
        if merged {
            put_back(annotations, before.as_deref());
        }
        return Ok(None);
    }
    if text(annotations, SCRAPE).is_some_and(|scrape| boolean(scrape) != Some(true)) {
        return Ok(None);
    }
    refuse_secure_port(annotations)?;
    let application = match listed(annotations)? {
        Some(targets) => encode(&targets),
        None if merged => before,
        None => single(annotations)?.and_then(|target| encode(&[target])),
    };
    annotations.insert(SCRAPE.to_owned(), "true".into());
    annotations.insert(PORT.to_owned(), AGENT_PORT.to_string().into());
    annotations.insert(PATH.to_owned(), MERGED_PATH.into());
    if let Some(scheme) = annotations.get_mut(SCHEME) {
        *scheme = "http".into();
    }
    Ok(application)
}

/// Whether the pod itself wants its metrics merged.
fn asked(annotations: &Map<String, Value>) -> Result<Option<bool>, Rejected> {
    let Some((name, value)) = first(annotations, MERGE) else { return Ok(None) };
    let remedy = || rejected(name, value, "it must be true or false".to_owned());
    boolean(value).ok_or_else(remedy).map(Some)
}

fn refuse_secure_port(annotations: &Map<String, Value>) -> Result<(), Rejected> {
    let Some(port) = text(annotations, SECURE_PORT) else { return Ok(()) };
    let remedy = format!(
        "the proxy does not serve metrics over mutual TLS; remove the annotation and scrape port \
         {AGENT_PORT}, or set {} to false if the pod itself serves that port",
        MERGE[0]
    );
    Err(rejected(SECURE_PORT, port, remedy))
}

/// The targets that the pod lists: `PORT` or `PORT:/PATH` each, with commas between them.
fn listed(annotations: &Map<String, Value>) -> Result<Option<Vec<Target>>, Rejected> {
    let Some((name, value)) = first(annotations, TARGETS) else { return Ok(None) };
    let reject = |remedy: String| rejected(name, value, remedy);
    let mut targets = Vec::new();
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let target = target(entry).map_err(reject)?;
        if targets.contains(&target) {
            return Err(reject(format!("{entry} is there twice")));
        }
        targets.push(target);
    }
    if targets.len() > MOST_TARGETS {
        return Err(reject(format!("there may be {MOST_TARGETS} targets at most")));
    }
    Ok((!targets.is_empty()).then_some(targets))
}

fn target(entry: &str) -> Result<Target, String> {
    const FORM: &str = "it must be a list of PORT or PORT:/PATH with commas, such as \
                        8080:/metrics,9090:/stats, with ports from 1 to 65535";
    let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
    let path = if path.is_empty() { DEFAULT_PATH } else { path };
    if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
        return Err(FORM.to_owned());
    }
    let port = port_number(port).ok_or(FORM)?;
    not_reserved(port)?;
    Ok(Target { port, path: path.to_owned(), scheme: None })
}

/// The one target of Prometheus' usual annotations.
fn single(annotations: &Map<String, Value>) -> Result<Option<Target>, Rejected> {
    if text(annotations, SCRAPE).is_none() {
        return Ok(None);
    }
    let port = match text(annotations, PORT) {
        None => DEFAULT_PORT,
        Some(value) => {
            let port =
                port_number(value).ok_or_else(|| "it must be a port from 1 to 65535".to_owned());
            let free = port.and_then(|port| not_reserved(port).map(|()| port));
            free.map_err(|remedy| rejected(PORT, value, remedy))?
        }
    };
    let path = match text(annotations, PATH) {
        None => DEFAULT_PATH.to_owned(),
        Some(value) => {
            let path = format!("/{}", value.trim_start_matches('/'));
            let form = |_| rejected(PATH, value, "it must be a path, such as /metrics".to_owned());
            path.parse::<PathAndQuery>().map_err(form)?;
            path
        }
    };
    let scheme = text(annotations, SCHEME).filter(|scheme| scheme.eq_ignore_ascii_case("https"));
    Ok(Some(Target { port, path, scheme: scheme.map(|_| "HTTPS".to_owned()) }))
}

fn not_reserved(port: u16) -> Result<(), String> {
    let Some((_, user)) = RESERVED.iter().find(|(reserved, _)| *reserved == port) else {
        return Ok(());
    };
    Err(format!("the proxy has port {port} for {user}; let the application use another"))
}

fn port_number(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// An earlier injection has led Prometheus to the agent.
fn is_merged(annotations: &Map<String, Value>) -> bool {
    let port = text(annotations, PORT).and_then(|port| port.parse().ok());
    port == Some(AGENT_PORT) && text(annotations, PATH) == Some(MERGED_PATH)
}

/// Leads Prometheus to the application again.
fn put_back(annotations: &mut Map<String, Value>, before: Option<&str>) {
    for name in [SCRAPE, PORT, PATH] {
        annotations.remove(name);
    }
    let targets = before.and_then(|json| serde_json::from_str::<Vec<Target>>(json).ok());
    // A listed target has an annotation of its own.
    if first(annotations, TARGETS).is_some() {
        return;
    }
    let Some(target) = targets.unwrap_or_default().into_iter().next() else { return };
    annotations.insert(SCRAPE.to_owned(), "true".into());
    annotations.insert(PORT.to_owned(), target.port.to_string().into());
    annotations.insert(PATH.to_owned(), target.path.into());
    if let Some(scheme) = target.scheme {
        annotations.insert(SCHEME.to_owned(), scheme.to_lowercase().into());
    }
}

fn encode(targets: &[Target]) -> Option<String> {
    // Numbers and strings always have a JSON form.
    serde_json::to_string(targets).ok()
}

fn text<'a>(annotations: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    annotations.get(name)?.as_str()
}

fn first<'a>(
    annotations: &'a Map<String, Value>,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    names.into_iter().find_map(|name| Some((name, text(annotations, name)?)))
}

/// As Istio and Prometheus' users write them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
        _ => None,
    }
}

fn rejected(annotation: &str, value: &str, remedy: String) -> Rejected {
    Rejected { annotation: annotation.to_owned(), value: value.to_owned(), remedy }
}
