//! `testapp load`: a client that runs as a Deployment while something else happens to the mesh, and
//! tells over HTTP what came of its requests.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::caller::Caller;
use crate::client::CallArgs;
use crate::drive::{drive, lock};
use crate::lifecycle::{self, Phase};
use crate::serve::http::json_reply;
use crate::server::{Versions, accept, listen, serve_http};
use crate::tally::Tally;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    call: CallArgs,
    /// Port for GET /results, POST /reset and POST /stop
    #[arg(long, default_value_t = 8090, value_name = "PORT")]
    listen: u16,
}

struct Load {
    url: String,
    caller: Arc<Caller>,
    tally: Arc<Mutex<Tally>>,
    started: Instant,
    stop: watch::Sender<bool>,
    /// True when the last request has ended.
    done: watch::Receiver<bool>,
}

impl Load {
    fn results(&self) -> Value {
        let (connections, ran) = (self.caller.connections(), self.started.elapsed());
        let mut results = lock(&self.tally).summary(&self.url, connections, ran);
        results["stopped"] = json!(*self.done.borrow());
        results
    }

    /// Ends the load; returns when the requests in flight have ended, so that the results are final.
    async fn stop(&self) {
        self.stop.send_replace(true);
        // An error means that the load is gone, so it has ended too.
        drop(self.done.clone().wait_for(|done| *done).await);
    }
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let listener = listen(args.listen).await?;
    let caller = Arc::new(args.call.caller()?);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (stop, stopped) = watch::channel(false);
    let (finished, done) = watch::channel(false);
    let load = Arc::new(Load {
        url: args.call.url.clone(),
        caller: caller.clone(),
        tally: tally.clone(),
        started: Instant::now(),
        stop,
        done,
    });
    let pace = args.call.pace(None, None);
    tokio::spawn(async move {
        drive(caller, pace, tally, stopped).await;
        finished.send_replace(true);
    });
    let (advance, phase) = watch::channel(Phase::Serving);
    let phases = phase.clone();
    let server = load.clone();
    let serving = tokio::spawn(accept(listener, phase, move |stream, _| {
        let load = server.clone();
        let service = service_fn(move |request| {
            let load = load.clone();
            async move { Ok::<_, Infallible>(handle(&load, &request).await) }
        });
        serve_http(stream, service, Versions::Any, phases.clone())
    }));
    lifecycle::terminated().await?;
    load.stop().await;
    crate::print(&load.results().to_string())?;
    advance.send_replace(Phase::Stopping);
    serving.await?;
    Ok(ExitCode::SUCCESS)
}

async fn handle(
    load: &Load,
    request: &Request<Incoming>,
) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/results" | "/healthz") => {}
        (&Method::POST, "/stop") => load.stop().await,
        (&Method::POST, "/reset") => *lock(&load.tally) = Tally::default(),
        _ => return json_reply(StatusCode::NOT_FOUND, &json!({"error": "no such path"})),
    }
    json_reply(StatusCode::OK, &load.results())
}
