//! What one injection costs, and how long it takes under load.
//!
//! `cargo bench --bench inject` starts the webhook in a second process, as the operator serves it
//! (TLS, HTTP/2, the whole of review, decision, patch and diff), and sends it reviews as the API
//! server does: over one connection, many at a time. It prints the server's CPU time for a review,
//! latency at a constant rate (open loop: a late answer does not delay the next question), a large
//! pod, and the server's memory over many reviews.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod client;
mod pods;
#[allow(dead_code, reason = "shared with another benchmark, which reads more of it")]
#[path = "../push/process.rs"]
mod process;
mod server;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use client::Client;
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Measures injection.
#[derive(Debug, Parser)]
struct Args {
    /// Reviews a second while latency is measured
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// How many seconds of that
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Reviews after which memory must be what it was
    #[arg(long, default_value_t = 1_000_000)]
    reviews: usize,
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
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let server = Server::start()?;
    let client = Client::connect(server.address, server.root.clone()).await?;
    let small = pods::review(&pods::one_container());
    let large = pods::review(&pods::with_variables(2000));
    client.many(&small, 2_000, 16).await?;
    cost(&mut out, &server, &client, "one container", &small, 20_000).await?;
    latency(&mut out, &client, args, &small).await?;
    let times = client.one_by_one(&large, 200).await?;
    report(&mut out, &format!("2,000 variables, {} KB", large.len() / 1000), times)?;
    cost(&mut out, &server, &client, "2,000 variables", &large, 500).await?;
    memory(&mut out, &server, &client, args, &small).await
}

async fn cost(
    out: &mut impl Write,
    server: &Server,
    client: &Client,
    what: &str,
    review: &Bytes,
    count: usize,
) -> anyhow::Result<()> {
    let before = server.usage()?;
    let start = Instant::now();
    client.many(review, count, 16).await?;
    let took = start.elapsed();
    let cpu = server.usage()?.cpu.saturating_sub(before.cpu);
    writeln!(
        out,
        "{what}: {:.3} CPU ms a review, {:.0} reviews a second",
        millis(cpu) / count as f64,
        count as f64 / took.as_secs_f64(),
    )?;
    Ok(())
}

async fn latency(
    out: &mut impl Write,
    client: &Client,
    args: &Args,
    review: &Bytes,
) -> anyhow::Result<()> {
    let times = client.at_rate(review, args.rate, args.rate * args.seconds).await?;
    report(out, &format!("{} reviews a second for {} s", args.rate, args.seconds), times)
}

fn report(out: &mut impl Write, what: &str, mut times: Vec<Duration>) -> anyhow::Result<()> {
    times.sort();
    let at = |part: usize| millis(times[(times.len() - 1) * part / 1000]);
    let (p50, p99, p999, max) = (at(500), at(990), at(999), at(1000));
    writeln!(out, "{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms")?;
    Ok(())
}

async fn memory(
    out: &mut impl Write,
    server: &Server,
    client: &Client,
    args: &Args,
    review: &Bytes,
) -> anyhow::Result<()> {
    for part in 1..=10 {
        client.many(review, args.reviews / 10, 16).await?;
        let resident = server.usage()?.resident as f64 / f64::from(1 << 20);
        writeln!(out, "after {} reviews more: {resident:.1} MiB", args.reviews / 10 * part)?;
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The webhook in a process of its own, so that its CPU and memory are its own.
struct Server {
    process: Child,
    address: SocketAddr,
    root: CertificateDer<'static>,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("server")
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?);
        let mut address = String::new();
        lines.read_line(&mut address)?;
        let mut pem = String::new();
        while !pem.contains("END CERTIFICATE") {
            anyhow::ensure!(lines.read_line(&mut pem)? > 0, "the server did not start");
        }
        let root = CertificateDer::from_pem_slice(pem.as_bytes())?;
        Ok(Self { process, address: address.trim().parse()?, root })
    }

    fn usage(&self) -> anyhow::Result<process::Usage> {
        process::usage(Some(self.process.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
