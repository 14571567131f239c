//! Boots the node, or takes the one that runs already.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    Cluster, cgroup,
    component::{self, Starter},
    config, dns,
    down::{down, end},
    kernel, network,
    node::{self, NODE_NAME, Node, RUNTIME},
    pki, wait_for,
};
use crate::{
    cache::Cache,
    images,
    interrupt::{self, Undo},
    lock::Lock,
    steps::Steps,
};

/// The API server starts in 5 s on two cores; a machine that is busy compiling takes its time.
const PATIENCE: Duration = Duration::from_mins(3);

/// A throwaway cluster that answers.
#[derive(Debug)]
pub struct Booted {
    pub cluster: Cluster,
    pub node: Node,
    /// Takes the cluster away on an interrupt, if this run booted it.
    _undo: Option<Undo>,
}

enum Health {
    Up(Node),
    Absent,
    Broken(String),
}

/// Takes the lock of a cluster's name for the rest of this process.
pub fn lock(name: &str) -> Result<Lock> {
    match Lock::try_take(&Path::new(RUNTIME).join(format!("{name}.lock")))? {
        Ok(lock) => Ok(lock),
        Err(holder) => bail!(
            "process {} is at work on the cluster {name}: wait for it, or give this one another name",
            holder.pid
        ),
    }
}

/// Gives the running cluster of that name, or boots it. The caller holds the name's [`lock`].
pub fn ensure(cache: &Cache, name: &str, steps: &mut Steps) -> Result<Booted> {
    match health(cache, name)? {
        Health::Up(node) => {
            steps.say(&format!("        the cluster {name} is up already and answers"));
            return Ok(Booted { cluster: Cluster::of_node(&node)?, node, _undo: None });
        }
        Health::Absent => {}
        Health::Broken(reason) => {
            let title = format!("cluster {name} is there but {reason}: taken away");
            steps.run(&title, || down(cache, name))?;
        }
    }
    let undo = {
        let (cache, name) = (cache.clone(), name.to_owned());
        interrupt::on_interrupt(move || end(&cache, &name))
    };
    match boot(cache, name, steps) {
        Ok(node) => Ok(Booted { cluster: Cluster::of_node(&node)?, node, _undo: Some(undo) }),
        Err(error) => {
            interrupt::checkpoint();
            let logs = keep_logs(cache, name)?;
            down(cache, name)?;
            Err(error
                .context(format!("the cluster does not boot; its logs are in {}", logs.display())))
        }
    }
}

fn health(cache: &Cache, name: &str) -> Result<Health> {
    if !super::down::anything_left(cache, name) {
        return Ok(Health::Absent);
    }
    let Ok(node) = Node::load(cache, name) else {
        return Ok(Health::Broken("its state is gone".to_owned()));
    };
    let stamp = fs::read_to_string(node.state.join("stamp")).unwrap_or_default();
    if stamp.is_empty() {
        return Ok(Health::Broken("was never finished".to_owned()));
    }
    if !node::netns(name).exists() {
        return Ok(Health::Broken("its network is gone".to_owned()));
    }
    let dead = component::dead(&node);
    if !dead.is_empty() {
        return Ok(Health::Broken(format!("without {}", dead.join(", "))));
    }
    if stamp != fingerprint(&node)? {
        return Ok(Health::Broken("of another version".to_owned()));
    }
    let cluster = Cluster::of_node(&node)?;
    Ok(match cluster.kubectl(&["get", "--raw=/readyz", "--request-timeout=10s"]) {
        Ok(_) if is_ready(&cluster).unwrap_or(false) => Health::Up(node),
        Ok(_) => Health::Broken("its node is not ready".to_owned()),
        Err(_) => Health::Broken("does not answer".to_owned()),
    })
}

