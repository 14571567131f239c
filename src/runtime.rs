//! What every role needs around its own work: TLS with live reload, the admin server, leader
//! election, shutdown, logs.

pub mod admin;
pub mod client;
pub mod events;
pub mod leader;
pub mod logs;
pub mod shutdown;
pub mod tls;
pub mod writes;

use std::{io::Write, process::ExitCode};

pub use client::kube_client;

/// Makes aws-lc the process's TLS provider. Called once, first thing in `main` (and in tests).
pub fn install_crypto_provider() {
    // An error means that one is installed already, which is what we want.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// Prints a role's failure as one sentence with its causes, and turns it into the exit code.
pub fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to do about a closed standard error.
    drop(writeln!(stderr, "error: {error}"));
    for cause in error.chain().skip(1) {
        drop(writeln!(stderr, "  cause: {cause}"));
    }
    ExitCode::FAILURE
}
