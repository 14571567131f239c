//! Every kind of workload in the mesh: what runs to an end, what uses the network early, what runs on
//! each node, what is left alone.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    client::Outcome,
    collector::Collector,
    manifest::{self, Port, Workload},
    resilience::is_ready,
    testbed::{self, MESHED},
};
use crate::cluster::{Cluster, wait_for};

/// Shared by these tests.
pub(super) const NAMESPACE: &str = "workload-tests";
const CLASSIC: &str = "sidecar.istio.io/nativeSidecar";
const PROXY: &str = "meshwright-proxy";

/// Jobs and CronJobs end, with native sidecars and with classic ones, and a Job that fails has failed.
pub fn jobs_end(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let call = calls_server(cluster);
    let fails = container(cluster, &["client", "--url", "http://nowhere.invalid/", "--fail"]);
    let objects = [
        job("native", &json!({}), &call),
        job("classic", &json!({CLASSIC: "false"}), &call),
        job("fails", &json!({}), &fails),
        job("classic-fails", &json!({CLASSIC: "false"}), &fails),
        cron_job("cron", &call),
    ];
    manifest::apply(cluster, &objects)?;
    let mut collector = Collector::default();
    for (name, condition) in [
        ("native", "complete"),
        ("classic", "complete"),
        ("fails", "failed"),
        ("classic-fails", "failed"),
    ] {
        collector.case(name, || {
            let condition = format!("--for=condition={condition}");
            let job = format!("job/{name}");
            let wait = ["wait", &condition, &job, "--namespace", NAMESPACE, "--timeout=120s"];
            cluster.kubectl(&wait)?;
            if condition.ends_with("complete") { in_the_mesh(cluster, &job) } else { Ok(()) }
        });
    }
    collector.case("cron", || cron_job_ends(cluster));
    collector.verdict()?;
    testbed::delete(cluster, NAMESPACE, "cronjob", "cron")
}

/// The CronJob's first Job, which begins with the next minute.
fn cron_job_ends(cluster: &Cluster) -> Result<()> {
    wait_for("a Job of the CronJob to end", Duration::from_mins(2), || {
        let jobs = cluster.kubectl_json(&["get", "jobs", "--namespace", NAMESPACE])?;
        let mut ours = testbed::items(&jobs)
            .filter(|job| job["metadata"]["ownerReferences"][0]["kind"] == "CronJob");
        Ok(ours.any(|job| job["status"]["succeeded"] == 1).then_some(()))
    })
}

/// An init container of the application calls through the mesh, as itself.
pub fn init_containers_use_the_network(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let mut pod = pod("early", &container(cluster, &["pause"]));
    let mut early = calls_server(cluster);
    early["name"] = json!("early");
    pod["spec"]["initContainers"] = json!([early]);
    manifest::apply(cluster, &[pod])?;
    ready(cluster, "early")?;
    let logs = ["logs", "--namespace", NAMESPACE, "early", "--container", "early"];
    called_with_a_certificate(&cluster.kubectl(&logs)?)?;
    remove_pod(cluster, "early")
}

/// StatefulSets and DaemonSets serve in the mesh.
pub fn stateful_and_daemon_sets(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let image = cluster.testapp_image();
    let flags = ["--http", "8080"];
    let set = Workload::server(NAMESPACE, "stateful", "v1", &flags).replicas(2).ready_on(8080);
    let [account, _] = set.objects(image);
    let daemon = Workload::server(NAMESPACE, "daemon", "v1", &flags).ready_on(8080);
    let [daemon_account, deployment] = daemon.objects(image);
    let port = [Port::named("http", 80, 8080)];
    let objects = [
        account,
        daemon_account,
        manifest::headless_service(NAMESPACE, "stateful", "stateful", &port),
        manifest::service(NAMESPACE, "daemon", "daemon", &port),
        set.stateful_set(image, "stateful"),
        daemon_set(deployment),
    ];
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["statefulset/stateful", "daemonset/daemon"])?;
    let client = testbed::meshed_client(cluster);
    for url in ["http://stateful-1.stateful.workload-tests:8080/", "http://daemon.workload-tests/"]
    {
        let outcome = client.until("an answer over the mesh", url, &[], Outcome::ok)?;
        let caller = outcome.caller_certificate().unwrap_or_default();
        ensure!(caller.contains("/sa/client"), "{url}: the caller was {caller:?}");
    }
    cluster
        .kubectl(&["delete", "--namespace", NAMESPACE, "statefulset/stateful", "daemonset/daemon"])
        .map(drop)
}

/// A pod in its node's network gets no proxy, runs all the same, and an event says why.
pub fn host_network_is_left_alone(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let workload = Workload::client(NAMESPACE, "on-the-node");
    let [account, mut deployment] = workload.objects(cluster.testapp_image());
    deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    manifest::apply(cluster, &[account, deployment])?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/on-the-node"])?;
    let pods = pods(cluster, "app=on-the-node")?;
    ensure!(!pods.is_empty() && !pods.iter().any(has_proxy), "a proxy in the node's network");
    wait_for("an event that says why", Duration::from_secs(30), || {
        let selector = "--field-selector=reason=InjectionSkipped";
        let events =
            cluster.kubectl_json(&["get", "events", "--namespace", NAMESPACE, selector])?;
        let says_why = |event: &Value| {
            let note = event["message"].as_str().unwrap_or_default();
            event["involvedObject"]["kind"] == "ReplicaSet" && note.contains("network")
        };
        Ok(testbed::items(&events).any(says_why).then_some(()))
    })?;
    testbed::delete(cluster, NAMESPACE, "deployment", "on-the-node")
}

