//! What the operator makes for gateways: those of an installation and those of the Gateway API, with
//! everything that can be asked of them, and many at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome},
    manifest,
    testbed::{self, MESHED, SYSTEM, items},
};
use crate::{
    cluster::{Cluster, wait_for},
    steps,
};

const HOST: &str = "gateways.example.test";
/// The gateway of the installation, and the Gateway.
const NAME: &str = "tested";
const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
const OBJECTS: &str = "deployments,services,serviceaccounts,hpa,pdb";
/// A drift is undone within that.
const REPAIR: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(90);
/// Where the many are.
const CROWD: &str = "gateway-crowd";
const MANY: usize = 200;

/// A gateway of the MeshInstallation with an autoscaler, a budget and patches gets an address and
/// serves; what is deleted comes back; taken out of the list, nothing of it stays.
pub fn of_an_installation(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    take_out(cluster)?;
    json_patch(cluster, &json!([{"op": "add", "path": "/spec/gateways/-", "value": gateway()}]))?;
    let outcome = serves(cluster);
    // Whatever happened: later tests count the gateways.
    let removed = take_out(cluster);
    outcome?;
    removed?;
    nothing_left(cluster, SYSTEM, &format!("meshwright.dev/gateway={NAME}"))
}

fn serves(cluster: &Cluster) -> Result<()> {
    let address = wait_for("an address in the installation's status", PATIENCE, || {
        let installation = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let gateways = installation["status"]["gateways"].as_array().cloned().unwrap_or_default();
        let found = gateways.iter().find(|gateway| gateway["name"] == NAME);
        let address = found.and_then(|gateway| gateway["address"].as_str());
        Ok(address.filter(|address| !address.is_empty()).map(str::to_owned))
    })?;
    let get = |kind: &str| cluster.kubectl_json(&["get", kind, NAME, "--namespace", SYSTEM]);
    ensure!(get("hpa")?["spec"]["maxReplicas"] == 2, "the autoscaler: {}", get("hpa")?);
    ensure!(get("pdb")?["spec"]["maxUnavailable"] == 1, "the budget: {}", get("pdb")?);
    let service = get("service")?;
    let annotations = &service["metadata"]["annotations"];
    ensure!(annotations["example.com/patched"] == "yes", "the Service's: {annotations}");
    let deployment = get("deployment")?;
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    ensure!(env.to_string().contains("PATCHED"), "the patched environment: {env}");
    ensure!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0);
    manifest::rolled_out(cluster, SYSTEM, &[&format!("deploy/{NAME}")])?;

    manifest::apply(cluster, &[istio_gateway(), istio_route()])?;
    let machine = Client::machine(cluster);
    let url = format!("http://{address}/");
    machine.until("HTTP through the gateway", &url, &["--host", HOST], Outcome::ok)?;
    testbed::delete(cluster, MESHED, "gateways.networking.istio.io", NAME)?;
    testbed::delete(cluster, MESHED, "virtualservice", NAME)?;
    comes_back(cluster, SYSTEM, "pdb", NAME)
}

fn gateway() -> Value {
    let container =
        json!({"name": "meshwright-proxy", "env": [{"name": "PATCHED", "value": "yes"}]});
    json!({
        "name": NAME, "namespace": SYSTEM, "kind": "Ingress",
        "autoscaling": {"minReplicas": 1, "maxReplicas": 2},
        "disruptionBudget": {"maxUnavailable": 1},
        "labels": {"istio": NAME},
        "ports": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        "patches": [
            {"kind": "Deployment", "patch": {"spec": {"template": {"spec": {"containers": [container]}}}}},
            {"kind": "Service", "patch": {"metadata": {"annotations": {"example.com/patched": "yes"}}}},
        ],
    })
}

fn istio_gateway() -> Value {
    let port = json!({"number": 80, "name": "http", "protocol": "HTTP"});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"namespace": MESHED, "name": NAME},
        "spec": {"selector": {"istio": NAME}, "servers": [{"port": port, "hosts": [HOST]}]},
    })
}

