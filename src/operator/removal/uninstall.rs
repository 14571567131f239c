//! `meshwright uninstall`: takes the mesh out of a cluster, before the chart's own objects go.
//!
//! The chart runs it as a hook of `helm uninstall`. It refuses before it has changed anything while
//! proxies remain. A running operator removes the installations; where none runs, which would leave
//! their finalizers to nobody, it does so itself.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{leftovers, proceed, runs};
use crate::{
    api::meshwright::MeshInstallation,
    operator::{apply::Changes, installation::FINALIZER, platform::OPERATOR},
    runtime::{kube_client, logs},
    webhook::validate::{
        deletion::{is_allowed, remaining},
        names::is_leaving,
    },
};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Command-line arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Kubeconfig of the cluster; without it the cluster that this runs in
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator and the control planes
    #[arg(long, env = "POD_NAMESPACE", default_value = "meshwright-system")]
    pub namespace: String,
    /// How long to wait for what has to end
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    pub timeout: u64,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    logs::init();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(async {
            let client = kube_client(args.kubeconfig.as_deref()).await?;
            let timeout = Duration::from_secs(args.timeout);
            let changes = uninstall(&client, &args.namespace, timeout).await?;
            tracing::info!(removed = changes.summary().unwrap_or_default(), "the mesh is gone");
            Ok(())
        })
}

/// Takes everything away that the operator and its control planes made.
pub async fn uninstall(
    client: &Client,
    namespace: &str,
    timeout: Duration,
) -> anyhow::Result<Changes> {
    let mut changes = Changes::default();
    let deadline = Instant::now() + timeout;
    let installations = installations(client).await?;
    refuse_while_needed(client, &installations).await?;
    let api = Api::<MeshInstallation>::all(client.clone());
    for installation in installations.iter().filter(|installation| !is_leaving(installation)) {
        let name = installation.name_any();
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => bail!("cannot delete MeshInstallation {name}: {error}"),
        }
    }
    installations_gone(client, namespace, deadline, &mut changes).await?;
    leftovers::webhooks(client, &mut changes).await?;
    stop_operator(client, namespace, deadline).await?;
    // It may have written its own once more.
    leftovers::webhooks(client, &mut changes).await?;
    leftovers::of_operator(client, namespace, &mut changes).await?;
    // Also where no installation was left to be the last one.
    leftovers::of_mesh(client, namespace, &mut changes).await?;
    Ok(changes)
}

/// None where even their kind is not there.
async fn installations(client: &Client) -> anyhow::Result<Vec<MeshInstallation>> {
    let api = Api::<MeshInstallation>::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list MeshInstallations"),
    }
}

async fn refuse_while_needed(
    client: &Client,
    installations: &[MeshInstallation],
) -> anyhow::Result<()> {
    let mut refusals = Vec::new();
    for installation in installations.iter().filter(|installation| !is_allowed(installation)) {
        let remaining = remaining(client, installation).await.context("cannot list pods")?;
        if !remaining.is_none() {
            let name = installation.name_any();
            refusals.push(format!("MeshInstallation {name}: {}", remaining.refusal(installation)));
        }
    }
    ensure!(refusals.is_empty(), "the mesh is still in use. {}", refusals.join(". "));
    Ok(())
}

/// Waits until the operator has removed them, and does its work where it does not run.
async fn installations_gone(
    client: &Client,
    namespace: &str,
    deadline: Instant,
    changes: &mut Changes,
) -> anyhow::Result<()> {
    loop {
        let left = installations(client).await?;
        if left.is_empty() {
            return Ok(());
        }
        let alone = !operator_serves(client, namespace).await?;
        let mut waits = Vec::new();
        for installation in &left {
            let name = installation.name_any();
            let step = if alone {
                proceed(client, namespace, installation, changes)
                    .await
                    .with_context(|| format!("cannot remove MeshInstallation {name}"))?
            } else {
                None
            };
            match step {
                None if alone => release(client, installation).await?,
                None => waits.push(format!("MeshInstallation {name}: {}", told(installation))),
                Some(wait) => waits.push(format!("MeshInstallation {name}: {}", wait.message())),
            }
        }
        ensure!(Instant::now() < deadline, "not removed in time: {}", waits.join("; "));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the operator says of a removal.
fn told(installation: &MeshInstallation) -> String {
    let conditions = installation.status.iter().flat_map(|status| &status.conditions);
    let progress = conditions.into_iter().find(|condition| condition.type_ == "Progressing");
    progress.map_or_else(|| "the operator says nothing".to_owned(), |c| c.message.clone())
}

/// Whether somebody else brings the removals about.
async fn operator_serves(client: &Client, namespace: &str) -> anyhow::Result<bool> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    let operator = api.get_opt(OPERATOR).await.context("cannot read the operator's Deployment")?;
    let status = operator.and_then(|deployment| deployment.status);
    Ok(status.and_then(|status| status.available_replicas).unwrap_or(0) > 0)
}

/// Takes the finalizer off an installation of which nothing is left.
async fn release(client: &Client, installation: &MeshInstallation) -> anyhow::Result<()> {
    let others: Vec<_> =
        installation.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let patch = json!({"metadata": {
        "finalizers": others, "resourceVersion": installation.resource_version(),
    }});
    let api = Api::<MeshInstallation>::all(client.clone());
    let name = installation.name_any();
    match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // Somebody else was faster, and the next round sees what is left.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot release MeshInstallation {name}")),
    }
}

/// Ends the operator, which would make anew what is taken away.
async fn stop_operator(client: &Client, namespace: &str, deadline: Instant) -> anyhow::Result<()> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match api.patch(OPERATOR, &PatchParams::default(), &none).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("cannot stop the operator"),
    }
    while runs(client, namespace, OPERATOR).await? {
        ensure!(Instant::now() < deadline, "pods of the operator do not end");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