/// An agent that is killed while it starts is started again, and the pod becomes ready.
pub fn agent_killed_during_start(cluster: &Cluster) -> Result<()> {
    prepare(cluster)?;
    let server = container(cluster, &["serve", "--name", "killed", "--http", "8080"]);
    manifest::apply(cluster, &[pod("killed", &server)])?;
    let agent = wait_for("the agent's process", Duration::from_mins(1), || {
        Ok(agent_of(NAMESPACE, "killed"))
    })?;
    let kill = Command::new("kill").args(["-KILL", &agent]).status().context("run kill")?;
    ensure!(kill.success(), "the agent was gone before it could be killed");
    ready(cluster, "killed")?;
    let status = cluster.kubectl_json(&["get", "pod", "killed", "--namespace", NAMESPACE])?;
    let restarts = container_status(&status, PROXY)["restartCount"].as_u64().unwrap_or_default();
    ensure!(restarts >= 1, "the agent was not killed: {status}");
    let address = testbed::pod_ip(cluster, NAMESPACE, "killed")?;
    let url = format!("http://{address}:8080/");
    testbed::meshed_client(cluster).until("an answer", &url, &[], Outcome::ok)?;
    remove_pod(cluster, "killed")
}

fn prepare(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    manifest::apply(cluster, &[manifest::namespace(NAMESPACE, true)])
}

fn container(cluster: &Cluster, args: &[&str]) -> Value {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    manifest::container("app", cluster.testapp_image(), &args)
}

/// A container that makes one request to the testbed, says what came of it, and ends.
fn calls_server(cluster: &Cluster) -> Value {
    let url = format!("http://named.{MESHED}/");
    container(cluster, &["client", "--url", &url, "--output", "full", "--fail"])
}

fn pod(name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    })
}

fn job(name: &str, annotations: &Value, container: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": job_spec(annotations, container),
    })
}

fn cron_job(name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": job_spec(&json!({}), container)},
        },
    })
}

fn job_spec(annotations: &Value, container: &Value) -> Value {
    json!({
        "backoffLimit": 0,
        "template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        },
    })
}

fn daemon_set(mut deployment: Value) -> Value {
    deployment["kind"] = json!("DaemonSet");
    if let Some(spec) = deployment["spec"].as_object_mut() {
        spec.remove("replicas");
        spec.remove("strategy");
    }
    deployment
}

/// Refuses a Job whose pod had no proxy or whose call was not authenticated.
fn in_the_mesh(cluster: &Cluster, job: &str) -> Result<()> {
    let logs = cluster.kubectl(&["logs", "--namespace", NAMESPACE, job, "--container", "app"])?;
    called_with_a_certificate(&logs)
}

fn called_with_a_certificate(output: &str) -> Result<()> {
    let outcome = Outcome::parse(output)?.answered()?;
    let caller = outcome.caller_certificate().unwrap_or_default();
    ensure!(caller.contains(&format!("/ns/{NAMESPACE}/")), "the caller was {caller:?}");
    Ok(())
}

fn ready(cluster: &Cluster, pod: &str) -> Result<()> {
    let pod = format!("pod/{pod}");
    let wait = ["wait", "--for=condition=Ready", &pod, "--namespace", NAMESPACE, "--timeout=120s"];
    cluster.kubectl(&wait).map(drop)
}

fn remove_pod(cluster: &Cluster, name: &str) -> Result<()> {
    let arguments = ["delete", "pod", name, "--namespace", NAMESPACE, "--wait=false"];
    cluster.kubectl(&arguments).map(drop)
}

/// Pods that are ready, by their labels.
fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<Value>> {
    let list =
        cluster.kubectl_json(&["get", "pods", "--namespace", NAMESPACE, "--selector", selector])?;
    Ok(testbed::items(&list).filter(|pod| is_ready(pod)).cloned().collect())
}

pub(super) fn has_proxy(pod: &Value) -> bool {
    let lists = ["initContainers", "containers"];
    lists
        .iter()
        .any(|list| pod["spec"][list].as_array().into_iter().flatten().any(|c| c["name"] == PROXY))
}

fn container_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// The process of a pod's agent, by its environment: pods run on this machine.
fn agent_of(namespace: &str, pod: &str) -> Option<String> {
    let wanted = [format!("POD_NAMESPACE={namespace}"), format!("POD_NAME={pod}")];
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.map(|process| process.path()).find_map(|process| {
        let words = |file: &str| words_of(&process.join(file));
        let is_agent = words("cmdline").get(1..) == Some(&["agent".to_owned()][..]);
        let environment = is_agent.then(|| words("environ"))?;
        let ours = wanted.iter().all(|variable| environment.contains(variable));
        ours.then(|| process.file_name()?.to_str().map(str::to_owned))?
    })
}

fn words_of(file: &Path) -> Vec<String> {
    let text = fs::read(file).unwrap_or_default();
    text.split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}
