//! Whether the pod's proxy can serve.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::agent::admin::Admin;

/// How often Envoy is asked until it is ready for the first time. The application waits for that
/// moment; after it, Envoy is asked only when someone asks us.
const POLL: Duration = Duration::from_millis(15);

const FIRST_CONFIGURATION: &str = "^(cluster_manager.cds|listener_manager.lds).update_(success|rejected)$|\
                                   ^listener_manager.workers_started$";

/// Readiness of the proxy, shared by whoever answers for it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    admin: Admin,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The proxy was ready once.
    started: AtomicBool,
    draining: AtomicBool,
    out_of_service: AtomicBool,
}

impl Readiness {
    pub fn new(admin: Admin) -> Self {
        Self { admin, state: Arc::default() }
    }

    /// Can the proxy serve now? If not, why.
    pub async fn check(&self) -> Result<(), String> {
        if self.state.draining.load(Ordering::Relaxed) {
            return Err("the proxy is draining".to_owned());
        }
        if self.state.out_of_service.load(Ordering::Relaxed) {
            return Err("the proxy is out of service until it is replaced".to_owned());
        }
        self.admin.live().await?;
        if self.state.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("the control plane has not sent clusters and listeners yet".to_owned())
    }

    /// From now on the pod is on its way out.
    pub fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the proxy says that it is not ready until it is replaced.
    pub fn out_of_service(&self, away: bool) {
        self.state.out_of_service.store(away, Ordering::Relaxed);
    }

    /// Returns when the proxy is ready for the first time.
    pub async fn started(&self) {
        while !(self.admin.live().await.is_ok() && self.is_configured().await) {
            tokio::time::sleep(POLL).await;
        }
        self.state.started.store(true, Ordering::Relaxed);
    }

    async fn is_configured(&self) -> bool {
        self.admin.stats(FIRST_CONFIGURATION).await.is_ok_and(|stats| configured(&stats))
    }
}

/// Envoy calls itself live when it waited for its configuration long enough. Clusters and listeners
/// must really have come. An answer of which it rejected a part counts: the rest is in force.
fn configured(stats: &[(String, u64)]) -> bool {
    let any = |names: &[&str]| {
        stats.iter().any(|(name, value)| *value > 0 && names.contains(&name.as_str()))
    };
    any(&["cluster_manager.cds.update_success", "cluster_manager.cds.update_rejected"])
        && any(&["listener_manager.lds.update_success", "listener_manager.lds.update_rejected"])
        && any(&["listener_manager.workers_started"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_clusters_and_listeners_and_workers() {
        let stats = |cds: u64, lds: u64, rejected: u64, workers: u64| {
            [
                ("cluster_manager.cds.update_success".to_owned(), cds),
                ("listener_manager.lds.update_success".to_owned(), lds),
                ("listener_manager.lds.update_rejected".to_owned(), rejected),
                ("listener_manager.workers_started".to_owned(), workers),
            ]
        };
        assert!(configured(&stats(1, 1, 0, 1)));
        assert!(configured(&stats(1, 0, 1, 1)), "a partly rejected answer is an answer");
        assert!(!configured(&stats(1, 0, 0, 1)));
        assert!(!configured(&stats(0, 1, 0, 1)));
        assert!(!configured(&stats(1, 1, 0, 0)));
        assert!(!configured(&[]));
    }
}