fn istio_route() -> Value {
    let destination = json!({"host": "named", "port": {"number": 80}});
    let http = json!([{"route": [{"destination": destination}]}]);
    let mut route = manifest::virtual_service(MESHED, NAME, &[HOST], &http);
    route["spec"]["gateways"] = json!([NAME]);
    route
}

/// Takes the gateway out of the installation's list, if it is there.
fn take_out(cluster: &Cluster) -> Result<()> {
    let installation = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    let gateways = installation["spec"]["gateways"].as_array().context("it has gateways")?;
    let Some(at) = gateways.iter().position(|gateway| gateway["name"] == NAME) else {
        return Ok(());
    };
    let path = format!("/spec/gateways/{at}");
    let is_it = json!({"op": "test", "path": format!("{path}/name"), "value": NAME});
    json_patch(cluster, &json!([is_it, {"op": "remove", "path": path}]))
}

fn json_patch(cluster: &Cluster, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let arguments = ["patch", "meshinstallation", "default", "--type=json", "--patch", &patch];
    cluster.kubectl(&arguments).map(drop)
}

/// Deletes an object and waits for another of its name.
fn comes_back(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> Result<()> {
    let uid = || -> Result<Option<String>> {
        let arguments = [
            "get",
            kind,
            name,
            "--namespace",
            namespace,
            "--ignore-not-found",
            "-o",
            "jsonpath={.metadata.uid}",
        ];
        let uid = cluster.kubectl(&arguments)?.trim().to_owned();
        Ok((!uid.is_empty()).then_some(uid))
    };
    let before = uid()?.with_context(|| format!("there is no {kind} {name}"))?;
    testbed::delete(cluster, namespace, kind, name)?;
    wait_for(&format!("{kind} {name} comes back"), REPAIR, || {
        Ok(uid()?.filter(|uid| *uid != before).map(drop))
    })
}

fn nothing_left(cluster: &Cluster, namespace: &str, selector: &str) -> Result<()> {
    wait_for("nothing is left of the gateway", PATIENCE, || {
        let arguments = ["get", OBJECTS, "--namespace", namespace, "--selector", selector];
        let list = cluster.kubectl_json(&arguments)?;
        let left: Vec<_> =
            items(&list).map(|o| format!("{} {}", o["kind"], o["metadata"]["name"])).collect();
        ensure!(left.is_empty(), "there is still {}", left.join(", "));
        Ok(Some(()))
    })
}

/// A Gateway with labels, annotations and parameters: missing ones are said, good ones are taken, and
/// traffic goes through what was made of them.
pub fn of_the_gateway_api(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    testbed::delete(cluster, MESHED, "configmap", NAME)?;
    manifest::apply(cluster, &[api_gateway(), api_route()])?;
    condition(cluster, "Accepted", "False", "InvalidParameters")?;
    manifest::apply(cluster, &[parameters(MESHED, &parameter_data())])?;
    condition(cluster, "Accepted", "True", "Accepted")?;
    condition(cluster, "Programmed", "True", "Programmed")?;

    let name = format!("{NAME}-meshwright");
    let get = |kind: &str| cluster.kubectl_json(&["get", kind, &name, "--namespace", MESHED]);
    for kind in ["deployment", "service", "serviceaccount", "hpa", "pdb"] {
        let metadata = get(kind)?["metadata"].clone();
        ensure!(metadata["labels"]["team"] == "edge", "labels of the {kind}: {metadata}");
        ensure!(metadata["annotations"]["example.com/cost"] == "low", "of the {kind}: {metadata}");
    }
    ensure!(get("hpa")?["spec"]["maxReplicas"] == 3, "the autoscaler: {}", get("hpa")?);
    let env = get("deployment")?["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    ensure!(env.contains("PATCHED"), "the patched environment: {env}");

    let gateway = cluster.kubectl_json(&["get", GATEWAYS, NAME, "--namespace", MESHED])?;
    let address = gateway["status"]["addresses"][0]["value"].as_str().context("no address")?;
    let machine = Client::machine(cluster);
    let url = format!("http://{address}/");
    machine.until("HTTP through the Gateway", &url, &["--host", HOST], Outcome::ok)?;
    comes_back(cluster, MESHED, "deployment", &name)?;

    // Bad parameters change nothing of what runs.
    let bad = json!({"deployment": "spec: {selector: null}"});
    manifest::apply(cluster, &[parameters(MESHED, &bad)])?;
    condition(cluster, "Accepted", "False", "InvalidParameters")?;
    manifest::rolled_out(cluster, MESHED, &[&format!("deploy/{name}")])?;
    machine.until("HTTP as before", &url, &["--host", HOST], Outcome::ok)?;

    testbed::delete(cluster, MESHED, "httproute", NAME)?;
    testbed::delete(cluster, MESHED, GATEWAYS, NAME)?;
    testbed::delete(cluster, MESHED, "configmap", NAME)?;
    let selector = format!("gateway.networking.k8s.io/gateway-name={NAME}");
    nothing_left(cluster, MESHED, &selector)
}

fn api_gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": MESHED, "name": NAME},
        "spec": {
            "gatewayClassName": "meshwright",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            "infrastructure": {
                "labels": {"team": "edge"},
                "annotations": {"example.com/cost": "low"},
                "parametersRef": {"group": "", "kind": "ConfigMap", "name": NAME},
            },
        },
    })
}

