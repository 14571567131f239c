//! Letting connections end before the proxy does.

use std::time::Duration;

use tokio::time::Instant;

use crate::agent::{
    admin::Admin,
    readiness::Readiness,
    settings::{Role, Settings},
};

/// How often connections are counted.
const POLL: Duration = Duration::from_millis(100);

/// A gateway gets the signal when its pod is deleted, before clients and load balancers know, so it
/// goes on serving for a while even if nobody is connected right now. A sidecar gets it after the
/// application has ended.
const GATEWAY_GRACE: Duration = Duration::from_secs(5);

/// What it takes to drain this pod's proxy.
#[derive(Clone, Debug)]
pub struct Drain {
    admin: Admin,
    readiness: Readiness,
    limit: Duration,
    least: Duration,
}

impl Drain {
    pub fn new(admin: Admin, readiness: Readiness, settings: &Settings) -> Self {
        let least = match settings.role {
            Role::Sidecar => Duration::ZERO,
            Role::Router => GATEWAY_GRACE.min(settings.drain),
        };
        Self { admin, readiness, limit: settings.drain, least }
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
        while start.elapsed() < self.limit {
            if start.elapsed() >= self.least && self.connections().await == 0 {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        tracing::info!(
            seconds = self.limit.as_secs(),
            "connections are left at the end of the drain"
        );
    }

    async fn connections(&self) -> u64 {
        let filter = r"^listener\..*\.downstream_cx_active$";
        // An Envoy that does not answer has no connections either.
        self.admin.stats(filter).await.map_or(0, |stats| traffic(&stats))
    }
}

/// The connections that carry traffic, not scrapes or administration. Envoy counts each listener as
/// a whole and once more for each worker.
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
    use super::*;

    #[test]
    fn counts_each_connection_of_traffic_once() {
        let stats = [
            ("listener.0.0.0.0_15006.downstream_cx_active", 2),
            ("listener.0.0.0.0_15006.worker_0.downstream_cx_active", 2),
            ("listener.[__]_15001.downstream_cx_active", 1),
            ("listener.0.0.0.0_15090.downstream_cx_active", 1),
            ("listener.admin.downstream_cx_active", 1),
            ("listener.admin.main_thread.downstream_cx_active", 1),
        ];
        assert_eq!(traffic(&stats.map(|(name, value)| (name.to_owned(), value))), 3);
    }
}
