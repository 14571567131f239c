//! From outside into the mesh: Istio's Gateway with HTTP and HTTPS, and the Gateway API's.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome, PROPAGATION},
    manifest,
    testbed::{self, MESHED, SYSTEM},
};
use crate::cluster::{Cluster, wait_for};

const HOST: &str = "app.example.test";
const SECRET: &str = "app-example-test";

/// The address of the ingress gateway's Service.
pub fn address(cluster: &Cluster) -> Result<String> {
    wait_for("an address for the ingress gateway", Duration::from_mins(1), || {
        let arguments = ["get", "service", "ingress", "--namespace", SYSTEM];
        let service = cluster.kubectl_json(&arguments)?;
        let ingress = &service["status"]["loadBalancer"]["ingress"][0];
        let address = ingress["ip"].as_str().or_else(|| ingress["hostname"].as_str());
        Ok(address.map(str::to_owned))
    })
}

/// Istio's Gateway and a VirtualService: HTTP, HTTPS with a certificate from a Secret, and nothing
/// for hosts that nobody serves.
pub fn istio(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let folder = tempdir()?;
    certificate(folder.path())?;
    manifest::apply(cluster, &[secret(folder.path())?, istio_gateway(), istio_route()])?;
    let address = address(cluster)?;
    let machine = Client::machine(cluster);
    let url = format!("http://{address}/");
    let outcome =
        machine.until("HTTP through the gateway", &url, &["--host", HOST], Outcome::ok)?;
    from_gateway(&outcome, &format!("spiffe://cluster.local/ns/{SYSTEM}/sa/ingress"))?;
    forged_is_dropped(machine, &url)?;
    let stranger = machine.call(&url, &["--host", "nobody.example.test"])?;
    ensure!(stranger.status() == "404", "a host that nobody serves: {stranger}");
    https(cluster, &address, folder.path())?;
    testbed::delete(cluster, MESHED, "gateways.networking.istio.io", "app")?;
    testbed::delete(cluster, MESHED, "virtualservice", "app")?;
    testbed::delete(cluster, SYSTEM, "secret", SECRET)
}

/// What reached the server came in mutual TLS from the gateway.
fn from_gateway(outcome: &Outcome, gateway: &str) -> Result<()> {
    ensure!(outcome.field("service") == "server", "answered by {outcome}");
    let shown = outcome.caller_certificate().unwrap_or("nothing");
    ensure!(shown.contains(&format!("URI={gateway}")), "the server's proxy saw {shown}");
    Ok(())
}

fn forged_is_dropped(machine: Client<'_>, url: &str) -> Result<()> {
    let forged = "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/x/sa/forged";
    let outcome = machine.call(url, &["--host", HOST, "--header", forged])?.answered()?;
    let shown = outcome.caller_certificate().unwrap_or("nothing");
    ensure!(!shown.contains("forged"), "a forged identity came through the gateway: {shown}");
    Ok(())
}

fn https(cluster: &Cluster, address: &str, folder: &Path) -> Result<()> {
    wait_for("HTTPS through the gateway", PROPAGATION, || {
        let output = cluster
            .command("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "5", "--cacert"])
            .arg(folder.join("tls.crt"))
            .args([
                "--resolve",
                &format!("{HOST}:443:{address}"),
                &format!("https://{HOST}/secure"),
            ])
            .output()
            .context("run curl, which this test needs")?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), "curl: {said}");
        let answer: Value = serde_json::from_slice(&output.stdout).context("the server's JSON")?;
        ensure!(answer["path"] == "/secure", "answered {answer}");
        ensure!(answer["headers"]["x-forwarded-proto"] == "https", "answered {answer}");
        Ok(Some(()))
    })
}

fn istio_gateway() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"namespace": MESHED, "name": "app"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]},
                {
                    "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                    "hosts": [HOST],
                    "tls": {"mode": "SIMPLE", "credentialName": SECRET},
                },
            ],
        },
    })
}

fn istio_route() -> Value {
    let destination = json!({"host": "named", "port": {"number": 80}});
    let http = json!([{"route": [{"destination": destination}]}]);
    let mut route = manifest::virtual_service(MESHED, "app", &[HOST], &http);
    route["spec"]["gateways"] = json!(["app"]);
    route
}

/// A Gateway of the Gateway API gets a deployment and an address of its own.
pub fn gateway_api(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    cluster
        .kubectl(&["get", "crd", "gateways.gateway.networking.k8s.io"])
        .context("this test needs the Gateway API's CustomResourceDefinitions")?;
    manifest::apply(cluster, &[api_gateway(), api_route()])?;
    let address = wait_for("an address for the Gateway", Duration::from_secs(90), || {
        let kind = "gateways.gateway.networking.k8s.io";
        let gateway = cluster.kubectl_json(&["get", kind, "edge", "--namespace", MESHED])?;
        Ok(gateway["status"]["addresses"][0]["value"].as_str().map(str::to_owned))
    })?;
    let machine = Client::machine(cluster);
    let url = format!("http://{address}/");
    let outcome = wait_for("HTTP through the Gateway", Duration::from_mins(1), || {
        machine.call(&url, &["--host", HOST, "--timeout", "5s"])?.answered().map(Some)
    })?;
    ensure!(outcome.field("service") == "server", "answered by {outcome}");
    let shown = outcome.caller_certificate().unwrap_or("nothing");
    ensure!(shown.contains("URI=spiffe://cluster.local/"), "the server's proxy saw {shown}");
    condition(cluster, "gateways.gateway.networking.k8s.io", "edge", "/status/conditions")?;
    condition(cluster, "httproutes", "edge", "/status/parents/0/conditions")?;
    testbed::delete(cluster, MESHED, "httproute", "edge")?;
    testbed::delete(cluster, MESHED, "gateways.gateway.networking.k8s.io", "edge")
}

/// Waits until the object says that it is accepted.
fn condition(cluster: &Cluster, kind: &str, name: &str, pointer: &str) -> Result<()> {
    wait_for(&format!("{kind} {name} accepted"), PROPAGATION, || {
        let object = cluster.kubectl_json(&["get", kind, name, "--namespace", MESHED])?;
        let conditions = object.pointer(pointer).and_then(Value::as_array);
        let accepted =
            |condition: &Value| condition["type"] == "Accepted" && condition["status"] == "True";
        Ok(conditions.is_some_and(|list| list.iter().any(accepted)).then_some(()))
    })
}

fn api_gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": MESHED, "name": "edge"},
        "spec": {
            "gatewayClassName": "meshwright",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    })
}

fn api_route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": MESHED, "name": "edge"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "hostnames": [HOST],
            "rules": [{"backendRefs": [{"name": "named", "port": 80}]}],
        },
    })
}

fn certificate(folder: &Path) -> Result<()> {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", &format!("/CN={HOST}")])
        .args(["-addext", &format!("subjectAltName=DNS:{HOST}"), "-keyout"])
        .arg(folder.join("tls.key"))
        .arg("-out")
        .arg(folder.join("tls.crt"))
        .output()
        .context("run openssl, which this test needs")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn secret(folder: &Path) -> Result<Value> {
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).with_context(|| format!("read {name}"))
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": SYSTEM, "name": SECRET},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?},
    }))
}

/// A folder that goes when the test ends.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left behind is a folder in the temporary folder, and nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Result<TempDir> {
    let path = std::env::temp_dir().join(format!("meshwright-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(TempDir(path))
}
