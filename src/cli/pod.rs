//! The roles that run in a pod: what the whole program and the part in the proxy's image share.

use clap::Subcommand;

use crate::{agent, redirect};

#[derive(Debug, Subcommand)]
pub enum PodRole {
    /// Run beside Envoy in a pod: identity, bootstrap, health, drain, metrics
    Agent(agent::Args),
    /// Redirect a pod's traffic to its proxy, then exit
    Redirect(Box<redirect::Args>),
}

impl PodRole {
    /// Runs the role until it ends.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Agent(args) => agent::run(args),
            Self::Redirect(args) => redirect::run(&args),
        }
    }
}
