//! The application's probes and lifecycle handlers go through the agent: under STRICT mutual TLS the
//! kubelet, which has no certificate of the mesh, could not reach the application otherwise.
//!
//! What a handler asked for is noted by the path under which the agent answers in its place, so that
//! a later injection can keep it or put it back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::container::{AGENT_PORT, PROXY_CONTAINER, REDIRECT_CONTAINER};

/// Where the agent answers in place of a probe: fields of a container, and the last part of the path.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
/// Where it answers in place of a handler of `lifecycle`.
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];
/// What of a probe the agent can do. A command runs in its container.
const PROBE_ACTIONS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// What of a lifecycle handler. `sleep` and commands need nobody's help.
const HOOK_ACTIONS: [&str; 2] = ["httpGet", "tcpSocket"];
/// The name that a port had in an original. The agent needs the number, the pod's author the name.
const PORT_NAME: &str = "portName";
/// Ours, also under the names that the user's overlay of them may have.
const PROXIES: [&str; 4] = [PROXY_CONTAINER, REDIRECT_CONTAINER, "istio-proxy", "istio-init"];

/// Where handlers of application containers shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Through the agent. `native`: it starts before the user's init containers.
    Agent { native: bool },
    /// To the application, as its author wrote.
    Direct,
}

/// Changes the handlers of all application containers. What comes back is what the agent must know
/// of the originals, as JSON; `before` is what an earlier injection noted.
pub(super) fn route(
    spec: &mut Map<String, Value>,
    before: &Map<String, Value>,
    route: Route,
) -> Option<String> {
    let pod_ports = ["containers", "initContainers"]
        .iter()
        .filter_map(|field| spec.get(*field)?.as_array())
        .flatten()
        .flat_map(|container| named_ports(container.get("ports")))
        .collect();
    let mut rewriting = Rewriting { before, route, pod_ports, originals: Map::new() };
    for (field, blocks) in [("containers", false), ("initContainers", true)] {
        let Some(Value::Array(containers)) = spec.get_mut(field) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            rewriting.container(container, blocks);
        }
    }
    let originals = rewriting.originals;
    (!originals.is_empty()).then(|| Value::Object(originals).to_string())
}

struct Rewriting<'a> {
    before: &'a Map<String, Value>,
    route: Route,
    pod_ports: BTreeMap<String, u16>,
    originals: Map<String, Value>,
}

impl Rewriting<'_> {
    /// `blocks`: what comes after this container waits until it has started.
    fn container(&mut self, container: &mut Map<String, Value>, blocks: bool) {
        let Some(name) = container.get("name").and_then(Value::as_str) else { return };
        if PROXIES.contains(&name) {
            return;
        }
        let name = name.to_owned();
        // A classic proxy starts after all init containers, so that one of them that waits for the
        // agent's answer waits forever. The kubelet reaches it: nothing is redirected yet.
        let too_early = blocks && self.route == Route::Agent { native: false };
        let later = self.route;
        let at_start = if too_early { Route::Direct } else { later };
        let ports = named_ports(container.get("ports")).collect();
        for (field, last) in PROBES {
            let Some(Value::Object(probe)) = container.get_mut(field) else { continue };
            let route = if field == "startupProbe" { at_start } else { later };
            let path = format!("/app-health/{name}/{last}");
            self.handler(probe, route, &path, &PROBE_ACTIONS, &ports);
            self.note_timeout(probe, &path);
        }
        let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") else { return };
        for (field, last) in HOOKS {
            let Some(Value::Object(hook)) = lifecycle.get_mut(field) else { continue };
            let route = if field == "postStart" { at_start } else { later };
            let path = format!("/app-lifecycle/{name}/{last}");
            self.handler(hook, route, &path, &HOOK_ACTIONS, &ports);
        }
    }

    fn handler(
        &mut self,
        handler: &mut Map<String, Value>,
        route: Route,
        path: &str,
        actions: &[&'static str],
        ports: &BTreeMap<String, u16>,
    ) {
        let original = match asks_agent(handler) {
            // Another webhook may have renamed the container since.
            Some(earlier) => self.before.get(earlier).and_then(Value::as_object).cloned(),
            None => self.original(handler, actions, ports),
        };
        let Some(original) = original else { return };
        for action in actions {
            handler.remove(*action);
        }
        if route == Route::Direct {
            handler.extend(as_written(original));
            return;
        }
        let ours = json!({"path": path, "port": AGENT_PORT, "scheme": "HTTP"});
        handler.insert("httpGet".to_owned(), ours);
        self.originals.insert(path.to_owned(), Value::Object(original));
    }

    /// The agent gives up when the kubelet does.
    fn note_timeout(&mut self, probe: &Map<String, Value>, path: &str) {
        if let Some(Value::Object(original)) = self.originals.get_mut(path) {
            let timeout = probe.get("timeoutSeconds").cloned().unwrap_or_else(|| json!(1));
            original.insert("timeoutSeconds".to_owned(), timeout);
        }
    }

    /// The handler's action with its port as a number; `None` where the agent is not to take it
    /// over: another kind of action, a port that does not exist, or a host that is not the pod.
    fn original(
        &self,
        handler: &Map<String, Value>,
        actions: &[&'static str],
        ports: &BTreeMap<String, u16>,
    ) -> Option<Map<String, Value>> {
        let (kind, action) = actions
            .iter()
            .find_map(|kind| Some(((*kind).to_owned(), handler.get(*kind)?.as_object()?)))?;
        if action.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            return None;
        }
        let mut action = action.clone();
        let port = action.get("port")?.clone();
        action.insert("port".to_owned(), self.number(&port, ports)?.into());
        if port.is_string() {
            action.insert(PORT_NAME.to_owned(), port);
        }
        Some(Map::from_iter([(kind, Value::Object(action))]))
    }

    /// A port by its name in the container, else in the pod, else by its number.
    fn number(&self, port: &Value, ports: &BTreeMap<String, u16>) -> Option<u16> {
        let Some(name) = port.as_str() else { return as_port(port) };
        let named = ports.get(name).or_else(|| self.pod_ports.get(name));
        named.copied().or_else(|| name.parse().ok().filter(|number| *number != 0))
    }
}

/// The path by which this handler asks the agent already.
fn asks_agent(handler: &Map<String, Value>) -> Option<&str> {
    let http = handler.get("httpGet")?;
    let path = http.get("path")?.as_str()?;
    let ours = path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/");
    let port = http.get("port")?.as_i64();
    (ours && port == Some(i64::from(AGENT_PORT))).then_some(path)
}

/// An original as its author wrote it.
fn as_written(mut original: Map<String, Value>) -> Map<String, Value> {
    // Of a probe, which has it still.
    original.remove("timeoutSeconds");
    for action in original.values_mut().filter_map(Value::as_object_mut) {
        if let Some(name) = action.remove(PORT_NAME) {
            action.insert("port".to_owned(), name);
        }
    }
    original
}

fn named_ports(ports: Option<&Value>) -> impl Iterator<Item = (String, u16)> {
    ports.and_then(Value::as_array).into_iter().flatten().filter_map(|port| {
        let number = as_port(port.get("containerPort")?)?;
        Some((port.get("name")?.as_str()?.to_owned(), number))
    })
}

fn as_port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}
