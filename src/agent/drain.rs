//! Letting connections end before the proxy does.
//!
//! The signal to stop is all that this needs; a preStop hook would be one more. The kubelet stops a
//! native sidecar after the application has ended, so that only what others hold open is left. It
//! signals a classic one together with the application, whose own preStop handler may only begin:
//! the proxy goes on serving both ways until the connections are gone, and a while longer in case
//! that the application opens new ones on its way out. The agent is the container's first process
//! and Envoy does not hear the signal, so nothing ends before this says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::agent::{admin::Admin, readiness::Readiness, settings::Settings};

/// How often connections are counted.
const POLL: Duration = Duration::from_millis(100);

/// What it takes to drain this pod's proxy.
#[derive(Clone, Debug)]
pub struct Drain {
    admin: Admin,
    readiness: Readiness,
    /// `None`: as long as Kubernetes lets the pod.
    limit: Option<Duration>,
    least: Duration,
    hooks: Arc<AtomicU64>,
}

/// Held while a lifecycle handler of the application runs: it has not ended then.
#[derive(Debug)]
pub struct Hook(Arc<AtomicU64>);

impl Drop for Hook {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drain {
    pub fn new(admin: Admin, readiness: Readiness, settings: &Settings) -> Self {
        let Settings { drain, min_drain: least, drain_to_the_last, .. } = *settings;
        let limit = (!drain_to_the_last).then_some(drain.max(least));
        Self { admin, readiness, limit, least, hooks: Arc::default() }
    }

    /// A lifecycle handler of the application begins.
    pub fn hook(&self) -> Hook {
        self.hooks.fetch_add(1, Ordering::Relaxed);
        Hook(Arc::clone(&self.hooks))
    }

