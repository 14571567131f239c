//! The part of `meshwright` that runs in every pod, alone: it is installed under the same name in the
//! proxy's image. Half the memory of a sidecar's agent would otherwise be pages of code that only the
//! controllers need (docs/performance.md), and no sidecar should carry a control plane.

use clap::Parser;
use meshwright::{cli::pod::PodRole, runtime};

/// Meshwright in a pod: what runs beside Envoy.
#[derive(Debug, Parser)]
#[command(name = "meshwright", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    role: PodRole,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    runtime::install_crypto_provider();
    runtime::exit_code(cli.role.run())
}
