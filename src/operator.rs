//! The operator: reconciles MeshInstallations and Gateways of the Gateway API (on the leader), and
//! serves the admission webhooks (on every replica).

pub mod apply;
pub mod conditions;
pub mod context;
pub mod definitions;
pub mod fleet;
pub mod gateway_api;
pub mod gateway_workload;
pub mod installation;
pub mod objects;
pub mod patches;
pub mod placement;
pub mod platform;
pub mod removal;
mod role;
pub mod rollout;
pub mod scaling;
pub mod version;
mod webhooks;

use std::{net::SocketAddr, path::PathBuf};

pub use installation::build::webhook::VALIDATOR;
pub use role::run;

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Kubeconfig of the cluster to manage; without it the cluster that the operator runs in
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator and the control planes
    #[arg(long, env = "POD_NAMESPACE", default_value = "meshwright-system")]
    pub namespace: String,
    /// Where the webhooks listen
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15017")]
    pub webhook_address: SocketAddr,
    /// Where the API server reaches the webhooks of an operator outside the cluster:
    /// https://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = webhook_url)]
    pub webhook_url: Option<String>,
    /// File with a token that control planes take for the operator's, by which they tell it of their
    /// proxies
    #[arg(long, env = "MESHWRIGHT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where metrics and health checks are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15014")]
    pub admin_address: SocketAddr,
    #[command(flatten)]
    pub images: platform::Images,
    /// Act without asking whether another operator runs
    #[arg(long)]
    pub no_leader_election: bool,
}

fn webhook_url(url: &str) -> Result<String, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none() {
        return Err("the API server calls webhooks by https://HOST:PORT only".to_owned());
    }
    Ok(url.trim_end_matches('/').to_owned())
}
