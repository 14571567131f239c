//! Drives the pipeline and serves xDS and the CA.

pub mod engine;
pub mod intern;
pub mod node;
pub mod world;

pub use engine::Engine;
pub use world::World;

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Runs the role until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    drop(args);
    anyhow::bail!("not built yet")
}
