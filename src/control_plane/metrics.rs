//! What the control plane counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{mesh::ProxyRole, xds::ResourceType};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: TypeLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TypeLabel(ResourceType);

impl EncodeLabelValue for TypeLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder,
    ) -> Result<(), std::fmt::Error> {
        // The names that people know from Istio's dashboards.
        let name = match self.0 {
            ResourceType::Secret => "sds",
            ResourceType::Cluster => "cds",
            ResourceType::Endpoints => "eds",
            ResourceType::Listener => "lds",
            ResourceType::Route => "rds",
            ResourceType::Host => "nds",
            ResourceType::Pod => "pod",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

/// The control plane's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    proxies: Family<Role, Gauge>,
    pushes: Family<Type, Counter>,
    bytes: Family<Type, Counter>,
    rejections: Gauge,
    convergence: Histogram,
    rebuilds: Histogram,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let metrics = Self {
            proxies: Family::default(),
            pushes: Family::default(),
            bytes: Family::default(),
            rejections: Gauge::default(),
            convergence: seconds(),
            rebuilds: seconds(),
        };
        let mesh = registry.sub_registry_with_prefix("meshwright_xds");
        mesh.register("proxies", "Connected proxies", metrics.proxies.clone());
        mesh.register("pushes", "Responses sent", metrics.pushes.clone());
        mesh.register("sent_bytes", "Bytes of responses sent", metrics.bytes.clone());
        mesh.register(
            "rejections",
            "Resources that a connected proxy refuses now",
            metrics.rejections.clone(),
        );
        mesh.register(
            "convergence_seconds",
            "From a change's arrival to a proxy's acknowledgement of all that it was sent for it",
            metrics.convergence.clone(),
        );
        mesh.register(
            "rebuild_seconds",
            "Time to make everything but endpoints anew",
            metrics.rebuilds.clone(),
        );
        metrics
    }

    pub(super) fn connected(&self, role: ProxyRole, by: i64) {
        let role = match role {
            ProxyRole::Sidecar => "sidecar",
            ProxyRole::Router => "gateway",
        };
        self.proxies.get_or_create(&Role { role }).inc_by(by);
    }

    pub(super) fn sent(&self, kind: ResourceType, bytes: usize) {
        let label = Type { r#type: TypeLabel(kind) };
        self.pushes.get_or_create(&label).inc();
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    pub(super) fn rejected(&self, change: i64) {
        self.rejections.inc_by(change);
    }

    pub(super) fn converged(&self, after: std::time::Duration) {
        self.convergence.observe(after.as_secs_f64());
    }

    pub(super) fn rebuilt(&self, within: std::time::Duration) {
        self.rebuilds.observe(within.as_secs_f64());
    }
}
