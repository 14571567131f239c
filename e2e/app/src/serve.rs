//! The serving side: one listener for each protocol asked for, and what they share.

pub mod http;
pub mod lines;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::HeaderMap;
use anyhow::{Context as _, bail};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

use crate::answer::{Outcome, Whoami};
use crate::caller::{Caller, Options};
use crate::echo::Echo;
use crate::grpc::Routed;
use crate::health::Health;
use crate::lifecycle::{Phase, PhaseWatch, conduct, reached};
use crate::server::{self, Versions};
use crate::target::Target;

/// How many different targets `/call` keeps connections for.
const CALLERS: usize = 64;

/// Headers that a traced application passes on; without them a mesh's spans do not join up.
const PROPAGATED: [&str; 12] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-cloud-trace-context",
    "x-ot-span-context",
];

#[derive(clap::Args)]
#[command(disable_version_flag = true)]
pub struct Args {
    #[command(flatten)]
    who: Whoami,
    /// Port for HTTP/1.1 and HTTP/2 without TLS
    #[arg(long, value_name = "PORT", env = "HTTP_PORT")]
    http: Vec<u16>,
    /// Port for HTTP/2 with prior knowledge alone
    #[arg(long, value_name = "PORT")]
    http2: Vec<u16>,
    /// Port for gRPC: the Echo service and grpc.health.v1
    #[arg(long, value_name = "PORT")]
    grpc: Vec<u16>,
    /// Port for lines of text that are echoed
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// Port for lines of text where the server speaks first, as MySQL and SMTP do
    #[arg(long, value_name = "PORT")]
    server_first: Vec<u16>,
    /// How long after SIGTERM new connections are still accepted
    #[arg(long, default_value = "2s", value_parser = crate::duration::parse, env = "DRAIN_DELAY")]
    drain_delay: Duration,
    /// How long requests in flight may take after that
    #[arg(long, default_value = "10s", value_parser = crate::duration::parse)]
    grace: Duration,
    /// URL that a request of `/` (or a gRPC call) makes this service call; may be given more than once
    #[arg(long, value_name = "URL")]
    onward: Vec<String>,
    /// Answer every HTTP request so much later
    #[arg(long, default_value = "0s", value_parser = crate::duration::parse)]
    slow: Duration,
    /// Start without being ready, until POST /healthz/on
    #[arg(long)]
    unready: bool,
}

/// What the servers of one process share.
pub struct App {
    pub who: Whoami,
    /// What `/` and the Echo service call in their turn.
    pub onward: Vec<String>,
    pub slow: Duration,
    ready: watch::Sender<bool>,
    phase: PhaseWatch,
    requests: AtomicU64,
    callers: Mutex<HashMap<String, Arc<Caller>>>,
}

impl App {
    pub fn new(who: Whoami, ready: bool, phase: PhaseWatch) -> Self {
        Self {
            who,
            onward: Vec::new(),
            slow: Duration::ZERO,
            ready: watch::Sender::new(ready),
            phase,
            requests: AtomicU64::new(0),
            callers: Mutex::default(),
        }
    }

    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// The switch as a stream of its positions.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub fn is_leaving(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn reset_requests(&self) {
        self.requests.store(0, Ordering::Relaxed);
    }

    /// Calls every URL at once, passing on what a traced application passes on.
    pub async fn call_onward(&self, urls: &[String], headers: &HeaderMap) -> Vec<Outcome> {
        let mut passed_on = HeaderMap::new();
        for name in PROPAGATED {
            if let Some(value) = headers.get(name) {
                passed_on.insert(name, value.clone());
            }
        }
        join_all(urls.iter().map(|url| self.call_one(url, &passed_on))).await
    }

    async fn call_one(&self, url: &str, headers: &HeaderMap) -> Outcome {
        match self.caller(url) {
            Ok(caller) => caller.call(headers).await,
            Err(error) => Outcome { url: url.to_owned(), ..Outcome::failed(&error) },
        }
    }

    /// The caller for a URL, with whatever connections it still has.
    fn caller(&self, url: &str) -> anyhow::Result<Arc<Caller>> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(url) {
            return Ok(caller.clone());
        }
        if callers.len() >= CALLERS {
            callers.clear();
        }
        let target: Target = url.parse()?;
        // Each line that is passed on is a connection of its own, so that proxies have some to count.
        let options = Options { fresh: target.protocol.is_lines(), ..Options::default() };
        let caller = Arc::new(Caller::new(target, options)?);
        callers.insert(url.to_owned(), caller.clone());
        Ok(caller)
    }
}

/// Serves until SIGTERM, then ends in order.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (advance, phase) = watch::channel(Phase::Serving);
    let app = Arc::new(App {
        onward: args.onward.clone(),
        slow: args.slow,
        ..App::new(args.who.clone(), !args.unready, phase.clone())
    });
    let mut servers = start(&args, &app, &phase).await?;
    if servers.is_empty() {
        bail!(
            "nothing to serve: give at least one of --http, --http2, --grpc, --tcp, --server-first"
        );
    }
    conduct(advance, args.drain_delay).await?;
    let ended = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(args.grace, ended).await.is_err() {
        crate::report("requests were still in flight when the grace period ended");
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(args: &Args, app: &Arc<App>, phase: &PhaseWatch) -> anyhow::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for port in &args.http {
        let listener = server::listen(*port).await?;
        servers.spawn(http::serve(listener, app.clone(), Versions::Any, phase.clone()));
    }
    for port in &args.http2 {
        let listener = server::listen(*port).await?;
        servers.spawn(http::serve(listener, app.clone(), Versions::Http2, phase.clone()));
    }
    for port in &args.grpc {
        let listener = server::listen(*port).await?;
        let serving = serve_grpc(listener, app.clone(), phase.clone());
        servers.spawn(async {
            if let Err(error) = serving.await {
                crate::report(&format!("{error:#}"));
            }
        });
    }
    for port in &args.tcp {
        let listener = server::listen(*port).await?;
        servers.spawn(lines::serve(listener, app.clone(), lines::First::Client, phase.clone()));
    }
    for port in &args.server_first {
        let listener = server::listen(*port).await?;
        servers.spawn(lines::serve(listener, app.clone(), lines::First::Server, phase.clone()));
    }
    Ok(servers)
}

/// Serves the Echo and Health services.
pub async fn serve_grpc(
    listener: TcpListener,
    app: Arc<App>,
    mut phase: PhaseWatch,
) -> anyhow::Result<()> {
    tonic::transport::Server::builder()
        .add_service(Routed(Echo::new(app.clone())))
        .add_service(Routed(Health::new(app)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            reached(&mut phase, Phase::Stopping).await;
        })
        .await
        .context("serve gRPC")
}
