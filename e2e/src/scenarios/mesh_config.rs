//! Settings of the whole mesh: each takes effect in running proxies, and no request is lost meanwhile.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome, PROPAGATION},
    load,
    manifest::{self, Port, Workload},
    testbed::{self, MESHED, PLAIN},
};
use crate::cluster::{Cluster, wait_for};

const INSTALLATION: &str = "default";
const LOAD: &str = "settings-load";
const COUNTED: &str = "counted";
const TRACES: &str = "traces";
const TRACES_PORT: u16 = 9411;
const PROXY: &str = "meshwright-proxy";

/// Logs, traces, unknown destinations, retries and discovery, one after the other under load.
pub fn take_effect(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    prepare(cluster)?;
    let settings = Settings::remember(cluster)?;
    text_log(&settings)?;
    zipkin(&settings)?;
    opentelemetry(&settings)?;
    missing_provider_says_so(&settings)?;
    registry_only_and_back(&settings)?;
    default_retries(&settings)?;
    hidden_namespace(&settings)?;
    settings.restore()?;
    load::stop(cluster, MESHED, LOAD)?.without_failures()?;
    for (namespace, name) in [(MESHED, LOAD), (MESHED, COUNTED), (PLAIN, TRACES)] {
        testbed::delete(cluster, namespace, "deployment", name)?;
        testbed::delete(cluster, namespace, "service", name)?;
    }
    Ok(())
}

/// A server whose requests are counted, a collector of traces, and the load.
fn prepare(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let counted = Workload::server(MESHED, COUNTED, "v1", &["--http", "8080"]).ready_on(8080);
    let collector = Workload {
        args: ["collect", "--listen", "9411"].map(str::to_owned).into(),
        ..Workload::client(PLAIN, TRACES).ready_on(TRACES_PORT)
    };
    let flags = ["--rate", "20", "--concurrency", "2"];
    let mut objects = Vec::new();
    objects.extend(counted.objects(image));
    objects.extend(collector.objects(image));
    objects.extend(load::deployment(MESHED, LOAD, "http://named/", &flags).objects(image));
    objects.push(manifest::service(MESHED, COUNTED, COUNTED, &[Port::named("http", 80, 8080)]));
    // The port for OpenTelemetry says nothing of gRPC: proxies know what they speak to a collector.
    let ports =
        [Port::named("http", TRACES_PORT, TRACES_PORT), Port::named("otlp", 4317, TRACES_PORT)];
    objects.push(manifest::service(PLAIN, TRACES, TRACES, &ports));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, MESHED, &["deploy/counted", "deploy/settings-load"])?;
    manifest::rolled_out(cluster, PLAIN, &["deploy/traces"])?;
    let client = testbed::meshed_client(cluster);
    client.until("the counted server", "http://counted/", &[], Outcome::ok).map(drop)
}

/// A line of our own in the log of the server's proxy.
fn text_log(settings: &Settings<'_>) -> Result<()> {
    settings.set(&json!({
        "accessLogFile": "/dev/stdout",
        "accessLogEncoding": "TEXT",
        "accessLogFormat": "settings-test %REQ(:PATH)% %RESPONSE_CODE%",
    }))?;
    let client = testbed::meshed_client(settings.cluster);
    wait_for("the line in the proxy's log", PROPAGATION, || {
        client.call("http://counted/logged", &[])?.answered()?;
        let arguments =
            ["logs", "--namespace", MESHED, "deploy/counted", "--container", PROXY, "--tail=50"];
        let log = settings.cluster.kubectl(&arguments)?;
        Ok(log.lines().any(|line| line == "settings-test /logged 200").then_some(()))
    })?;
    settings.set(&json!({"accessLogFormat": null, "accessLogFile": ""}))
}

