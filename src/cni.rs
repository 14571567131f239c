//! Redirection without rights in the pod: a CNI plugin on every node, and the daemon behind it.
//!
//! ```text
//! container runtime ─▶ plugin ─▶ socket ─▶ daemon ─▶ meshwright redirect, in the pod's namespace
//!                        └▶ notes ─▶ repair ─┘   (pods that started while the daemon was away)
//! ```
//!
//! The plugin never fails a pod, whatever the daemon does: a pod that needs redirection is held by
//! its own init container (`meshwright redirect --check`) until it has it. So a node can always start
//! pods, and no meshed pod runs outside the mesh.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::{sync::watch, task::JoinSet};

use crate::runtime::{admin, kube_client, logs, shutdown};

pub mod conflist;
pub mod decide;
pub mod install;
mod ledger;
mod netns;
mod node;
pub mod plugin;
mod pods;
mod redirector;
mod repair;
pub mod sandbox;
mod server;

use self::{
    install::{Installer, State},
    netns::Namespaces,
    pods::Pods,
    redirector::{Counts, Redirector},
    repair::Policy,
    sandbox::Notes,
};

/// Between two looks at the node's network configuration, which its owner may write anew.
const LOOK: Duration = Duration::from_secs(1);

/// Command-line arguments of the daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the node
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Namespace of the DaemonSet
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Name of the DaemonSet: without it, an end is an uninstallation
    #[arg(long, default_value = "meshwright-cni")]
    daemonset: String,
    /// The node's folder of CNI programs
    #[arg(long, default_value = "/host/cni/bin")]
    bin_dir: PathBuf,
    /// The node's folder of network configurations
    #[arg(long, default_value = "/host/cni/net.d")]
    conf_dir: PathBuf,
    /// The container runtime's folder of network namespaces
    #[arg(long, default_value = "/host/netns")]
    netns_dir: PathBuf,
    /// Folder that plugin and daemon share; it must have the same path on the node
    #[arg(long, default_value = "/run/meshwright-cni")]
    run_dir: PathBuf,
    /// The plugin's program
    #[arg(long, default_value = "/usr/local/bin/meshwright-cni")]
    plugin: PathBuf,
    /// The program with the role `redirect`
    #[arg(long, default_value = "/usr/local/bin/meshwright")]
    redirect: PathBuf,
    /// What to do about a pod that started before the daemon was ready
    #[arg(long, value_enum, default_value_t = Policy::Program)]
    repair: Policy,
    /// Remove the taint meshwright.dev/cni-not-ready from the node when ready
    #[arg(long)]
    node_taint: bool,
    /// Port for health checks and metrics
    #[arg(long, default_value_t = 15023)]
    admin_port: u16,
    /// Kubeconfig to use instead of the pod's own account
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Runs the daemon until it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<()> {
    logs::init();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(serve(args))
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let client = kube_client(args.kubeconfig.as_deref()).await?;
    let mut registry = Registry::default();
    let counts = Counts::register(&mut registry);
    let installer = installer(args);
    // A plugin of an earlier version must not be what this daemon's first pods meet.
    installer.copy_program()?;
    let notes = Notes::of(&args.run_dir);
    let pods = Pods::new(client.clone());
    let namespaces = Namespaces::new(args.netns_dir.clone(), args.redirect.clone());
    // Sandboxes may have ended while nobody called the plugin.
    notes.retain(|sandbox| namespaces.named(&sandbox.netns).is_some())?;
    let redirector = Redirector::new(client.clone(), pods.clone(), namespaces, notes, counts);
    let listener = listen(&args.run_dir)?;

    let mut tasks = JoinSet::new();
    let (in_place, is_in_place) = watch::channel(false);
    let (ready, readiness) = watch::channel(false);
    let listed = pods.changes();
    tasks.spawn(admin(args.admin_port, registry, readiness));
    tasks.spawn(server::serve(listener, redirector.clone()));
    tasks.spawn(pods.follow(args.node.clone()));
    tasks.spawn(repair::run(redirector.clone(), args.repair));
    tasks.spawn(keep_installed(installer.clone(), in_place));
    tasks.spawn(follow_readiness(is_in_place, listed, ready.clone()));
    if args.node_taint {
        tasks.spawn(untaint(client.clone(), args.node.clone(), ready.subscribe()));
    }
    shutdown::signal().await;
    tasks.shutdown().await;
    if node::is_uninstalled(&client, &args.namespace, &args.daemonset).await {
        uninstall(&installer, &redirector)?;
    }
    Ok(())
}

fn installer(args: &Args) -> Installer {
    Installer {
        bin_dir: args.bin_dir.clone(),
        conf_dir: args.conf_dir.clone(),
        program: args.plugin.clone(),
        entry: serde_json::json!({"type": conflist::PLUGIN, "runDir": args.run_dir}),
    }
}

fn listen(run_dir: &Path) -> anyhow::Result<tokio::net::UnixListener> {
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("cannot make {}", run_dir.display()))?;
    let socket = run_dir.join(sandbox::SOCKET);
    server::listen(&socket).with_context(|| format!("cannot listen on {}", socket.display()))
}

async fn admin(port: u16, registry: Registry, readiness: watch::Receiver<bool>) {
    // Of both families, unless the node has only the old one.
    let v6 = std::fs::exists("/proc/net/if_inet6").unwrap_or_default();
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    if let Err(error) = admin::serve((any, port).into(), Arc::new(registry), readiness).await {
        tracing::error!("{error:#}");
    }
}

/// Looks at the node again and again: the network may be installed later, and its owner may write its
/// configuration anew.
async fn keep_installed(installer: Installer, in_place: watch::Sender<bool>) {
    let mut last = None;
    loop {
        let look = installer.ensure();
        let now = match &look {
            Ok(State::Added(file)) => {
                tracing::info!(file = %file.display(), "the plugin was added to the network configuration");
                None
            }
            Ok(State::Installed) => None,
            Ok(State::Waiting(reason)) => Some(reason.clone()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = now.as_ref().filter(|_| now != last) {
            tracing::warn!(reason, "the plugin is not in the network configuration");
        }
        in_place.send_replace(now.is_none());
        last = now;
        tokio::time::sleep(LOOK).await;
    }
}

/// Ready is who is installed and knows the node's pods.
async fn follow_readiness(
    mut in_place: watch::Receiver<bool>,
    mut listed: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
) {
    loop {
        let now = *in_place.borrow_and_update() && *listed.borrow_and_update();
        if ready.send_replace(now) != now {
            tracing::info!(ready = now, "readiness changed");
        }
        tokio::select! {
            changed = in_place.changed() => if changed.is_err() { return },
            changed = listed.changed() => if changed.is_err() { return },
        }
    }
}

async fn untaint(client: kube::Client, node: String, mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    while let Err(error) = node::remove_taint(&client, &node).await {
        tracing::warn!(%error, taint = node::TAINT, "cannot remove the node's taint");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    tracing::info!(taint = node::TAINT, "the node does not have the taint any more");
}

/// Leaves the node as it was. The program stays while there are pods that were started with it: some
/// runtimes end a pod with the configuration that it was started with, and then need the program.
fn uninstall(installer: &Installer, redirector: &Redirector) -> anyhow::Result<()> {
    installer.remove_entry()?;
    let sandboxes = redirector.notes.all().into_iter();
    let pods = sandboxes.filter(|s| redirector.namespaces.named(&s.netns).is_some()).count();
    if pods == 0 {
        installer.remove_program()?;
    }
    tracing::info!(program_left_for = pods, "uninstalled from this node");
    Ok(())
}
