//! Metrics of the pod in one answer: Envoy's, the application's, the agent's.
//!
//! Texts pass through line by line, as Envoy's may be megabytes.

use std::{
    collections::HashSet,
    fmt::Write,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::agent::{
    admin::Admin,
    dns,
    fetch::{self, Error, connect_app},
    settings::AppMetrics,
};

/// What Envoy puts before the name of each of its metrics.
const ENVOY_PREFIX: &[u8] = b"envoy_";
/// How the names of the mesh's standard metrics begin.
const STANDARD_PREFIX: &[u8] = b"istio_";
/// A longer line is not text that anybody meant to send.
const LONGEST_LINE: usize = 64 * 1024;
/// An application that does not answer must not cost the proxy's metrics.
const APP_TIMEOUT: Duration = Duration::from_secs(5);

/// The agent's own figures.
#[derive(Debug, Default)]
pub struct Figures {
    renewals: AtomicU64,
    failures: AtomicU64,
    /// Seconds since 1970.
    expiry: AtomicI64,
    pub dns: Arc<dns::Figures>,
}

impl Figures {
    pub fn renewed(&self, not_after: OffsetDateTime) {
        self.renewals.fetch_add(1, Ordering::Relaxed);
        self.expiry.store(not_after.unix_timestamp(), Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let figures = [
            ("certificates_total", "counter", self.renewals.load(Ordering::Relaxed).to_string()),
            (
                "certificate_failures_total",
                "counter",
                self.failures.load(Ordering::Relaxed).to_string(),
            ),
            (
                "certificate_expiry_timestamp_seconds",
                "gauge",
                self.expiry.load(Ordering::Relaxed).to_string(),
            ),
        ];
        for (name, kind, value) in figures {
            let name = format!("meshwright_agent_{name}");
            // Writing to a String cannot fail.
            let _ = write!(text, "# TYPE {name} {kind}\n{name} {value}\n");
        }
        for (name, value) in self.dns.values() {
            let name = format!("meshwright_agent_{name}");
            let _ = write!(text, "# TYPE {name} counter\n{name} {value}\n");
        }
        text
    }
}

/// Where the pod's metrics are.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) admin: Admin,
    pub(super) pod: IpAddr,
    pub(super) app: Option<AppMetrics>,
}

impl Sources {
    /// Sends all metrics, in pieces. The receiver may go away at any time.
    pub(super) async fn send(self, figures: &Figures, to: mpsc::Sender<Bytes>) {
        let mut merge = Merge::default();
        match self.admin.send(Method::GET, "/stats/prometheus").await {
            Ok(answer) => pass(answer.into_body(), &mut merge, &to).await,
            Err(error) => tracing::warn!(%error, "no metrics from Envoy"),
        }
        if let Some(app) = &self.app {
            let asked = async {
                match app_metrics(app, self.pod).await {
                    Ok(body) => pass(body, &mut merge, &to).await,
                    Err(error) => tracing::debug!(%error, "no metrics from the application"),
                }
            };
            drop(tokio::time::timeout(APP_TIMEOUT, asked).await);
        }
        let own = merge.text(figures.text().as_bytes());
        drop(to.send(own.into()).await);
    }
}

async fn app_metrics(app: &AppMetrics, pod: IpAddr) -> Result<Incoming, Error> {
    let to = SocketAddr::new(pod, app.port);
    let request = Request::builder()
        .uri(&app.path)
        .header(header::HOST, to.to_string())
        // Only texts in this format can follow one another.
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .body(Empty::<Bytes>::new())?;
    let stream = connect_app(to).await.map_err(Error::Connect)?;
    let answer = fetch::send(stream, request).await?;
    if !answer.status().is_success() {
        tracing::debug!(status = %answer.status(), "the application refused its metrics");
    }
    Ok(answer.into_body())
}

async fn pass(mut body: Incoming, merge: &mut Merge, to: &mpsc::Sender<Bytes>) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        let text = merge.take(&data);
        if !text.is_empty() && to.send(text.into()).await.is_err() {
            return;
        }
    }
    let rest = merge.finish();
    if !rest.is_empty() {
        drop(to.send(rest.into()).await);
    }
}

