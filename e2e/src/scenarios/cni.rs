//! Redirection by the node's CNI plugin: pods without any capability, under Pod Security
//! `restricted`, and a node that can start pods whatever happens to the plugin's daemon.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::{Client, Outcome},
    manifest::{self, Port, Workload},
    testbed::{self, SYSTEM, items},
};
use crate::{
    cluster::{Cluster, wait_for},
    deploy,
};

/// In the mesh, and restricted.
const NAMESPACE: &str = "cni-tests";
/// Not in the mesh.
const PLAIN: &str = "cni-plain-tests";
const TAINT: &str = "meshwright.dev/cni-not-ready";
const PATIENCE: Duration = Duration::from_mins(2);

/// Installs the plugin, uses it, takes its daemon away and brings it back, uninstalls it.
pub fn pods_need_no_capability(cluster: &Cluster) -> Result<()> {
    let before = configuration(cluster)?;
    let outcome = install(cluster)
        .and_then(|()| restricted_pods_talk(cluster))
        .and_then(|()| pods_wait_for_the_daemon(cluster));
    // Whatever went wrong, the tests after this one need the node as it was.
    let removed = uninstall(cluster);
    outcome?;
    removed?;
    ensure!(configuration(cluster)? == before, "the network configuration is not as it was");
    an_unmeshed_pod_starts(cluster, "after")?;
    testbed::delete_namespace(cluster, PLAIN)?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// What is in the node's configuration files; nothing where the node is out of reach.
fn configuration(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let Some(folders) = cluster.cni() else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in fs::read_dir(&folders.conf)? {
        let path = entry?.path();
        files.push((path.display().to_string(), fs::read_to_string(&path)?));
    }
    files.sort();
    Ok(files)
}

/// On nodes with the taint, which only a plugin that is ready takes away.
fn install(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&[
        "taint",
        "nodes",
        "--all",
        "--overwrite",
        &format!("{TAINT}=:NoSchedule"),
    ])?;
    let mut values = "cni.enabled=true,cni.nodeTaint=true".to_owned();
    if let Some(folders) = cluster.cni() {
        for (name, folder) in [
            ("binDir", &folders.bin),
            ("confDir", &folders.conf),
            ("netnsDir", &folders.netns),
            ("runDir", &folders.run),
        ] {
            values = format!("{values},cni.{name}={}", folder.display());
        }
    }
    deploy::change_values(cluster, &values)?;
    wait_for("nodes without the taint", PATIENCE, || {
        let nodes =
            cluster.kubectl(&["get", "nodes", "--output", "jsonpath={.items[*].spec.taints}"])?;
        ensure!(!nodes.contains(TAINT), "{nodes}");
        Ok(Some(()))
    })
}

fn uninstall(cluster: &Cluster) -> Result<()> {
    // If the plugin never became ready, it is still there.
    let taint = format!("{TAINT}-");
    cluster.kubectl(&["taint", "nodes", "--all", &taint]).ok();
    deploy::change_values(cluster, "cni.enabled=false")?;
    daemons_are_gone(cluster)
}

fn daemons_are_gone(cluster: &Cluster) -> Result<()> {
    wait_for("no daemon of the plugin", PATIENCE, || {
        let arguments = ["get", "pods", "--namespace", SYSTEM, "--selector", "app=meshwright-cni"];
        let pods = cluster.kubectl_json(&arguments)?;
        Ok(items(&pods).next().is_none().then_some(()))
    })
}

/// Traffic goes through both proxies: the caller's outbound, the server's inbound.
fn restricted_pods_talk(cluster: &Cluster) -> Result<()> {
    let mut namespace = manifest::namespace(NAMESPACE, true);
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    let ports = [Port::named("http-web", 80, 8080)];
    let server = Workload::server(NAMESPACE, "server", "v1", &["--http", "8080"]).ready_on(8080);
    let mut objects = vec![
        namespace,
        manifest::unlabelled_namespace(PLAIN),
        manifest::peer_authentication(NAMESPACE, "STRICT"),
        manifest::service(NAMESPACE, "server", "server", &ports),
    ];
    objects.extend(restricted(cluster, &server));
    objects.extend(restricted(cluster, &Workload::client(NAMESPACE, "client")));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server", "deploy/client"])?;
    without_capabilities(cluster)?;
    call(cluster, "client")?;
    let address = testbed::pod_ip(cluster, NAMESPACE, "server")?;
    let url = format!("http://{address}:8080/");
    let refused = ["--timeout", "5s"];
    Client::machine(cluster).until("plaintext refused", &url, &refused, |o| !o.ok()).map(drop)
}

