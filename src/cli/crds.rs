//! `meshwright crds`: prints the CustomResourceDefinitions.

/// Command-line arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
