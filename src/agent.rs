//! `meshwright agent`: what runs beside Envoy in a pod.
//!
//! It reads its [`Settings`] from the environment, writes Envoy's [`bootstrap`] and starts it
//! ([`proxy`]), gets the workload's certificate from the CA and renews it ([`identity`]), hands it to
//! Envoy over a Unix socket ([`sds`]), and answers for the pod: readiness, the application's own probes,
//! merged metrics, drain ([`server`]). It is not in the way of configuration, which Envoy fetches by
//! itself. Where it was asked to, it knows the mesh's hosts ([`mesh`]) and answers the pod's DNS
//! questions ([`dns`]), and ends when the pod's applications have finished ([`finish`]).
//!
//! One thread, small buffers: the agent is paid for in every pod.

use std::time::Duration;

use anyhow::Context;

mod admin;
mod ask;
pub mod bootstrap;
pub mod connect;
pub mod dns;
mod drain;
mod fetch;
mod finish;
pub mod identity;
mod insecure;
pub mod mesh;
mod metrics;
mod optional;
mod out_of_service;
mod podinfo;
mod probe;
mod proxy;
mod readiness;
mod retry;
mod run;
mod sds;
mod server;
pub mod settings;
pub mod stats;

pub use settings::Settings;

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Wait until the agent in this pod is ready, then exit (for a postStart hook)
    #[arg(long, conflicts_with = "drain")]
    wait: bool,
    /// Drain the proxy in this pod, and exit when its connections have ended (for a preStop hook)
    #[arg(long)]
    drain: bool,
    /// How many seconds --wait waits
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the role until it is told to stop.
#[expect(clippy::needless_pass_by_value, reason = "all roles have the same signature")]
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Files are read now and then; a second blocking thread would only cost memory.
        .max_blocking_threads(1)
        .thread_stack_size(256 * 1024)
        .build()
        .context("cannot start the runtime")?;
    if args.wait {
        return Ok(runtime.block_on(ask::wait(ask::AGENT, Duration::from_secs(args.timeout)))?);
    }
    if args.drain {
        return Ok(runtime.block_on(ask::drain())?);
    }
    let env = |name: &str| std::env::var(name).ok();
    let level = env("MESHWRIGHT_AGENT_LOG_LEVEL").filter(|level| !level.is_empty());
    crate::runtime::logs::init_at(level.as_deref());
    let mut settings = Settings::from_env(env)?;
    settings.labels = podinfo::labels(&settings.pod_dir);
    runtime.block_on(run::run(settings))
}
