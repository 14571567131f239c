//! Reconciles MeshInstallations.

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Runs the role until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    drop(args);
    anyhow::bail!("not built yet")
}

/// The port of a gateway's pods behind a port of its Service: pods cannot bind those below 1024.
pub fn gateway_target_port(port: u16) -> u16 {
    if port < 1024 { port + 8000 } else { port }
}
