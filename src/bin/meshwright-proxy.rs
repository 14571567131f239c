//! The part of `meshwright` that runs in every pod, alone: it is installed under the same name in the
//! proxy's image. Half the memory of a sidecar's agent would otherwise be pages of code that only the
//! controllers need (docs/performance.md), and no sidecar should carry a control plane.

use clap::{Parser, Subcommand};

/// Meshwright in a pod: what runs beside Envoy.
#[derive(Debug, Parser)]
#[command(name = "meshwright", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run beside Envoy in a pod: identity, bootstrap, health, drain, metrics
    Agent(meshwright::agent::Args),
    /// Redirect a pod's traffic to its proxy, then exit
    Redirect(meshwright::redirect::Args),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    meshwright::runtime::install_crypto_provider();
    let outcome = match cli.role {
        Role::Agent(args) => meshwright::agent::run(args),
        Role::Redirect(args) => meshwright::redirect::run(&args),
    };
    meshwright::runtime::exit_code(outcome)
}