/// Both ends of a request report spans of one trace.
fn zipkin(settings: &Settings<'_>) -> Result<()> {
    let service = format!("{TRACES}.{PLAIN}.svc.cluster.local");
    settings.set(&json!({
        "tracing": {"sampling": 100, "customTags": {"settings": {"literal": {"value": "tested"}}}},
        "defaultProviders": {"tracing": ["traces"]},
        "extensionProviders": [
            {"name": "traces", "zipkin": {"service": service, "port": TRACES_PORT}},
        ],
    }))?;
    let client = testbed::meshed_client(settings.cluster);
    wait_for("spans of client and server in one trace", PROPAGATION, || {
        client.call("http://counted/traced", &[])?.answered()?;
        let collected = collected(settings.cluster)?;
        let spans = collected["spans"].as_array().context("no list of spans")?;
        let of = |name: &str| {
            let name = format!("{name}.{MESHED}");
            let own = spans.iter().filter(move |span| {
                span["localEndpoint"]["serviceName"] == name.as_str()
                    && span["tags"]["settings"] == "tested"
                    && span["tags"]["http.url"].as_str().is_some_and(|u| u.ends_with("/traced"))
            });
            own.filter_map(|span| span["traceId"].as_str()).collect::<Vec<_>>()
        };
        let (clients, servers) = (of("client"), of(COUNTED));
        Ok(clients.iter().any(|trace| servers.contains(trace)).then_some(()))
    })
}

/// The same provider by OpenTelemetry's gRPC, to a port that does not declare it.
fn opentelemetry(settings: &Settings<'_>) -> Result<()> {
    let service = format!("{TRACES}.{PLAIN}.svc.cluster.local");
    settings.set(&json!({
        "extensionProviders": [
            {"name": "traces", "opentelemetry": {"service": service, "port": 4317}},
        ],
    }))?;
    let client = testbed::meshed_client(settings.cluster);
    wait_for("exports of client and server", PROPAGATION, || {
        client.call("http://counted/exported", &[])?.answered()?;
        let collected = collected(settings.cluster)?;
        let exports = collected["exports"].as_array().context("no list of exports")?;
        let has = |workload: &str| {
            let name = format!("{workload}.{MESHED}");
            let mut texts = exports.iter().filter_map(Value::as_str);
            texts.any(|text| text.contains(&name) && text.contains("/exported"))
        };
        Ok((has("client") && has(COUNTED)).then_some(()))
    })
}

fn collected(cluster: &Cluster) -> Result<Value> {
    let address = testbed::pod_ip(cluster, PLAIN, TRACES)?;
    let url = format!("http://{address}:{TRACES_PORT}/collected");
    Ok(Client::machine(cluster).call(&url, &[])?.answered()?.answer().clone())
}

/// A provider that is not there is named in the installation's status; requests go on.
fn missing_provider_says_so(settings: &Settings<'_>) -> Result<()> {
    settings.set(&json!({
        "extensionProviders": [
            {"name": "traces", "zipkin": {"service": "nowhere.plain-tests.svc.cluster.local", "port": 1}},
        ],
    }))?;
    settings.until_condition("False", "ServiceNotFound")?;
    settings
        .set(&json!({"extensionProviders": null, "defaultProviders": null, "tracing": null}))?;
    settings.until_condition("True", "Accepted")
}

/// Destinations that the mesh does not know are refused, and let through again.
fn registry_only_and_back(settings: &Settings<'_>) -> Result<()> {
    let address = testbed::pod_ip(settings.cluster, PLAIN, "server")?;
    let url = format!("http://{address}:8080/");
    let client = testbed::meshed_client(settings.cluster);
    client.until("an unknown destination", &url, &[], Outcome::ok)?;
    settings.set(&json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}))?;
    client.until("refusal of what is unknown", &url, &[], |outcome| !outcome.ok())?;
    settings.set(&json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}))?;
    client.until("the unknown destination again", &url, &[], Outcome::ok).map(drop)
}