    /// Asks everybody to leave, and returns when they have left or the time is over. Listeners stay
    /// open: whoever has not heard yet is served.
    pub async fn run(&self) {
        self.readiness.drain();
        for path in ["/healthcheck/fail", "/drain_listeners?graceful&skip_exit"] {
            if let Err(error) = self.admin.post(path).await {
                tracing::warn!(path, %error, "cannot tell Envoy to drain");
                return;
            }
        }
        let start = Instant::now();
        while self.limit.is_none_or(|limit| start.elapsed() < limit) {
            if start.elapsed() >= self.least && self.is_over().await {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        tracing::info!(
            seconds = start.elapsed().as_secs(),
            "connections are left at the end of the drain"
        );
    }

    async fn is_over(&self) -> bool {
        if self.hooks.load(Ordering::Relaxed) > 0 {
            return false;
        }
        // An Envoy that is too busy to answer has connections; one that has ended ends the agent.
        let filter = r"^listener\..*\.downstream_cx_active$";
        self.admin.stats(filter).await.is_ok_and(|stats| traffic(&stats) == 0)
    }
}

/// The connections that carry traffic, not scrapes or administration. Envoy counts each listener as
/// a whole and once more for each worker. A connection of the application to others is one of the
/// listener on 15001, or of the one for its destination, that took it over; one from others is of
/// 15006, or of a gateway's port.
fn traffic(stats: &[(String, u64)]) -> u64 {
    let own = |name: &str| {
        name.starts_with("listener.admin.")
            || name.contains("_15090.")
            || name.contains(".worker_")
            || name.contains(".main_thread.")
    };
    stats.iter().filter(|(name, _)| !own(name)).map(|(_, value)| value).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{
        Router,
        extract::RawQuery,
        routing::{get, post},
    };

    use super::*;
    use crate::agent::settings::tests::settings;

    #[test]
    fn counts_each_connection_of_traffic_once() {
        let stats = [
            ("listener.0.0.0.0_15006.downstream_cx_active", 2),
            ("listener.0.0.0.0_15006.worker_0.downstream_cx_active", 2),
            ("listener.[__]_15001.downstream_cx_active", 1),
            ("listener.10.96.3.4_80.downstream_cx_active", 1),
            ("listener.0.0.0.0_15090.downstream_cx_active", 1),
            ("listener.admin.downstream_cx_active", 1),
            ("listener.admin.main_thread.downstream_cx_active", 1),
        ];
        assert_eq!(traffic(&stats.map(|(name, value)| (name.to_owned(), value))), 4);
    }

    /// An Envoy's administration whose connections are those of the list, one entry for each time
    /// that they are asked for, the last for ever.
    async fn envoy(connections: Vec<u64>) -> (Admin, Arc<Mutex<Vec<u64>>>) {
        let left = Arc::new(Mutex::new(connections.into_iter().rev().collect::<Vec<_>>()));
        let list = Arc::clone(&left);
        let stats = move |RawQuery(query): RawQuery| {
            assert!(query.unwrap().contains("downstream_cx_active"));
            let mut left = list.lock().unwrap();
            let now = if left.len() > 1 { left.pop().unwrap() } else { left[0] };
            std::future::ready(format!("listener.0.0.0.0_15001.downstream_cx_active: {now}\n"))
        };
        let router = Router::new()
            .route("/healthcheck/fail", post(|| async { "OK" }))
            .route("/drain_listeners", post(|| async { "OK" }))
            .route("/stats", get(stats));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let admin = Admin::at(listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (admin, left)
    }

    fn drain(admin: Admin, changes: &[(&str, &str)]) -> Drain {
        Drain::new(admin, Readiness::new(admin), &settings(changes).unwrap())
    }

    #[tokio::test]
    async fn waits_for_the_applications_own_connections() {
        let (admin, left) = envoy(vec![2, 1, 1, 0]).await;
        let drain = drain(admin, &[("MESHWRIGHT_DRAIN_SECONDS", "3600")]);
        drain.run().await;
        assert_eq!(*left.lock().unwrap(), [0], "all were seen to end");
        assert_eq!(drain.readiness.check().await.unwrap_err(), "the proxy is draining");
    }

    #[tokio::test]
    async fn an_application_with_a_lifecycle_handler_under_way_has_not_ended() {
        let (admin, _) = envoy(vec![0]).await;
        let drain = drain(admin, &[("MESHWRIGHT_DRAIN_SECONDS", "3600")]);
        let hook = drain.hook();
        assert!(!drain.is_over().await);
        drop(hook);
        assert!(drain.is_over().await);
    }

    #[tokio::test]
    async fn connections_that_stay_are_cut_at_the_limit() {
        let (admin, left) = envoy(vec![3, 3, 1]).await;
        drain(admin, &[("MESHWRIGHT_DRAIN_SECONDS", "1")]).run().await;
        assert_eq!(*left.lock().unwrap(), [1], "they were counted until then");
    }

    #[test]
    fn the_least_and_the_most_are_as_told() {
        let nobody = Admin::at(([127, 0, 0, 1], 1).into());
        let times = |changes: &[(&str, &str)]| {
            let Drain { least, limit, .. } = drain(nobody, changes);
            (least.as_millis(), limit.map(|limit| limit.as_millis()))
        };
        assert_eq!(times(&[]), (0, Some(5000)));
        let classic = ("MESHWRIGHT_SIDECAR", "classic");
        assert_eq!(times(&[classic]), (5000, Some(5000)));
        assert_eq!(times(&[classic, ("MESHWRIGHT_DRAIN_SECONDS", "2")]), (2000, Some(2000)));
        assert_eq!(times(&[classic, ("MESHWRIGHT_DRAIN_SECONDS", "60")]), (5000, Some(60_000)));
        assert_eq!(times(&[("MESHWRIGHT_ROLE", "router")]), (5000, Some(5000)));
        let least = ("MESHWRIGHT_MIN_DRAIN_SECONDS", "20");
        assert_eq!(times(&[least]), (20_000, Some(20_000)), "the least is more than the most");
        let to_the_end = ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true");
        assert_eq!(times(&[to_the_end, classic]), (5000, None));
    }
}
