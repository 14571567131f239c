//! The sample application of the demo and the test application of every end-to-end test: one small
//! program that serves every protocol a mesh has to carry, and calls them.

mod answer;
mod caller;
mod client;
mod collect;
mod dialer;
mod drive;
mod duration;
mod echo;
mod grpc;
mod health;
mod lifecycle;
mod load;
mod query;
mod serve;
mod server;
mod tally;
mod target;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "testapp", version, about = "Serves and calls every protocol of the mesh's tests")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP, HTTP/2, gRPC and TCP on the ports given
    Serve(serve::Args),
    /// Send requests and print what came of them as one JSON document
    Client(client::Args),
    /// Send requests at a constant rate until told to stop; the results are served over HTTP
    Load(load::Args),
    /// Take traces and show them
    Collect(collect::Args),
    /// Wait for SIGTERM
    Pause,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => run(serve::run(args)),
        Command::Client(args) => run(client::run(args)),
        Command::Load(args) => run(load::run(args)),
        Command::Collect(args) => run(collect::run(args)),
        Command::Pause => run(async {
            lifecycle::terminated().await?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    outcome.unwrap_or_else(|error| {
        report(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// One thread is enough for a test application, and it keeps fifty of them small.
fn run(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}

/// Writes a line to standard error; a closed one is no reason to stop.
fn report(line: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Writes a line to standard output.
fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{line}").context("write to standard output")
}
