//! What most tests share: two namespaces, one in the mesh and one not, each with a server of every
//! protocol and a pod to call from. Made by whichever test comes first, taken away by the last.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::Client,
    manifest::{self, Port, Workload},
    workloads,
};
use crate::cluster::{Cluster, wait_for};

/// The namespace in the mesh.
pub const MESHED: &str = "mesh-tests";
/// The namespace that is not.
pub const PLAIN: &str = "plain-tests";
/// Where the mesh itself runs.
pub const SYSTEM: &str = "meshwright-system";

/// A protocol, as servers offer it and clients call it.
pub struct Wire {
    /// Scheme of the client's URL.
    pub scheme: &'static str,
    /// Flag of the server.
    flag: &'static str,
    /// Port of every Service.
    pub port: u16,
    /// Port of the container for the first declaration, and 100 more for each other.
    target: u16,
    name: &'static str,
    app_protocol: &'static str,
    anonymous: &'static str,
    /// Whether requests have headers, so that the server can show who called.
    pub http: bool,
}

impl Wire {
    const fn new(scheme: &'static str, flag: &'static str, port: u16, target: u16) -> Self {
        let (name, app_protocol, anonymous) = ("", "", "");
        Self { scheme, flag, port, target, name, app_protocol, anonymous, http: true }
    }

    const fn says(self, name: &'static str, app: &'static str, anonymous: &'static str) -> Self {
        Self { name, app_protocol: app, anonymous, ..self }
    }

    const fn without_headers(self) -> Self {
        Self { http: false, ..self }
    }
}

/// Every protocol. The names of undeclared ports must mean nothing.
pub const WIRES: [Wire; 5] = [
    Wire::new("http", "--http", 80, 8080).says("http-web", "http", "one"),
    Wire::new("h2c", "--http2", 81, 8081).says("http2", "kubernetes.io/h2c", "two"),
    Wire::new("grpc", "--grpc", 50051, 50051).says("grpc", "grpc", "three"),
    Wire::new("tcp", "--tcp", 9000, 9000).says("tcp-lines", "tcp", "four").without_headers(),
    Wire::new("banner", "--server-first", 9306, 9306)
        .says("mysql", "mysql", "five")
        .without_headers(),
];

/// How a Service says what its ports speak. Each has container ports of its own, so that no two
/// Services say different things about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declaration {
    PortName,
    AppProtocol,
    Nothing,
}

impl Declaration {
    pub const ALL: [Self; 3] = [Self::PortName, Self::AppProtocol, Self::Nothing];

    /// Name of the Service.
    pub fn service(self) -> &'static str {
        match self {
            Self::PortName => "named",
            Self::AppProtocol => "declared",
            Self::Nothing => "detected",
        }
    }

    fn offset(self) -> u16 {
        match self {
            Self::PortName => 0,
            Self::AppProtocol => 100,
            Self::Nothing => 200,
        }
    }

    fn port(self, wire: &Wire) -> Port {
        let (name, app_protocol) = match self {
            Self::PortName => (wire.name, None),
            Self::AppProtocol => (wire.anonymous, Some(wire.app_protocol.to_owned())),
            Self::Nothing => (wire.anonymous, None),
        };
        let target = wire.target + self.offset();
        Port { name: name.to_owned(), app_protocol, number: wire.port, target }
    }
}

/// URL of a protocol of a Service.
pub fn url(wire: &Wire, declaration: Declaration, namespace: &str) -> String {
    format!("{}://{}.{namespace}:{}", wire.scheme, declaration.service(), wire.port)
}

/// The pod in the mesh to call from.
pub fn meshed_client(cluster: &Cluster) -> Client<'_> {
    Client::pod(cluster, MESHED, "deploy/client")
}

/// The pod outside the mesh to call from.
pub fn plain_client(cluster: &Cluster) -> Client<'_> {
    Client::pod(cluster, PLAIN, "deploy/client")
}

/// The identity of a service account of the meshed namespace.
pub fn principal(account: &str) -> String {
    format!("spiffe://cluster.local/ns/{MESHED}/sa/{account}")
}

