//! The binary: allocator-free, logic-free; picks the role and runs it.

use clap::{Parser, Subcommand};

/// Meshwright: a service mesh for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "meshwright", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Reconcile MeshInstallations and serve the admission webhooks
    Operator(meshwright::operator::Args),
    /// Serve configuration (xDS) and certificates to the proxies of one revision
    ControlPlane(meshwright::control_plane::Args),
    /// Run beside Envoy in a pod: identity, bootstrap, health, drain, metrics
    Agent(meshwright::agent::Args),
    /// Redirect a pod's traffic to its proxy, then exit
    Redirect(meshwright::redirect::Args),
    /// Print the CustomResourceDefinitions
    Crds(meshwright::cli::crds::Args),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    meshwright::runtime::install_crypto_provider();
    let outcome = match cli.role {
        Role::Operator(args) => meshwright::operator::run(args),
        Role::ControlPlane(args) => meshwright::control_plane::run(args),
        Role::Agent(args) => meshwright::agent::run(args),
        Role::Redirect(args) => meshwright::redirect::run(&args),
        Role::Crds(args) => meshwright::cli::crds::run(&args),
    };
    meshwright::runtime::exit_code(outcome)
}
