//! Destinations that are not a Service with an address: pods by name, aliases, the unknown.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    client::Outcome,
    collector::Collector,
    manifest::{self, Port, Workload},
    testbed::{self, MESHED, PLAIN},
};
use crate::cluster::Cluster;

/// A port on the node that no Service stands for.
const NODE_PORT: u16 = 28080;

/// Pods of a StatefulSet by their own names, over HTTP and TCP, in mutual TLS.
pub fn headless(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let peers = Workload::server(MESHED, "peers", "v1", &["--http", "8080", "--tcp", "9000"])
        .replicas(2)
        .ready_on(8080);
    let image = cluster.testapp_image();
    let ports = [Port::named("http", 8080, 8080), Port::named("tcp", 9000, 9000)];
    let [account, _] = peers.objects(image);
    let stateful_set = peers.stateful_set(image, "peers");
    let service = manifest::headless_service(MESHED, "peers", "peers", &ports);
    manifest::apply(cluster, &[account, service, stateful_set])?;
    manifest::rolled_out(cluster, MESHED, &["statefulset/peers"])?;
    let client = testbed::meshed_client(cluster);
    let caller = testbed::principal("client");
    let mut collector = Collector::default();
    for pod in ["peers-0", "peers-1"] {
        let host = format!("{pod}.peers.{MESHED}.svc.cluster.local");
        collector.case(&format!("http to {pod}"), || {
            let url = format!("http://{host}:8080/");
            let outcome = client.until("the pod by its name", &url, &[], Outcome::ok)?;
            ensure!(outcome.field("pod") == pod, "answered by {}", outcome.field("pod"));
            let shown = outcome.caller_certificate().unwrap_or("nothing");
            ensure!(shown.contains(&caller), "the pod's proxy saw {shown}");
            Ok(())
        });
        collector.case(&format!("tcp to {pod}"), || {
            let outcome = client.call(&format!("tcp://{host}:9000"), &[])?.answered()?;
            ensure!(outcome.field("pod") == pod, "answered by {}", outcome.field("pod"));
            Ok(())
        });
    }
    collector.case("http to the service's own name", || {
        let outcome = client.call("http://peers:8080/", &[])?.answered()?;
        ensure!(outcome.field("service") == "peers", "answered by {outcome}");
        Ok(())
    });
    collector.verdict()?;
    cluster.kubectl(&["delete", "--namespace", MESHED, "statefulset/peers", "service/peers"])?;
    Ok(())
}

/// An alias of a Service outside the mesh, and of one inside.
pub fn external_name(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    for (alias, namespace) in [("alias-plain", PLAIN), ("alias-meshed", MESHED)] {
        let service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": MESHED, "name": alias},
            "spec": {
                "type": "ExternalName",
                "externalName": format!("named.{namespace}.svc.cluster.local"),
                "ports": [{"name": "http", "port": 80}],
            },
        });
        manifest::apply(cluster, &[service])?;
    }
    let client = testbed::meshed_client(cluster);
    let mut collector = Collector::default();
    for alias in ["alias-plain", "alias-meshed"] {
        collector.case(alias, || {
            let url = format!("http://{alias}/");
            let outcome = client.until("the alias", &url, &[], Outcome::ok)?;
            ensure!(outcome.field("service") == "server", "answered by {outcome}");
            Ok(())
        });
    }
    collector.verdict()?;
    for alias in ["alias-plain", "alias-meshed"] {
        testbed::delete(cluster, MESHED, "service", alias)?;
    }
    Ok(())
}

/// Addresses that no Service stands for pass through as they are.
pub fn unknown_passes_through(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let client = testbed::meshed_client(cluster);
    let pod_ip = testbed::pod_ip(cluster, PLAIN, "server")?;
    let _outsider = Outsider::start(cluster)?;
    let node_ip = node_ip(cluster)?;
    let mut collector = Collector::default();
    let urls = [
        // A port that a Service in the mesh has too, and one that none has.
        (format!("http://{pod_ip}:8080/"), "server"),
        (format!("tcp://{pod_ip}:9000"), "server"),
        (format!("banner://{pod_ip}:9306"), "server"),
        (format!("http://{node_ip}:{NODE_PORT}/"), "outsider"),
    ];
    for (url, service) in &urls {
        collector.case(url, || {
            let outcome = client.until("passing through", url, &[], Outcome::ok)?;
            ensure!(outcome.field("service") == *service, "answered by {outcome}");
            Ok(())
        });
    }
    collector.verdict()
}

fn node_ip(cluster: &Cluster) -> Result<String> {
    let nodes = cluster.kubectl_json(&["get", "nodes"])?;
    let addresses = nodes["items"][0]["status"]["addresses"].as_array().context("a node")?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
    let address = internal.and_then(|address| address["address"].as_str());
    address.map(str::to_owned).context("the node has no internal address")
}

/// A server on the node itself, of which Kubernetes knows nothing.
struct Outsider(Child);

impl Outsider {
    fn start(cluster: &Cluster) -> Result<Self> {
        let port = NODE_PORT.to_string();
        let child = cluster
            .command(&cluster.testapp_binary().to_string_lossy())
            .args(["serve", "--name", "outsider", "--http", &port, "--drain-delay", "0s"])
            .stdout(Stdio::null())
            .spawn()
            .context("start a server on the node")?;
        let outsider = Self(child);
        let machine = super::client::Client::machine(cluster);
        let url = format!("http://127.0.0.1:{NODE_PORT}/");
        crate::cluster::wait_for("the server on the node", Duration::from_secs(10), || {
            machine.call(&url, &[])?.answered().map(Some)
        })?;
        Ok(outsider)
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // It may have ended by itself already, and there is nobody left to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
