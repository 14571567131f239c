//! Drives the pipeline and serves xDS and the CA.
//!
//! [`engine`] makes [`World`]s of snapshots and is synchronous; [`fleet`] says who may connect and
//! what each proxy is to have, [`agents`] and [`names`] the same for agents; [`report`] tells the operator
//! of proxies; [`serve`] is the role with its tasks.

pub mod agents;
pub mod attribution;
pub mod engine;
pub mod fleet;
pub mod intern;
pub mod member;
pub mod metrics;
pub mod names;
pub mod node;
pub mod report;
pub mod serve;
pub mod world;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;

pub use engine::Engine;
pub use fleet::Fleet;
pub use metrics::Metrics;
pub use world::World;

/// By this lease one control plane of all revisions leads. It writes status and the root certificate:
/// two that see the mesh in different ways would undo each other's work.
pub const LEASE: &str = "meshwright-control-plane";

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Cluster to serve; the one around this process, or kubectl's, if not given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of Meshwright itself
    #[arg(long, env = "POD_NAMESPACE", default_value = "meshwright-system")]
    pub namespace: String,
    /// Revision whose MeshInstallation and proxies this control plane serves
    #[arg(long, default_value = "default")]
    pub revision: String,
    /// Address for xDS and certificates, over TLS
    #[arg(long, default_value = "0.0.0.0:15012", value_name = "ADDRESS")]
    pub xds_address: SocketAddr,
    /// Loopback address for xDS without TLS, for debugging and measurements only
    #[arg(long, value_name = "ADDRESS")]
    pub insecure_xds_address: Option<SocketAddr>,
    /// Address for metrics and health checks
    #[arg(long, default_value = "0.0.0.0:15014", value_name = "ADDRESS")]
    pub admin_address: SocketAddr,
    /// DNS name under which proxies reach this control plane, if not that of its Service
    #[arg(long, value_name = "NAME")]
    pub service_name: Option<String>,
}

impl Args {
    /// The names in the server's certificate.
    fn server_names(&self, cluster_domain: &str) -> Vec<String> {
        let service = match self.revision.as_str() {
            "default" => "meshwright-control-plane".to_owned(),
            revision => format!("meshwright-control-plane-{revision}"),
        };
        let namespace = &self.namespace;
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{cluster_domain}"),
            format!("{service}.{namespace}"),
        ];
        names.extend(self.service_name.clone().filter(|name| !names.contains(name)));
        names
    }
}

/// Runs the role until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    crate::runtime::logs::init();
    // Two workers: more would cost memory for stacks and allocator arenas, and what proxies are
    // sent at once is shared, so there is little to do in parallel.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(serve::run(args))
}