fn boot(cache: &Cache, name: &str, steps: &mut Steps) -> Result<Node> {
    let (node, groups) = steps.run("network namespace, cgroup and certificates", || {
        kernel::remember()?;
        let node = network::up(cache, name)?;
        let groups = cgroup::up(name)?;
        pki::make(&node)?;
        config::write(&node)?;
        Ok((node, groups))
    })?;
    let starter = Starter::new(&node, &groups);
    let cluster = Cluster::of_node(&node)?;
    steps.run("etcd, API server and containerd answer", || {
        start_first(&node, &starter)?;
        images::pause(cache, &node)?;
        wait_alive(&node, "the API server", || {
            cluster.kubectl(&["get", "--raw=/readyz"]).map(|answer| (answer == "ok").then_some(()))
        })
    })?;
    steps.run("kubelet, proxy, controllers, DNS: node is ready", || {
        start_rest(&node, &starter)?;
        // CoreDNS asks once and then waits longer and longer for its rights.
        cluster.apply(&dns::manifests(&node))?;
        starter.start("coredns", &node.tools.coredns()?, &config::coredns(&node))?;
        wait_alive(&node, "the node", || Ok(is_ready(&cluster)?.then_some(())))?;
        wait_alive(&node, "the default service account", || {
            cluster.kubectl(&["get", "serviceaccount", "default"]).map(Some)
        })
    })?;
    fs::write(node.state.join("stamp"), fingerprint(&node)?)?;
    Ok(node)
}

fn start_first(node: &Node, starter: &Starter<'_>) -> Result<()> {
    starter.start("etcd", &node.tools.node("etcd")?, &config::etcd(node))?;
    let apiserver = node.tools.node("kube-apiserver")?;
    starter.start("kube-apiserver", &apiserver, &config::apiserver(node))?;
    let toml = node.state.join("containerd.toml").display().to_string();
    starter.start("containerd", &node.tools.containerd("containerd")?, &["-c".to_owned(), toml])
}

fn start_rest(node: &Node, starter: &Starter<'_>) -> Result<()> {
    for (name, arguments) in [
        ("kube-controller-manager", config::manager(node)),
        ("kubelet", config::kubelet_flags(node)),
        ("kube-proxy", config::proxy_flags(node)),
        ("kube-scheduler", config::scheduler(node)),
    ] {
        starter.start(name, &node.tools.node(name)?, &arguments)?;
    }
    let balancer = [
        "loadbalancer".to_owned(),
        format!("--kubectl={}", node.kubectl().display()),
        format!("--range={}", node.balancer_range()),
    ];
    starter.start("loadbalancer", &env::current_exe()?, &balancer)
}

/// Waits, but not for what cannot come any more.
fn wait_alive<T>(
    node: &Node,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    wait_for(what, PATIENCE, || {
        if let Some(name) = component::dead(node).first() {
            return Ok(Some(Err(anyhow!("{name} ended; {}", component::last_words(node, name)))));
        }
        Ok(probe()?.map(Ok))
    })?
}

fn is_ready(cluster: &Cluster) -> Result<bool> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    Ok(cluster.kubectl(&["get", "node", NODE_NAME, "-o", path])? == "True")
}

/// A hash of all that a cluster is started with: another version of the harness boots it anew.
fn fingerprint(node: &Node) -> Result<String> {
    let programs = [node.tools.node("")?, node.tools.containerd("")?, node.tools.coredns()?];
    let mut text = format!("{programs:?}{}", dns::manifests(node));
    for arguments in [
        config::etcd(node),
        config::apiserver(node),
        config::manager(node),
        config::scheduler(node),
        config::kubelet_flags(node),
    ] {
        text.push_str(&arguments.join(" "));
    }
    for file in config::FILES {
        text.push_str(&config::text(node, file)?);
    }
    Ok(images::hash(text.as_bytes()))
}

fn keep_logs(cache: &Cache, name: &str) -> Result<PathBuf> {
    let target = cache.logs().join(format!("cluster-{name}"));
    crate::tools::remove_folder(&target)?;
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(cache.run(name).join("log")).into_iter().flatten().flatten() {
        fs::copy(entry.path(), target.join(entry.file_name()))
            .context("cannot keep the logs of the cluster")?;
    }
    Ok(target)
}
