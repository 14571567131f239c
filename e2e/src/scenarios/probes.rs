//! The kubelet has no certificate, and its probes must work under STRICT all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome, PROGRAM},
    manifest,
    resilience::is_ready,
    testbed,
};
use crate::cluster::{Cluster, wait_for};

const NAMESPACE: &str = "probe-tests";

/// A pod with a container for each kind of probe becomes ready, stays alive, and stops being ready
/// when the application says so: then the answer came from the application.
pub fn work_under_strict(cluster: &Cluster) -> Result<()> {
    let objects = [
        manifest::namespace(NAMESPACE, true),
        manifest::peer_authentication(NAMESPACE, "STRICT"),
        deployment(cluster.testapp_image()),
    ];
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/probed"])?;
    let address = testbed::pod_ip(cluster, NAMESPACE, "probed")?;
    let machine = Client::machine(cluster);
    let url = format!("http://{address}:8080/");
    machine.until("plaintext refused", &url, &["--timeout", "5s"], |outcome| !outcome.ok())?;
    let inside = Client::pod(cluster, NAMESPACE, "deploy/probed");
    for (path, ready) in [("off", false), ("on", true)] {
        let url = format!("http://127.0.0.1:8080/healthz/{path}");
        inside.until("the application's switch", &url, &["--method", "POST"], Outcome::ok)?;
        wait_for(&format!("ready: {ready}"), Duration::from_secs(30), || {
            Ok((is_ready(&pod(cluster)?) == ready).then_some(()))
        })?;
    }
    let pod = pod(cluster)?;
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    for container in statuses {
        ensure!(container["restartCount"] == 0, "{} was restarted", container["name"]);
    }
    testbed::delete_namespace(cluster, NAMESPACE)
}

fn pod(cluster: &Cluster) -> Result<Value> {
    let arguments = ["get", "pods", "--namespace", NAMESPACE, "--selector", "app=probed"];
    Ok(cluster.kubectl_json(&arguments)?["items"][0].clone())
}

fn deployment(image: &str) -> Value {
    let url = "http://127.0.0.1:8080/healthz";
    let exec = json!({"exec": {"command": [PROGRAM, "client", "--url", url, "--fail"]}});
    let containers = [
        probed(
            "app",
            image,
            &["serve", "--http", "8080"],
            json!({"httpGet": {"path": "/healthz", "port": "web"}}),
            // Not the same path: what is not ready is not dead.
            json!({"httpGet": {"path": "/", "port": 8080}}),
        ),
        both("tcp", image, &["serve", "--tcp", "9000"], json!({"tcpSocket": {"port": 9000}})),
        both("grpc", image, &["serve", "--grpc", "50051"], json!({"grpc": {"port": 50051}})),
        probed("exec", image, &["pause"], exec, json!({"exec": {"command": [PROGRAM, "--help"]}})),
    ];
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": NAMESPACE, "name": "probed"},
        "spec": {
            "selector": {"matchLabels": {"app": "probed"}},
            "template": {
                "metadata": {"labels": {"app": "probed"}},
                "spec": {"containers": containers},
            },
        },
    })
}

fn both(name: &str, image: &str, args: &[&str], probe: Value) -> Value {
    probed(name, image, args, probe.clone(), probe)
}

fn probed(name: &str, image: &str, args: &[&str], readiness: Value, liveness: Value) -> Value {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let mut container = manifest::container(name, image, &args);
    if name == "app" {
        container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    }
    for (kind, mut probe) in [("readinessProbe", readiness), ("livenessProbe", liveness)] {
        probe["periodSeconds"] = json!(1);
        probe["timeoutSeconds"] = json!(2);
        container[kind] = probe;
    }
    container
}