fn api_route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": MESHED, "name": NAME},
        "spec": {
            "parentRefs": [{"name": NAME}],
            "hostnames": [HOST],
            "rules": [{"backendRefs": [{"name": "named", "port": 80}]}],
        },
    })
}

fn parameter_data() -> Value {
    let container =
        json!({"name": "meshwright-proxy", "env": [{"name": "PATCHED", "value": "yes"}]});
    let deployment = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    json!({
        "deployment": deployment.to_string(),
        "horizontalPodAutoscaler": "spec: {minReplicas: 1, maxReplicas: 3}",
        "podDisruptionBudget": "spec: {maxUnavailable: 1}",
    })
}

fn parameters(namespace: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": NAME}, "data": data,
    })
}

fn condition(cluster: &Cluster, kind: &str, status: &str, reason: &str) -> Result<()> {
    wait_for(&format!("{kind}={status} for {reason}"), PATIENCE, || {
        let gateway = cluster.kubectl_json(&["get", GATEWAYS, NAME, "--namespace", MESHED])?;
        let conditions = gateway["status"]["conditions"].clone();
        let list = conditions.as_array().cloned().unwrap_or_default();
        let good = |c: &Value| c["type"] == kind && c["status"] == status && c["reason"] == reason;
        ensure!(list.iter().any(good), "its conditions are {conditions}");
        Ok(Some(()))
    })
}

/// Many Gateways from nothing. They ask for no pods, of which one node would not hold so many.
pub fn many(cluster: &Cluster) -> Result<()> {
    let data = json!({
        "deployment": "spec: {replicas: 0}", "service": "spec: {type: ClusterIP}",
    });
    let mut objects = vec![manifest::unlabelled_namespace(CROWD), parameters(CROWD, &data)];
    manifest::apply(cluster, &objects)?;
    objects.clear();
    for number in 0..MANY {
        let mut gateway = api_gateway();
        gateway["metadata"] = json!({"namespace": CROWD, "name": format!("{NAME}-{number}")});
        objects.push(gateway);
    }
    let start = Instant::now();
    manifest::apply(cluster, &objects)?;
    let outcome = wait_for("every Gateway has what it needs", Duration::from_mins(1), || {
        let gateways = cluster.kubectl_json(&["get", GATEWAYS, "--namespace", CROWD])?;
        let made = items(&gateways).filter(|gateway| has_address(gateway)).count();
        ensure!(made == MANY, "{made} of {MANY} have an address");
        let deployments = cluster.kubectl_json(&["get", "deployments", "--namespace", CROWD])?;
        let made = items(&deployments).count();
        ensure!(made == MANY, "{made} of {MANY} have a Deployment");
        Ok(Some(start.elapsed()))
    });
    testbed::delete_namespace(cluster, CROWD)?;
    let took = outcome?.as_secs_f64();
    steps::print(&format!("        {MANY} Gateways from nothing: {took:.1} s"));
    Ok(())
}

fn has_address(gateway: &Value) -> bool {
    gateway["status"]["addresses"][0]["value"].is_string()
}