/// The server counts as many tries as the mesh's policy says.
fn default_retries(settings: &Settings<'_>) -> Result<()> {
    settings.set(&json!({"defaultHttpRetryPolicy": {"attempts": 3, "retryOn": "503"}}))?;
    let client = testbed::meshed_client(settings.cluster);
    let machine = Client::machine(settings.cluster);
    let address = testbed::pod_ip(settings.cluster, MESHED, COUNTED)?;
    wait_for("four tries of one request", PROPAGATION, || {
        let reset = format!("http://{address}:8080/counter/reset");
        machine.call(&reset, &["--method", "POST"])?.answered()?;
        let outcome = client.call("http://counted/status/503", &[])?;
        ensure!(outcome.status() == "503", "{outcome}");
        let counter = machine.call(&format!("http://{address}:8080/counter"), &[])?.answered()?;
        Ok((counter.answer()["requests"] == 4).then_some(()))
    })?;
    settings.set(&json!({"defaultHttpRetryPolicy": null}))
}

/// What is in a namespace that no selector matches is unknown to the mesh.
fn hidden_namespace(settings: &Settings<'_>) -> Result<()> {
    let url = format!("http://named.{PLAIN}/");
    let client = testbed::meshed_client(settings.cluster);
    settings.set(&json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}))?;
    client.until("a service that is seen", &url, &[], Outcome::ok)?;
    let not_there =
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [PLAIN]});
    settings.set(&json!({"discoverySelectors": [{"matchExpressions": [not_there]}]}))?;
    client.until("a service that is hidden", &url, &[], |outcome| !outcome.ok())?;
    client.call("http://named/", &[])?.answered()?;
    settings.set(&json!({"discoverySelectors": null}))?;
    client.until("the service again", &url, &[], Outcome::ok).map(drop)
}

/// The settings as they were, to be put back whatever happens.
struct Settings<'a> {
    cluster: &'a Cluster,
    before: Value,
    restored: bool,
}

impl<'a> Settings<'a> {
    fn remember(cluster: &'a Cluster) -> Result<Self> {
        let object = cluster.kubectl_json(&["get", "meshinstallation", INSTALLATION])?;
        let before = match &object["spec"]["mesh"] {
            Value::Null => json!({}),
            mesh => mesh.clone(),
        };
        Ok(Self { cluster, before, restored: false })
    }

    /// Changes some settings; `null` is the default.
    fn set(&self, mesh: &Value) -> Result<()> {
        let patch = json!({"spec": {"mesh": mesh}}).to_string();
        let arguments =
            ["patch", "meshinstallation", INSTALLATION, "--type", "merge", "--patch", &patch];
        self.cluster.kubectl(&arguments).map(drop)
    }

    /// Waits until the control plane says of its settings what it should.
    fn until_condition(&self, status: &str, reason: &str) -> Result<()> {
        wait_for(&format!("MeshConfigured {status}, {reason}"), PROPAGATION, || {
            let object = self.cluster.kubectl_json(&["get", "meshinstallation", INSTALLATION])?;
            let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
            let found = conditions.iter().find(|one| one["type"] == "MeshConfigured");
            let found = found.context("no condition MeshConfigured")?;
            ensure!(
                found["status"] == status && found["reason"] == reason,
                "{}: {}",
                found["reason"],
                found["message"]
            );
            Ok(Some(()))
        })
    }

    fn restore(mut self) -> Result<()> {
        self.restored = true;
        self.put_back()
    }

    fn put_back(&self) -> Result<()> {
        let patch = json!([{"op": "add", "path": "/spec/mesh", "value": self.before}]).to_string();
        let arguments =
            ["patch", "meshinstallation", INSTALLATION, "--type", "json", "--patch", &patch];
        self.cluster.kubectl(&arguments).map(drop)
    }
}

impl Drop for Settings<'_> {
    fn drop(&mut self) {
        if !self.restored {
            // The test has failed and says why; this only keeps the next ones from failing too.
            let _ = self.put_back();
        }
    }
}
