//! Redirects a pod's traffic to its proxy.

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
