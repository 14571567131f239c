//! The application's probes go through the agent: under STRICT mutual TLS the kubelet, which has no
//! certificate of the mesh, could not reach the application otherwise.

use serde_json::{Map, Value, json};

use super::container::AGENT_PORT;

/// Fields of a container that hold probes, with the last part of the path that the agent answers.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const PREFIX: &str = "/app-health/";

/// Rewrites the probes of one container and notes the originals in `originals`, by path. Probes that
/// an earlier injection has rewritten keep their entry of `before`.
pub(super) fn rewrite(
    container: &mut Map<String, Value>,
    before: &Map<String, Value>,
    originals: &mut Map<String, Value>,
) {
    let Some(name) = container.get("name").and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    let ports = container.get("ports").cloned();
    for (field, last) in PROBES {
        let path = format!("{PREFIX}{name}/{last}");
        let Some(Value::Object(probe)) = container.get_mut(field) else { continue };
        if is_rewritten(probe, &path) {
            if let Some(original) = before.get(&path) {
                originals.insert(path, original.clone());
            }
            continue;
        }
        let Some(mut original) = original(probe, ports.as_ref()) else { continue };
        let timeout = probe.get("timeoutSeconds").cloned().unwrap_or_else(|| json!(1));
        original.insert("timeoutSeconds".to_owned(), timeout);
        for handler in ["httpGet", "tcpSocket", "grpc"] {
            probe.remove(handler);
        }
        let ours = json!({"path": path, "port": AGENT_PORT, "scheme": "HTTP"});
        probe.insert("httpGet".to_owned(), ours);
        originals.insert(path, Value::Object(original));
    }
}

fn is_rewritten(probe: &Map<String, Value>, path: &str) -> bool {
    let Some(http) = probe.get("httpGet") else { return false };
    http.get("path").and_then(Value::as_str) == Some(path)
        && http.get("port").and_then(Value::as_i64) == Some(i64::from(AGENT_PORT))
}

/// The probe's handler with its port as a number; `None` where the agent is not to take it over:
/// a command, a port that does not exist, or a host that is not the pod.
fn original(probe: &Map<String, Value>, ports: Option<&Value>) -> Option<Map<String, Value>> {
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        let Some(Value::Object(action)) = probe.get(handler) else { continue };
        if action.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            return None;
        }
        let mut action = action.clone();
        let port = resolve(action.get("port")?, ports)?;
        action.insert("port".to_owned(), port.into());
        return Some(Map::from_iter([(handler.to_owned(), Value::Object(action))]));
    }
    None
}

fn resolve(port: &Value, ports: Option<&Value>) -> Option<u16> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let Some(name) = port.as_str() else { return number(port) };
    if let Ok(port) = name.parse() {
        return Some(port);
    }
    ports?
        .as_array()?
        .iter()
        .find(|port| port.get("name").and_then(Value::as_str) == Some(name))
        .and_then(|port| number(port.get("containerPort")?))
}
