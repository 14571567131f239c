//! Runs beside Envoy.

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Runs the role until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    drop(args);
    anyhow::bail!("not built yet")
}
