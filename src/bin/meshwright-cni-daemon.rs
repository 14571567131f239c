//! The daemon behind the CNI plugin. It is a program of its own because it needs the API server's
//! client, which is more code than all of the sidecar's agent, and because the operator's image has
//! no nft and no iptables: it is installed in the proxy's image, which has.

use clap::Parser;
use meshwright::{cni, runtime};

/// Meshwright on a node: redirects the traffic of pods, so that they need no rights for it.
#[derive(Debug, Parser)]
#[command(name = "meshwright-cni-daemon", version, about)]
struct Cli {
    #[command(flatten)]
    args: cni::Args,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    runtime::install_crypto_provider();
    runtime::exit_code(cni::run(&cli.args))
}
