//! The API server's client.

use std::path::Path;

use anyhow::Context;
use kube::{
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::writes::Writes;

/// A client for `kubeconfig` if one is named, else for what surrounds the process: the cluster it
/// runs in, or the user's own kubeconfig.
pub async fn kube_client(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    let config = config(kubeconfig).await?;
    kube::Client::try_from(config).context("cannot make a client for the API server")
}

/// The same, with its writes counted.
pub async fn counted_client(
    kubeconfig: Option<&Path>,
    writes: &Writes,
) -> anyhow::Result<kube::Client> {
    let config = config(kubeconfig).await?;
    let builder =
        ClientBuilder::try_from(config).context("cannot make a client for the API server")?;
    Ok(builder.with_layer(writes).build())
}

async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {} is not usable", path.display()))
        }
        None => kube::Config::infer()
            .await
            .context("no cluster found: not in a pod, and no usable kubeconfig"),
    }
}