/// Makes sure that the testbed stands.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let mut objects =
        vec![manifest::namespace(MESHED, true), manifest::unlabelled_namespace(PLAIN)];
    for namespace in [MESHED, PLAIN] {
        objects.extend(server(namespace).objects(image));
        objects.extend(Workload::client(namespace, "client").objects(image));
        for declaration in Declaration::ALL {
            let ports: Vec<Port> = WIRES.iter().map(|wire| declaration.port(wire)).collect();
            objects.push(manifest::service(namespace, declaration.service(), "server", &ports));
        }
    }
    manifest::apply(cluster, &objects)?;
    for namespace in [MESHED, PLAIN] {
        manifest::rolled_out(cluster, namespace, &["deploy/server", "deploy/client"])?;
    }
    injected(cluster)
}

fn server(namespace: &str) -> Workload<'_> {
    let mut flags = Vec::new();
    for wire in &WIRES {
        for declaration in Declaration::ALL {
            flags.push(wire.flag.to_owned());
            flags.push(declaration.port(wire).target.to_string());
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Workload::server(namespace, "server", "v1", &flags).ready_on(8080)
}

/// Refuses a testbed whose pods are not what the tests take them for.
fn injected(cluster: &Cluster) -> Result<()> {
    for (namespace, meshed) in [(MESHED, true), (PLAIN, false)] {
        let pods = cluster.kubectl_json(&["get", "pods", "--namespace", namespace])?;
        for pod in items(&pods) {
            let name = &pod["metadata"]["name"];
            if pod["metadata"]["labels"]["meshwright.dev/gateway"].is_string() {
                // A gateway of another scenario, which is a proxy itself.
                continue;
            }
            let sidecar = items_of(&pod["spec"]["initContainers"])
                .any(|container| container["name"] == "meshwright-proxy");
            ensure!(sidecar == meshed, "pod {namespace}/{name}: has a sidecar: {sidecar}");
        }
    }
    Ok(())
}

/// Items of a list from kubectl.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    items_of(&list["items"])
}

fn items_of(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Address of the one pod with label `app` that is not on its way out.
pub fn pod_ip(cluster: &Cluster, namespace: &str, app: &str) -> Result<String> {
    wait_for(&format!("address of {namespace}/{app}"), Duration::from_secs(30), || {
        let selector = format!("app={app}");
        let arguments = ["get", "pods", "--namespace", namespace, "--selector", &selector];
        let pods = cluster.kubectl_json(&arguments)?;
        let pod = items(&pods).find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pod.and_then(|pod| pod["status"]["podIP"].as_str()).map(str::to_owned))
    })
}

/// Deletes an object and does not mind if there is none.
pub fn delete(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> Result<()> {
    let arguments = ["delete", kind, name, "--namespace", namespace, "--ignore-not-found"];
    cluster.kubectl(&arguments).map(drop)
}

/// Deletes a namespace; waiting for its end is for whoever needs it.
pub fn delete_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait=false"]).map(drop)
}

/// Takes the testbed away. Meshed pods must end by themselves, well before the kubelet kills them.
pub fn remove(cluster: &Cluster) -> Result<()> {
    delete_namespace(cluster, workloads::NAMESPACE)?;
    for namespace in [MESHED, PLAIN] {
        delete_namespace(cluster, namespace)?;
    }
    for namespace in [MESHED, PLAIN] {
        let gone = format!("namespace/{namespace}");
        cluster
            .kubectl(&["wait", "--for=delete", &gone, "--timeout=90s"])
            .with_context(|| format!("pods of {namespace} do not end"))?;
    }
    Ok(())
}

/// A rule that sends everything to one subset.
pub fn all_to(host: &str, subset: &str) -> Value {
    json!([{"route": [{"destination": {"host": host, "subset": subset}}]}])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_declarations_share_a_container_port() {
        let mut targets: Vec<u16> = Declaration::ALL
            .iter()
            .flat_map(|declaration| WIRES.iter().map(|wire| declaration.port(wire).target))
            .collect();
        let count = targets.len();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len(), count);
    }

    #[test]
    fn undeclared_ports_say_nothing() {
        for wire in &WIRES {
            let port = Declaration::Nothing.port(wire);
            assert_eq!(port.app_protocol, None);
            assert!(
                !port.name.contains('-')
                    && !["http", "http2", "grpc", "tcp"].contains(&&*port.name)
            );
        }
    }
}
