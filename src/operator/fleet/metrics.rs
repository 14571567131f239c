//! What the operator measures of the fleet.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Summaries;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    proxies: Family<State, Gauge>,
    ready: Family<Revision, Gauge>,
    outdated: Family<Revision, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    revision: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Revision {
    revision: String,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let fleet = registry.sub_registry_with_prefix("meshwright_operator");
        fleet.register(
            "proxies",
            "Proxies by what control planes say of their configuration (on the leader)",
            metrics.proxies.clone(),
        );
        fleet.register("proxies_ready", "Pods with a proxy that are ready", metrics.ready.clone());
        fleet.register(
            "proxies_outdated",
            "Proxies that run another image than they would get now",
            metrics.outdated.clone(),
        );
        metrics
    }

    /// Shows these and no others.
    pub(super) fn show(&self, summaries: &Summaries) {
        self.proxies.clear();
        self.ready.clear();
        self.outdated.clear();
        for (revision, summary) in summaries {
            let states = [
                ("current", summary.states.current),
                ("pending", summary.states.pending),
                ("rejected", summary.count.rejected),
                ("disconnected", summary.states.disconnected),
                ("unknown", summary.states.unknown),
            ];
            for (state, count) in states {
                let labels = State { revision: revision.clone(), state };
                self.proxies.get_or_create(&labels).set(count.into());
            }
            let labels = Revision { revision: revision.clone() };
            self.ready.get_or_create(&labels).set(summary.count.ready.into());
            self.outdated.get_or_create(&labels).set(summary.count.outdated.into());
        }
    }
}
