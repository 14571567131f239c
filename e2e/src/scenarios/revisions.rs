//! Two revisions side by side: a namespace moves from one to the next and back by one change of a tag,
//! under load; pods of both talk to each other; a revision that has proxies is not deleted.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome, PROPAGATION},
    load,
    manifest::{self, Port, Workload},
    resilience::is_ready,
    testbed::{self, SYSTEM},
};
use crate::cluster::{Cluster, wait_for};

const NAMESPACE: &str = "revision-tests";
const NEXT: &str = "next";
const TAG: &str = "stable";
const LOAD: &str = "load";
const REVISION: &str = "meshwright.dev/revision";
const URL: &str = "http://server/";
const REQUESTS: u64 = 10_000;

pub fn move_by_one_change(cluster: &Cluster) -> Result<()> {
    let revisions = Revisions::begin(cluster)?;
    start(cluster)?;
    move_to_next(cluster, &revisions)?;
    deletion_is_refused(cluster)?;
    move_back(cluster, &revisions)?;
    until_requests(cluster, REQUESTS)?;
    let summary = load::stop(cluster, NAMESPACE, LOAD)?.without_failures()?;
    ensure!(summary.requests() >= REQUESTS, "only {} requests", summary.requests());
    deletion_is_allowed(cluster)?;
    testbed::delete_namespace(cluster, NAMESPACE)?;
    revisions.end()
}

/// A namespace that asks for the tag, which the older revision has, and load in it.
fn start(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {REVISION: TAG}},
    });
    let server = Workload::server(NAMESPACE, "server", "v1", &["--http", "8080"]);
    let mut objects = vec![
        namespace,
        manifest::service(NAMESPACE, "server", "server", &[Port::named("http", 80, 8080)]),
    ];
    objects.extend(server.replicas(2).ready_on(8080).objects(image));
    objects.extend(Workload::client(NAMESPACE, "client").objects(image));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server", "deploy/client"])?;
    is_of(cluster, "server", "default")?;
    let flags = ["--rate", "250", "--concurrency", "8"];
    manifest::apply(cluster, &load::deployment(NAMESPACE, LOAD, URL, &flags).objects(image))?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/load"])?;
    until_requests(cluster, 500)
}

/// The older revision gives the tag up; pods that start from then on are of the next one, and those of
/// both talk to each other.
fn move_to_next(cluster: &Cluster, revisions: &Revisions<'_>) -> Result<()> {
    revisions.tags_of_default(&[])?;
    selects(cluster, NEXT, true)?;
    selects(cluster, "default", false)?;
    restart(cluster, "server", NEXT)?;
    talk(cluster, "a client of the older revision to a server of the next")?;
    restart(cluster, "client", NEXT)?;
    talk(cluster, "both of the next revision")
}

fn move_back(cluster: &Cluster, revisions: &Revisions<'_>) -> Result<()> {
    revisions.tags_of_default(&[TAG])?;
    selects(cluster, "default", true)?;
    selects(cluster, NEXT, false)?;
    restart(cluster, "server", "default")?;
    talk(cluster, "a client of the next revision to a server of the older")?;
    restart(cluster, "client", "default")
}

/// A pod that asks who it is gets the answer over mutual TLS.
fn talk(cluster: &Cluster, who: &str) -> Result<()> {
    let client = Client::pod(cluster, NAMESPACE, "deploy/client");
    let outcome = client.until(who, URL, &[], Outcome::ok)?;
    let caller = outcome.caller_certificate().unwrap_or_default();
    ensure!(caller.contains("/ns/revision-tests/sa/client"), "{who}: the caller was {caller:?}");
    Ok(())
}

fn deletion_is_refused(cluster: &Cluster) -> Result<()> {
    let pods = pods(cluster, "server")?;
    let refusal = match cluster.kubectl(&["delete", "meshinstallation", NEXT, "--wait=false"]) {
        Ok(_) => bail!("MeshInstallation {NEXT} was deleted under its proxies"),
        Err(refusal) => format!("{refusal:#}"),
    };
    for pod in pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
        ensure!(refusal.contains(pod), "the refusal does not name {pod}: {refusal}");
    }
    ensure!(refusal.contains("still has proxies"), "{refusal}");
    let installation = cluster.kubectl_json(&["get", "meshinstallation", NEXT])?;
    ensure!(installation["metadata"]["deletionTimestamp"].is_null(), "it is on its way out");
    Ok(())
}

