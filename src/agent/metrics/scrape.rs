//! The application's own metrics.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::merge::Dialect;
use crate::agent::{
    fetch::{self, Error, connect_app},
    settings::AppMetrics,
};

/// The agent holds a text until it is whole. A longer one would cost the pod its memory.
const LONGEST_TEXT: usize = 10 << 20;

/// One place of the application's metrics.
#[derive(Debug)]
pub(super) struct Target {
    place: AppMetrics,
    name: String,
    failures: AtomicU64,
}

/// Metrics that an application gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: Vec<u8>,
    pub(super) dialect: Dialect,
}

impl Target {
    pub(super) fn new(place: AppMetrics) -> Self {
        let name = format!("{}:{}", place.port, place.path);
        Self { place, name, failures: AtomicU64::default() }
    }

    /// As the pod's annotation has it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The metrics; `None` if there are none in time, which is counted.
    pub(super) async fn text(&self, pod: IpAddr, limit: Duration) -> Option<Text> {
        let late = |_| Err(format!("no answer within {} ms", limit.as_millis()));
        let asked = tokio::time::timeout(limit, self.ask(pod, limit));
        match asked.await.unwrap_or_else(late) {
            Ok(text) => Some(text),
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(target = ?self.name, %error, "no metrics from the application");
                None
            }
        }
    }

    async fn ask(&self, pod: IpAddr, limit: Duration) -> Result<Text, String> {
        let answer = self.request(pod, limit).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the application answered {}", answer.status()));
        }
        let dialect = dialect(answer.headers())?;
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the answer ended early: {error}"))?;
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
            if text.len() > LONGEST_TEXT {
                return Err(format!("the answer has more than {LONGEST_TEXT} bytes"));
            }
        }
        Ok(Text { text, dialect })
    }

    async fn request(&self, pod: IpAddr, limit: Duration) -> Result<Response<Incoming>, Error> {
        let AppMetrics { port, path, scheme } = &self.place;
        let to = SocketAddr::new(pod, *port);
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, to.to_string())
            .header(header::CONNECTION, "close")
            // Only texts in this format can follow one another.
            .header(header::ACCEPT, "text/plain;version=0.0.4, */*;q=0.1")
            .header("x-prometheus-scrape-timeout-seconds", limit.as_secs_f64().to_string())
            .body(Empty::<Bytes>::new())?;
        let stream = connect(to).await.map_err(Error::Connect)?;
        fetch::send_app(stream, *scheme, request).await
    }
}

/// Metrics that only the agent shall read may be on loopback alone.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    match connect_app(to).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            let loopback: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            TcpStream::connect((loopback, to.port())).await.map_err(|_| error)
        }
        connected => connected,
    }
}

/// How to read an answer with these headers; an error if it cannot be.
fn dialect(headers: &HeaderMap) -> Result<Dialect, String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING);
    if !matches!(encoding, "" | "identity") {
        return Err(format!("the answer is encoded by {encoding}, which was not asked for"));
    }
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    match kind {
        "application/openmetrics-text" => Ok(Dialect::OpenMetrics),
        "application/vnd.google.protobuf" => Err("the answer is no text".to_owned()),
        _ => Ok(Dialect::Prometheus),
    }
}
