//! The binary: allocator-free, logic-free; picks the role and runs it.

use clap::{Parser, Subcommand};
use meshwright::{cli, control_plane, operator, runtime};

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
    Operator(operator::Args),
    /// Serve configuration (xDS) and certificates to the proxies of one revision
    ControlPlane(control_plane::Args),
    #[command(flatten)]
    Pod(cli::pod::PodRole),
    /// Take the mesh out of the cluster; `helm uninstall` runs this
    Uninstall(operator::removal::uninstall::Args),
    /// Say whether the operator's webhooks answer
    CheckWebhooks(cli::check_webhooks::Args),
    /// Print the CustomResourceDefinitions
    Crds(cli::crds::Args),
    /// Add proxies to the workloads of files, as the webhook does to their pods
    Inject(cli::inject::Args),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    runtime::install_crypto_provider();
    let outcome = match cli.role {
        Role::Operator(args) => operator::run(args),
        Role::ControlPlane(args) => control_plane::run(args),
        Role::Pod(role) => role.run(),
        Role::Uninstall(args) => operator::removal::uninstall::run(&args),
        Role::CheckWebhooks(args) => cli::check_webhooks::run(&args),
        Role::Crds(args) => cli::crds::run(&args),
        Role::Inject(args) => cli::inject::run(&args),
    };
    runtime::exit_code(outcome)
}
