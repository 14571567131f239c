//! Metrics of the pod in one answer: Envoy's, the application's, the agent's.
//!
//! Texts pass through line by line, as Envoy's may be megabytes.

use std::{
    fmt::Write,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::agent::{admin::Admin, settings::Settings};

mod merge;
mod scrape;

use merge::Merge;
use scrape::Target;

/// How long applications may take where the scraper does not say how long it waits. They must not
/// cost the proxy's metrics.
pub(super) const APP_LIMIT: Duration = Duration::from_secs(5);
/// As much of a text as is merged, and sent, at a time.
const PIECE: usize = 16 * 1024;

/// The agent's own figures.
#[derive(Debug, Default)]
pub struct Figures {
    renewals: AtomicU64,
    failures: AtomicU64,
    /// Seconds since 1970.
    expiry: AtomicI64,
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
        text
    }
}

/// Where the pod's metrics are.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    admin: Admin,
    pod: IpAddr,
    envoy_failures: Arc<AtomicU64>,
    applications: Arc<[Target]>,
}

impl Sources {
    pub(super) fn new(admin: Admin, settings: &Settings) -> Self {
        let applications = settings.app_metrics.iter().cloned().map(Target::new).collect();
        Self { admin, pod: settings.pod_ip, envoy_failures: Arc::default(), applications }
    }

    /// Sends all metrics, in pieces: the applications' in their order, each whole or not at all. They
    /// are asked for all at once, for as long as `limit`. The receiver may go away at any time.
    pub(super) async fn send(self, figures: &Figures, limit: Duration, to: mpsc::Sender<Bytes>) {
        let mut merge = Merge::default();
        let applications = join_all(self.applications.iter().map(|app| app.text(self.pod, limit)));
        let ((), applications) = tokio::join!(self.envoy(&mut merge, &to), applications);
        for application in applications.into_iter().flatten() {
            merge.begin(application.dialect);
            for piece in application.text.chunks(PIECE) {
                pass(merge.take(piece), &to).await;
            }
            pass(merge.finish(), &to).await;
        }
        let own = figures.text() + &self.failures();
        pass(merge.text(own.as_bytes()), &to).await;
    }

    async fn envoy(&self, merge: &mut Merge, to: &mpsc::Sender<Bytes>) {
        let passed = match self.admin.send(Method::GET, "/stats/prometheus").await {
            Ok(answer) => stream(answer.into_body(), merge, to).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            self.envoy_failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "no metrics from Envoy");
        }
    }

    /// How often a source failed.
    fn failures(&self) -> String {
        const NAME: &str = "meshwright_agent_scrape_failures_total";
        let envoy = ("envoy", self.envoy_failures.load(Ordering::Relaxed));
        let applications = self.applications.iter().map(|app| (app.name(), app.failures()));
        let mut text = format!("# TYPE {NAME} counter\n");
        for (target, failures) in std::iter::once(envoy).chain(applications) {
            let target = target.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{NAME}{{target=\"{target}\"}} {failures}");
        }
        text
    }
}

async fn stream(
    mut body: Incoming,
    merge: &mut Merge,
    to: &mpsc::Sender<Bytes>,
) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        pass(merge.take(&data), to).await;
    }
    pass(merge.finish(), to).await;
    Ok(())
}

async fn pass(text: Vec<u8>, to: &mpsc::Sender<Bytes>) {
    if !text.is_empty() {
        // A scraper that went away does not want the rest either.
        drop(to.send(text.into()).await);
    }
}

#[cfg(test)]
mod tests;
