//! `testapp client`: requests of one kind, and one JSON document about them. Failed requests are
//! data, so they do not make the command fail unless `--fail` says so.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::watch;

use crate::caller::{Caller, Options};
use crate::drive::{Pace, drive, lock};
use crate::lifecycle;
use crate::tally::Tally;
use crate::target::Target;

/// What to call and how: shared by `client` and `load`.
#[derive(clap::Args, Clone)]
pub struct CallArgs {
    /// http://, h2c://, grpc://, grpc-stream://, tcp:// or banner:// (the server speaks first)
    #[arg(long, env = "TARGET_URL")]
    pub url: String,
    /// Header of every request, `name: value`; may be given more than once
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Host header (authority) instead of the URL's
    #[arg(long)]
    host: Option<String>,
    /// Method of HTTP requests
    #[arg(long, short = 'X', default_value = "GET")]
    method: Method,
    /// Body of HTTP requests, message of gRPC ones, line of TCP ones
    #[arg(long, default_value = "")]
    body: String,
    /// How long one request may take
    #[arg(long, default_value = "15s", value_parser = crate::duration::parse)]
    timeout: Duration,
    /// Open a new connection for each request
    #[arg(long)]
    fresh: bool,
    /// Requests at the same time
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Requests in a second
    #[arg(long)]
    rate: Option<f64>,
}

impl CallArgs {
    pub fn caller(&self) -> anyhow::Result<Caller> {
        let target: Target = self.url.parse()?;
        let mut headers = HeaderMap::new();
        for header in &self.header {
            let (name, value) = parse_header(header)?;
            headers.append(name, value);
        }
        let options = Options {
            host: self.host.clone(),
            headers,
            method: self.method.clone(),
            body: self.body.clone(),
            timeout: self.timeout,
            fresh: self.fresh,
        };
        Caller::new(target, options)
    }

    pub fn pace(&self, count: Option<u64>, duration: Option<Duration>) -> Pace {
        Pace { count, duration, concurrency: self.concurrency, rate: self.rate }
    }
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    call: CallArgs,
    /// Requests in all; one, if there is no duration either
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// How long to go on
    #[arg(long, value_parser = crate::duration::parse)]
    duration: Option<Duration>,
    #[arg(long, value_enum, default_value_t = Output::Summary)]
    output: Output,
    /// Exit with 1 if a request failed, as a probe wants it
    #[arg(long)]
    fail: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Counts and latencies
    Summary,
    /// One request, and its whole answer
    Full,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let caller = Arc::new(args.call.caller()?);
    let failed = match args.output {
        Output::Full => {
            let outcome = caller.call(&HeaderMap::new()).await;
            crate::print(&serde_json::to_string_pretty(&outcome)?)?;
            !outcome.ok
        }
        Output::Summary => summarise(&args, caller).await?,
    };
    Ok(if failed && args.fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the summary; whether a request failed.
async fn summarise(args: &Args, caller: Arc<Caller>) -> anyhow::Result<bool> {
    let count = args.count.or_else(|| args.duration.is_none().then_some(1));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (stop, stopped) = watch::channel(false);
    let interrupted = tokio::spawn(async move {
        if lifecycle::terminated().await.is_ok() {
            stop.send_replace(true);
        }
    });
    let started = Instant::now();
    drive(caller.clone(), args.call.pace(count, args.duration), tally.clone(), stopped).await;
    interrupted.abort();
    let tally = lock(&tally);
    let summary = tally.summary(&args.call.url, caller.connections(), started.elapsed());
    crate::print(&summary.to_string())?;
    Ok(tally.failed() > 0)
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) =
        text.split_once(':').with_context(|| format!("`{text}` is not `name: value`"))?;
    let name: HeaderName =
        name.trim().parse().with_context(|| format!("`{name}` is not a header name"))?;
    ensure!(name != http::header::HOST, "set the host with --host");
    let value = value.trim().parse().with_context(|| format!("`{value}` is not a header value"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers() {
        let (name, value) = parse_header("X-User: a: b").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-user", "a: b"));
        assert!(parse_header("nothing").is_err());
        assert!(parse_header("Host: other").is_err());
    }
}
