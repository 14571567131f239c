//! The agent's DNS: hosts that no other DNS knows, and answers without a control plane.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome},
    manifest::{self, Workload},
    resilience::Outage,
    testbed::{self, PLAIN},
};
use crate::cluster::Cluster;

const NAMESPACE: &str = "dns-tests";
const HOST: &str = "outside.example";

/// A pod whose DNS is captured finds the host of a ServiceEntry and services by short and whole
/// names; it goes on to do so while the control plane is away. A pod whose
/// DNS is not captured does not find the host.
pub fn agents_answer(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let image = cluster.testapp_image();
    let outside = testbed::pod_ip(cluster, PLAIN, "server")?;
    let [account, mut captured] = Workload::client(NAMESPACE, "captured").objects(image);
    captured["spec"]["template"]["metadata"]["annotations"] =
        json!({"meshwright.dev/dns-capture": "true"});
    let mut objects =
        vec![manifest::namespace(NAMESPACE, true), service_entry(&outside), account, captured];
    objects.extend(Workload::client(NAMESPACE, "ordinary").objects(image));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/captured", "deploy/ordinary"])?;

    let client = Client::pod(cluster, NAMESPACE, "deploy/captured");
    finds_everything(&client)?;
    let ordinary = Client::pod(cluster, NAMESPACE, "deploy/ordinary");
    let url = format!("http://{HOST}/");
    let unknown = ordinary.call(&url, &["--timeout", "5s"])?;
    ensure!(!unknown.ok(), "a pod whose DNS is not captured found {HOST}: {unknown}");

    let outage = Outage::begin(cluster)?;
    let found = finds_everything(&client);
    outage.end()?;
    found?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

fn finds_everything(client: &Client<'_>) -> Result<()> {
    let plain = format!("http://named.{PLAIN}/");
    let full = format!("http://named.{}.svc.cluster.local/", testbed::MESHED);
    for url in [&format!("http://{HOST}/"), &plain, &full] {
        client.until("an answer by name", url, &[], Outcome::ok)?;
    }
    Ok(())
}

fn service_entry(address: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"namespace": NAMESPACE, "name": "outside"},
        "spec": {
            "hosts": [HOST],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}],
            "endpoints": [{"address": address}],
        },
    })
}