/// A request of a client to the server, whose proxy must know the caller by its certificate.
fn call(cluster: &Cluster, client: &str) -> Result<()> {
    let name = format!("deploy/{client}");
    let url = format!("http://server.{NAMESPACE}/");
    let answer =
        Client::pod(cluster, NAMESPACE, &name).until("an answer", &url, &[], Outcome::ok)?;
    let caller = format!("/ns/{NAMESPACE}/sa/{client}");
    let certificate = answer.caller_certificate().unwrap_or_default();
    ensure!(certificate.contains(&caller), "the caller was not {caller} but `{certificate}`");
    Ok(())
}

/// The objects of a workload whose pods the plugin redirects and Pod Security lets in.
fn restricted(cluster: &Cluster, workload: &Workload<'_>) -> [Value; 2] {
    let [account, mut deployment] = workload.objects(cluster.testapp_image());
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["annotations"] = json!({"meshwright.dev/redirection-by": "CNI"});
    template["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    template["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    [account, deployment]
}

fn without_capabilities(cluster: &Cluster) -> Result<()> {
    let pods = cluster.kubectl_json(&["get", "pods", "--namespace", NAMESPACE])?;
    for pod in items(&pods) {
        let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        for container in init {
            let added = &container["securityContext"]["capabilities"]["add"];
            ensure!(added.is_null(), "{} asks for {added}", container["name"]);
        }
    }
    Ok(())
}

/// Without the daemon, an unmeshed pod starts, and a meshed one is held until the daemon is back.
fn pods_wait_for_the_daemon(cluster: &Cluster) -> Result<()> {
    select_nodes(cluster, &json!("nowhere"))?;
    daemons_are_gone(cluster)?;
    manifest::apply(cluster, &restricted(cluster, &Workload::client(NAMESPACE, "late")))?;
    an_unmeshed_pod_starts(cluster, "meanwhile")?;
    wait_for("the init container holds the pod", PATIENCE, || {
        let pod = late(cluster)?;
        let status = pod["status"]["initContainerStatuses"].as_array().context("no status yet")?;
        let held = status.iter().find(|status| status["name"] == "meshwright-redirect");
        let state = &held.context("it has no container meshwright-redirect")?["state"];
        ensure!(state["running"].is_object(), "meshwright-redirect is {state}");
        Ok(Some(()))
    })?;
    let app = late(cluster)?["status"]["containerStatuses"][0]["state"].clone();
    ensure!(app["waiting"].is_object(), "the application of a held pod is {app}");
    select_nodes(cluster, &Value::Null)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/late"])?;
    call(cluster, "late")
}

fn late(cluster: &Cluster) -> Result<Value> {
    let arguments = ["get", "pods", "--namespace", NAMESPACE, "--selector", "app=late"];
    Ok(cluster.kubectl_json(&arguments)?["items"][0].clone())
}

/// Where the daemon runs, as whoever takes nodes out of the DaemonSet does it.
fn select_nodes(cluster: &Cluster, label: &Value) -> Result<()> {
    let selector = json!({"nodeSelector": {"meshwright.dev/cni": label}});
    let patch = json!({"spec": {"template": {"spec": selector}}}).to_string();
    let daemonset = ["patch", "daemonset", "meshwright-cni", "--namespace", SYSTEM];
    cluster.kubectl(&[&daemonset[..], &["--type=merge", "--patch", &patch]].concat()).map(drop)
}

fn an_unmeshed_pod_starts(cluster: &Cluster, name: &str) -> Result<()> {
    let workload = Workload::client(PLAIN, name);
    manifest::apply(cluster, &workload.objects(cluster.testapp_image()))?;
    manifest::rolled_out(cluster, PLAIN, &[&format!("deploy/{name}")])
}