/// Without proxies it goes, with all that is its own and nothing that the other one needs.
fn deletion_is_allowed(cluster: &Cluster) -> Result<()> {
    wait_for("no pod of the next revision", Duration::from_mins(1), || {
        let selector = format!("{REVISION}={NEXT}");
        let list = cluster.kubectl_json(&["get", "pods", "-A", "--selector", &selector])?;
        Ok((testbed::items(&list).next().is_none()).then_some(()))
    })?;
    cluster.kubectl(&["delete", "meshinstallation", NEXT, "--timeout=90s"])?;
    for (kind, name) in [
        ("mutatingwebhookconfiguration", "meshwright-injector-next"),
        ("deployment", "meshwright-control-plane-next"),
        ("service", "meshwright-control-plane-next"),
        ("clusterrole", "meshwright-control-plane-next"),
    ] {
        let get = ["get", kind, name, "--namespace", SYSTEM, "--ignore-not-found", "-o", "name"];
        let found = cluster.kubectl(&get)?;
        ensure!(found.trim().is_empty(), "{} is left", found.trim());
    }
    cluster.kubectl(&["get", "secret", "meshwright-ca", "--namespace", SYSTEM])?;
    talk(cluster, "both of the older revision, which stays")
}

/// Restarts a workload; its pods are then of this revision.
fn restart(cluster: &Cluster, app: &str, revision: &str) -> Result<()> {
    let workload = format!("deploy/{app}");
    cluster.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, &workload])?;
    manifest::rolled_out(cluster, NAMESPACE, &[&workload])?;
    is_of(cluster, app, revision)
}

fn is_of(cluster: &Cluster, app: &str, revision: &str) -> Result<()> {
    let pods = pods(cluster, app)?;
    ensure!(!pods.is_empty(), "no pod of {app} is ready");
    for pod in pods {
        let (metadata, labels) = (&pod["metadata"], &pod["metadata"]["labels"]);
        let found = &labels[REVISION];
        ensure!(*found == revision, "{} is of revision {found}, not {revision}", metadata["name"]);
    }
    Ok(())
}

/// Those that are ready and stay.
fn pods(cluster: &Cluster, app: &str) -> Result<Vec<Value>> {
    let selector = format!("app={app}");
    let list = cluster.kubectl_json(&[
        "get",
        "pods",
        "--namespace",
        NAMESPACE,
        "--selector",
        &selector,
    ])?;
    Ok(testbed::items(&list).filter(|pod| is_ready(pod)).cloned().collect())
}

/// Waits until the webhook of a revision selects the tag, or does not any more.
fn selects(cluster: &Cluster, revision: &str, wanted: bool) -> Result<()> {
    wait_for(&format!("{revision} selects {TAG}: {wanted}"), PROPAGATION, || {
        let name = format!("meshwright-injector-{revision}");
        let webhook = cluster.kubectl_json(&["get", "mutatingwebhookconfiguration", &name])?;
        let names = webhook["metadata"]["annotations"]["meshwright.dev/names"].as_str();
        let names = names.context("the webhook does not say its names")?;
        Ok((names.split(',').any(|name| name == TAG) == wanted).then_some(()))
    })
}

fn until_requests(cluster: &Cluster, requests: u64) -> Result<()> {
    wait_for(&format!("{requests} requests"), Duration::from_mins(3), || {
        Ok((load::so_far(cluster, NAMESPACE, LOAD)?.requests() >= requests).then_some(()))
    })
}

/// The revision of everybody else, with the tag, and the next one, which waits for it.
struct Revisions<'a> {
    cluster: &'a Cluster,
    over: bool,
}

impl<'a> Revisions<'a> {
    fn begin(cluster: &'a Cluster) -> Result<Self> {
        let revisions = Self { cluster, over: false };
        revisions.tags_of_default(&[TAG])?;
        let next = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": NEXT},
            "spec": {"revision": NEXT, "tags": [TAG]},
        });
        manifest::apply(cluster, &[next])?;
        let ready = ["wait", "meshinstallation", NEXT, "--for=condition=Ready", "--timeout=120s"];
        cluster.kubectl(&ready)?;
        selects(cluster, "default", true)?;
        selects(cluster, NEXT, false)?;
        Ok(revisions)
    }

    fn tags_of_default(&self, tags: &[&str]) -> Result<()> {
        let patch = json!({"spec": {"tags": tags}}).to_string();
        let arguments = ["patch", "meshinstallation", "default", "--type=merge", "--patch", &patch];
        self.cluster.kubectl(&arguments).map(drop)
    }

    fn end(mut self) -> Result<()> {
        self.over = true;
        self.tags_of_default(&[])
    }
}

impl Drop for Revisions<'_> {
    fn drop(&mut self) {
        if !self.over {
            // The test has failed and says why; this only keeps the next ones from failing too.
            let cluster = self.cluster;
            let allow = "meshwright.dev/allow-removal=true";
            let _ = testbed::delete_namespace(cluster, NAMESPACE);
            let _ = cluster.kubectl(&["annotate", "meshinstallation", NEXT, allow, "--overwrite"]);
            let _ = cluster.kubectl(&["delete", "meshinstallation", NEXT, "--wait=false"]);
            let _ = self.tags_of_default(&[]);
        }
    }
}
