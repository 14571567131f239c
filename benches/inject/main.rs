//! What one injection costs, and how long it takes under load.
//!
//! `cargo bench --bench inject` starts the webhook in a second process, as the operator serves it
//! (TLS, HTTP/2, the whole of review, decision, patch and diff), and sends it reviews as the API
//! server does: over one connection, many at a time. It prints the server's CPU time for a review,
//! latency at a constant rate (open loop: a late answer does not delay the next question), a large
//! pod, and the server's memory over many reviews. The client has the same cores as the server; what it
//! costs is printed too.

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
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use client::{Client, Pace, Question};
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
    reviews: u32,
    /// Instead of all that, so many reviews without a network: for valgrind
    #[arg(long)]
    rounds: Option<u32>,
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
    if let Some(count) = args.rounds {
        return server::rounds(count);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let server = Server::start()?;
    let mut client = Client::connect(server.address, server.root.clone()).await?;
    let mut small = Question::new(pods::review(&pods::one_container()));
    let mut large = Question::new(pods::review(&pods::with_variables(2000)));
    client.ask(&mut small, 2_000, Pace::Wide(16)).await?;
    let mut bench = Bench { out: &mut out, server: &server, client: &mut client };
    bench.cost("one container", &mut small, 20_000).await?;
    bench.latency(args, &mut small).await?;
    bench.alone(&mut large).await?;
    bench.cost("2,000 variables", &mut large, 500).await?;
    bench.memory(args, &mut small).await
}

struct Bench<'a> {
    out: &'a mut std::io::Stdout,
    server: &'a Server,
    client: &'a mut Client,
}

impl Bench<'_> {
    /// CPU time for a review, many at a time.
    async fn cost(
        &mut self,
        what: &str,
        question: &mut Question,
        count: u32,
    ) -> anyhow::Result<()> {
        let (server, own) = (self.server.usage()?, process::usage(None)?);
        let start = Instant::now();
        self.client.ask(question, count, Pace::Wide(16)).await?;
        let took = start.elapsed();
        let each = |after: process::Usage, before: process::Usage| {
            millis(after.cpu.saturating_sub(before.cpu)) / f64::from(count)
        };
        let (server, own) = (each(self.server.usage()?, server), each(process::usage(None)?, own));
        let rate = f64::from(count) / took.as_secs_f64();
        writeln!(
            self.out,
            "{what}: {server:.3} CPU ms a review (the client: {own:.3}), {rate:.0} reviews a second",
        )?;
        Ok(())
    }

    async fn latency(&mut self, args: &Args, question: &mut Question) -> anyhow::Result<()> {
        let pace = Pace::Every(Duration::from_secs(1) / args.rate);
        let times = self.client.ask(question, args.rate * args.seconds, pace).await?;
        let what = format!("{} reviews a second for {} s", args.rate, args.seconds);
        report(self.out, &what, times)
    }

    /// How long each takes when nothing else goes on.
    async fn alone(&mut self, question: &mut Question) -> anyhow::Result<()> {
        let times = self.client.ask(question, 200, Pace::Wide(1)).await?;
        report(self.out, &format!("2,000 variables, {} KB", question.size() / 1000), times)
    }

    async fn memory(&mut self, args: &Args, question: &mut Question) -> anyhow::Result<()> {
        for part in 1..=10 {
            self.client.ask(question, args.reviews / 10, Pace::Wide(16)).await?;
            let resident = self.server.usage()?.resident as f64 / f64::from(1 << 20);
            let reviews = args.reviews / 10 * part;
            writeln!(self.out, "after {reviews} reviews more: {resident:.1} MiB")?;
        }
        Ok(())
    }
}

fn report(out: &mut impl Write, what: &str, mut times: Vec<Duration>) -> anyhow::Result<()> {
    times.sort();
    let at = |part: usize| millis(times[(times.len() - 1) * part / 1000]);
    let (p50, p99, p999, max) = (at(500), at(990), at(999), at(1000));
    writeln!(out, "{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms")?;
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The webhook in a process of its own, so that its CPU and memory are its own.
struct Server {
    process: Child,
    /// Open as long as the server may write to it.
    _output: BufReader<ChildStdout>,
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
        Ok(Self { process, _output: lines, address: address.trim().parse()?, root })
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
