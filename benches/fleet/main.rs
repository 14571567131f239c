//! What it costs the operator to know a fleet.
//!
//! `cargo bench --bench fleet` plays an API server with N pods (10,000 unless told) from this process:
//! pages of whole pods as JSON, then a change of each. The operator's own watch reads them, and control
//! planes' reports are heard for all of them. It prints resident memory before, at the peak and after,
//! and the CPU time of each part. The text of one page at a time is the API server's share.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod pods;
#[path = "../push/process.rs"]
mod process;

use std::{
    convert::Infallible,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt, stream};
use http::{Request, Response};
use kube::{Client, client::Body, runtime::watcher::Event};
use meshwright::{
    api::meshwright::{MeshInstallation, MeshInstallationSpec},
    control_plane::report::{Line, Report, State},
    operator::{
        fleet::{self, Fleet, Wanted},
        platform::{Images, WebhookEndpoint},
    },
    watch::Key,
};

/// Measures the operator's knowledge of a fleet.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// How often every pod changes after the list
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    meshwright::runtime::install_crypto_provider();
    let args = Args::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut phase = Phase::begin(&mut out, "before")?;
    let fleet = Fleet::default();
    let mut events = std::pin::pin!(fleet::pods(api_server(args.pods, args.rounds)));
    while let Some(event) = events.next().await {
        let listed = matches!(event, Ok(Event::InitDone));
        fleet.see(event?);
        if listed {
            break;
        }
    }
    phase.end(&mut out, &format!("{} pods listed", args.pods))?;
    for _ in 0..args.pods * args.rounds {
        let event = events.next().await;
        fleet.see(event.unwrap_or_else(|| unreachable!("a watch does not end"))?);
    }
    phase.end(&mut out, &format!("{} changes", args.pods * args.rounds))?;
    reports(&fleet, args.pods);
    phase.end(&mut out, "reports of all heard")?;
    let mut installation = MeshInstallation::new("default", MeshInstallationSpec::default());
    pods::IMAGE.clone_into(&mut installation.spec.proxy.image);
    let platform =
        Images::default().platform("meshwright-system".to_owned(), WebhookEndpoint::Service);
    let wanted = || Wanted::of(&installation, &platform);
    for _ in 0..100 {
        let summary = fleet.summary("default", wanted());
        anyhow::ensure!(summary.is_some_and(|s| usize::try_from(s.count.total) == Ok(args.pods)));
    }
    phase.end(&mut out, "100 summaries")?;
    let proxies = fleet.proxies("default");
    anyhow::ensure!(proxies.len() == args.pods);
    phase.end(&mut out, "all proxies written out")?;
    drop(proxies);
    phase.end(&mut out, "after")
}

/// As one control plane says them.
fn reports(fleet: &Fleet, count: usize) {
    let source: fleet::reports::Source = "control-plane".into();
    fleet.set_sources([(&source, "default")].into_iter());
    fleet.hear(&source, Line::Hello { version: "1.4.0".to_owned() });
    for number in 0..count {
        let (namespace, name) = pods::names(number);
        let report = Report {
            certificate_ends: "2026-11-22T08:00:00Z".parse().ok(),
            envoy: "1.40.0".to_owned(),
            agent: "1.4.0".to_owned(),
            ..Report::new(&Key::new(&namespace, &name), State::Current)
        };
        fleet.hear(&source, Line::Proxy(report));
    }
    fleet.hear(&source, Line::Synced);
}

struct Phase {
    started: Instant,
    cpu: Duration,
}

impl Phase {
    fn begin(out: &mut impl Write, what: &str) -> anyhow::Result<Self> {
        let usage = process::usage(None)?;
        writeln!(out, "{what}: {} resident", mebibytes(usage.resident))?;
        process::reset_peak();
        Ok(Self { started: Instant::now(), cpu: usage.cpu })
    }

    fn end(&mut self, out: &mut impl Write, what: &str) -> anyhow::Result<()> {
        let usage = process::usage(None)?;
        writeln!(
            out,
            "{what}: {} resident, {} at the peak, {:.2} CPU s, {:.2} s",
            mebibytes(usage.resident),
            mebibytes(usage.peak),
            usage.cpu.saturating_sub(self.cpu).as_secs_f64(),
            self.started.elapsed().as_secs_f64(),
        )?;
        process::reset_peak();
        (self.started, self.cpu) = (Instant::now(), usage.cpu);
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Pages of a list, and then a watch in which each pod changes `rounds` times.
fn api_server(count: usize, rounds: usize) -> Client {
    let sent = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let body = if parameter("watch").is_some() {
            axum::body::Body::from_stream(changes(count, rounds, sent.clone()))
        } else {
            let from = parameter("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
            let limit = parameter("limit").and_then(|text| text.parse().ok()).unwrap_or(count);
            axum::body::Body::from(pods::page(from, (from + limit).min(count), count))
        };
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    Client::new(service, "default")
}

fn changes(
    count: usize,
    rounds: usize,
    sent: Arc<AtomicUsize>,
) -> impl stream::Stream<Item = Result<String, Infallible>> + Send {
    let next = move || {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        (number < count * rounds).then(|| pods::change(number % count, number))
    };
    let lines = stream::unfold(next, |next| async move {
        let line = next()?;
        Some((Ok(line), next))
    });
    lines.chain(stream::pending())
}