/// Joins texts so that the whole is one valid text: names as they should read, and each described
/// once.
#[derive(Debug, Default)]
struct Merge {
    /// Hashes of the `# TYPE` and `# HELP` lines' subjects that were passed on.
    described: HashSet<u64>,
    hasher: RandomState,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl Merge {
    /// A piece of a text; returns the lines that are whole now.
    fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + self.partial.len());
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.partial.is_empty() {
                self.line(line, &mut out);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole, &mut out);
                whole.clear();
                self.partial = whole;
            }
            rest = after;
        }
        if self.partial.len() + rest.len() <= LONGEST_LINE {
            self.partial.extend_from_slice(rest);
        }
        out
    }

    /// The end of a text, whose last line may lack its end.
    fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let last = std::mem::take(&mut self.partial);
        self.line(&last, &mut out);
        out
    }

    /// A whole text.
    fn text(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = self.take(text);
        out.extend(self.finish());
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (head, name) = match line {
            [b'#', ..] => line.split_at(line.len().min(7)),
            _ => line.split_at(0),
        };
        // The end of an OpenMetrics text is not our end; other comments say nothing.
        if name.is_empty() || !matches!(head, b"" | b"# TYPE " | b"# HELP ") {
            return;
        }
        let name = standard_name(name);
        if !head.is_empty() {
            let subject = name.split(|byte| *byte == b' ').next().unwrap_or_default();
            if !self.described.insert(self.hasher.hash_one((head, subject))) {
                return;
            }
        }
        out.extend_from_slice(head);
        out.extend_from_slice(name);
        out.push(b'\n');
    }
}

/// Takes from a line that begins with a metric's name what Envoy put before a standard metric's.
fn standard_name(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(ENVOY_PREFIX) else { return line };
    let end = rest.iter().position(|byte| matches!(byte, b'{' | b' ')).unwrap_or(rest.len());
    let starts = |at: &usize| *at == 0 || rest[at - 1] == b'_';
    let found = rest[..end]
        .windows(STANDARD_PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == STANDARD_PREFIX)
        .map(|(at, _)| at)
        .find(starts);
    found.map_or(line, |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVOY: &str = "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n\
        # TYPE envoy_mesh_istio_requests_total counter\n\
        envoy_mesh_istio_requests_total{a=\"envoy_istio_x 1\"} 3\n\
        # TYPE envoy_other_istio_requests_total counter\n\
        envoy_other_istio_requests_total{a=\"y\"} 4\n\
        # TYPE envoy_istio_request_bytes histogram\n\
        envoy_istio_request_bytes_bucket{le=\"+Inf\"} 1\n";

    #[test]
    fn standard_metrics_read_as_is_and_are_described_once() {
        let mut merge = Merge::default();
        let got = String::from_utf8(merge.text(ENVOY.as_bytes())).unwrap();
        assert_eq!(
            got,
            "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n\
             # TYPE istio_requests_total counter\n\
             istio_requests_total{a=\"envoy_istio_x 1\"} 3\n\
             istio_requests_total{a=\"y\"} 4\n\
             # TYPE istio_request_bytes histogram\n\
             istio_request_bytes_bucket{le=\"+Inf\"} 1\n"
        );
    }

    #[test]
    fn texts_follow_one_another() {
        let mut merge = Merge::default();
        let first = merge.text(b"# HELP a An a.\n# TYPE a counter\r\na 1");
        let second = merge.text(b"# TYPE a counter\na{x=\"2\"} 2\n# a remark\n#\n\n# EOF\n");
        let got = String::from_utf8([first, second].concat()).unwrap();
        assert_eq!(got, "# HELP a An a.\n# TYPE a counter\na 1\na{x=\"2\"} 2\n");
    }

    #[test]
    fn other_names_keep_their_prefix() {
        for line in ["envoy_cluster_x{n=\"istio_y\"} 1", "istio_x 1", "envoy_myistio_x 1", "envoy_"]
        {
            assert_eq!(standard_name(line.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn an_endless_line_is_dropped() {
        let mut merge = Merge::default();
        for _ in 0..3 {
            assert!(merge.take(&vec![b'x'; 40_000]).is_empty());
        }
        assert!(merge.partial.len() <= LONGEST_LINE);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(0..ENVOY.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, ENVOY.len()]);
            cuts.sort_unstable();
            let mut merge = Merge::default();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                got.extend(merge.take(&ENVOY.as_bytes()[pair[0]..pair[1]]));
            }
            got.extend(merge.finish());
            prop_assert_eq!(got, Merge::default().text(ENVOY.as_bytes()));
        }
    }
}
