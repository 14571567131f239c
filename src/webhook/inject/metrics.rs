//! One scrape for all: the pod's Prometheus annotations lead to the agent, which adds the
//! application's own metrics to the proxy's.

use serde_json::{Map, Value, json};

use super::container::{AGENT_PORT, MERGED_METRICS_PATH as MERGED_PATH};

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";

/// Rewrites the annotations. What comes back is where the application's metrics are, for the agent;
/// `before` is what an earlier injection found.
pub(super) fn merge(
    annotations: &mut Map<String, Value>,
    before: Option<String>,
) -> Option<String> {
    let text = |annotations: &Map<String, Value>, key: &str| {
        annotations.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let scrape = text(annotations, SCRAPE);
    if scrape.as_deref() == Some("false") {
        return None;
    }
    let port = text(annotations, PORT);
    let path = text(annotations, PATH);
    let merged =
        port.as_deref() == Some(&AGENT_PORT.to_string()) && path.as_deref() == Some(MERGED_PATH);
    let application = if merged {
        before
    } else if scrape.as_deref() == Some("true") {
        let port = port.and_then(|port| port.parse::<u16>().ok()).unwrap_or(80);
        let path = path.unwrap_or_else(|| "/metrics".to_owned());
        Some(json!({"port": port, "path": path}).to_string())
    } else {
        None
    };
    annotations.insert(SCRAPE.to_owned(), "true".into());
    annotations.insert(PORT.to_owned(), AGENT_PORT.to_string().into());
    annotations.insert(PATH.to_owned(), MERGED_PATH.into());
    application
}
