//! What it takes the operator to make gateways from nothing.
//!
//! `cargo bench --bench gateways` starts an API server in memory in a second process and the
//! controller of the Gateway API in this one, over HTTP as in a cluster. The server creates the
//! Gateways, plays the cluster's own controllers (pods that become available, a load balancer that
//! gives addresses), and says when the last one is programmed. What is printed is the operator's: time,
//! CPU, memory, and the calls that it made.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[allow(dead_code, reason = "shared with another benchmark, which reads more of it")]
#[path = "../push/process.rs"]
mod process;
mod server;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::Parser;
use kube::{Client, Config};
use meshwright::{
    api::meshwright::{MeshInstallation, MeshInstallationSpec},
    operator::{
        context::Context,
        gateway_api,
        platform::{Platform, WebhookEndpoint},
    },
    webhook::server::Installations,
};
use tokio::sync::watch;

/// Measures gateways.
#[derive(Debug, Parser)]
struct Args {
    /// How many Gateways
    #[arg(long, default_value_t = 500)]
    gateways: usize,
    /// How many seconds to count calls afterwards, when there is nothing to do
    #[arg(long, default_value_t = 5)]
    idle: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    meshwright::runtime::install_crypto_provider();
    if std::env::args().nth(1).as_deref() == Some("server") {
        return server::run();
    }
    let args = Args::parse();
    // As many threads as the operator has.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut server = Server::start()?;
    let client = Client::try_from(Config::new(server.url.parse()?))?;
    let (stop, stopped) = watch::channel(false);
    let mut stopped = stopped;
    let over = async move { drop(stopped.wait_for(|stop| *stop).await) };
    let running = tokio::spawn(gateway_api::run(context(client), over));
    // Its first lists.
    tokio::time::sleep(Duration::from_secs(1)).await;
    process::reset_peak();
    let before = process::usage(None)?;
    let start = Instant::now();
    let said = server.ask(&format!("gateways {}", args.gateways)).await?;
    let took = start.elapsed();
    let after = process::usage(None)?;
    writeln!(
        out,
        "{} Gateways from nothing to programmed: {:.2} s, {:.2} CPU s, {:.1} MB peak ({:.1} MB before)",
        args.gateways,
        took.as_secs_f64(),
        after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        megabytes(after.peak),
        megabytes(before.resident),
    )?;
    let calls: BTreeMap<String, usize> = serde_json::from_str(&said)?;
    let each = |count: usize| count as f64 / args.gateways as f64;
    let list: Vec<_> =
        calls.iter().map(|(kind, count)| format!("{kind} {:.2}", each(*count))).collect();
    writeln!(
        out,
        "calls for each Gateway: {:.2} ({})",
        each(calls.values().sum()),
        list.join(", ")
    )?;
    let settled = process::usage(None)?;
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    let calls: BTreeMap<String, usize> = serde_json::from_str(&server.ask("calls").await?)?;
    let idle = process::usage(None)?;
    writeln!(
        out,
        "{} s with nothing to do: {} calls, {:.3} CPU s, {:.1} MB resident",
        args.idle,
        calls.values().sum::<usize>(),
        idle.cpu.saturating_sub(settled.cpu).as_secs_f64(),
        megabytes(idle.resident),
    )?;
    stop.send_replace(true);
    running.await?;
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn context(client: Client) -> Arc<Context> {
    let installation = MeshInstallation::new("default", MeshInstallationSpec::default());
    let installations =
        Installations { objects: vec![Arc::new(installation)], ..Installations::default() };
    Arc::new(Context {
        installations: Arc::new(ArcSwap::from_pointee(installations)),
        // The sender lives as long as the process: nothing changes.
        changed: Box::leak(Box::new(watch::channel(()).0)).subscribe(),
        ..Context::new(
            client,
            Platform {
                namespace: "meshwright-system".to_owned(),
                image_registry: "registry.test".to_owned(),
                image_tag: "1".to_owned(),
                image_pull_policy: "Never".to_owned(),
                webhook: WebhookEndpoint::Service,
            },
        )
    })
}

/// The API server, in a process of its own that obeys lines on its standard input.
struct Server {
    process: Child,
    input: ChildStdin,
    output: Option<BufReader<ChildStdout>>,
    url: String,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.context("the server has no pipes")?;
        let mut output = BufReader::new(output);
        let mut url = String::new();
        output.read_line(&mut url)?;
        Ok(Self { process, input, output: Some(output), url: url.trim().to_owned() })
    }

    /// Sends a line and waits for the answer, while the operator works.
    async fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.input, "{line}")?;
        self.input.flush()?;
        let mut output = self.output.take().context("the server has been asked already")?;
        let (output, answer) = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            output.read_line(&mut answer).map(|_| (output, answer))
        })
        .await??;
        self.output = Some(output);
        anyhow::ensure!(!answer.is_empty(), "the server ended early");
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
