//! What the webhooks count.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::inject::Decision;

/// Kinds that the validation webhook is registered for.
const KINDS: [&str; 6] = [
    "MeshInstallation",
    "DestinationRule",
    "Gateway",
    "PeerAuthentication",
    "ServiceEntry",
    "VirtualService",
];

/// Cheap to clone: all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    injections: Family<Injection, Counter>,
    validations: Family<Validation, Counter>,
    seconds: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Injection {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Validation {
    kind: &'static str,
    allowed: &'static str,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
        let metrics = Self {
            injections: Family::default(),
            validations: Family::default(),
            seconds: Histogram::new(buckets),
        };
        let webhook = registry.sub_registry_with_prefix("meshwright_webhook");
        webhook.register("injections", "Pods decided about", metrics.injections.clone());
        webhook.register("validations", "Objects checked", metrics.validations.clone());
        webhook.register("injection_seconds", "Time to decide and patch", metrics.seconds.clone());
        metrics
    }

    /// `decision` is none where the pod was denied.
    pub(super) fn injected(&self, decision: Option<&Decision>, took: Duration) {
        let (verdict, reason) = match decision {
            Some(Decision::Inject(reason)) => ("inject", reason.name()),
            Some(Decision::Skip(reason)) => ("skip", reason.name()),
            None => ("deny", "Invalid"),
        };
        self.injections.get_or_create(&Injection { verdict, reason }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn validated(&self, kind: &str, allowed: bool) {
        let allowed = if allowed { "true" } else { "false" };
        // Anybody can post a review of any kind; the number of time series must not follow.
        let kind = KINDS.into_iter().find(|known| *known == kind).unwrap_or("other");
        self.validations.get_or_create(&Validation { kind, allowed }).inc();
    }
}
