//! Whether a pod gets a proxy, and why.
//!
//! Three questions in this order: does somebody ask this revision for a proxy ([`claims`]), do the
//! pod's own switch and the installation let it ([`policy`]), and can the pod have one at all
//! ([`obstacles`]). The webhook configuration's selectors answer the first by themselves, so that the
//! API server asks about those pods only; this is what decides.

mod brand;
mod claims;
mod obstacles;
mod policy;
mod reason;
pub mod selector;
#[cfg(test)]
mod tests;
mod warnings;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::{InjectConfig, Namespace};

pub use brand::{Brand, ISTIO, OURS};
pub use reason::Reason;
pub use warnings::warnings;

/// Namespaces of Kubernetes itself and of its usual storage provisioner, where nothing may stand in
/// the way.
pub const KUBERNETES_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The proxy's user, whose traffic is not captured.
pub const PROXY_UID: i64 = 1337;

type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Inject(Reason),
    Skip(Reason),
}

impl Decision {
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Inject(reason) | Self::Skip(reason) => reason,
        }
    }
}

/// Whether the pod is to be injected by the revision of `config`.
pub fn decide(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Decision {
    match reason(pod, namespace, config) {
        Ok(reason) => Decision::Inject(reason),
        Err(reason) => Decision::Skip(reason),
    }
}

fn reason(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Result<Reason, Reason> {
    let pod_labels = Pairs(pod.metadata.labels.as_ref());
    let annotations = Pairs(pod.metadata.annotations.as_ref());
    let brands = Brand::recognized(config.istio_labels);
    if let Some(refusal) = policy::refusal(pod_labels, annotations, brands) {
        return Err(Reason::PodOptedOut(refusal));
    }
    let claims = claims::all(&namespace.labels, pod_labels, brands);
    let claim = claims.first().ok_or(Reason::NotAsked)?;
    let asked = claim.reason(config)?;
    let allowed = policy::consent(pod_labels, annotations, brands, &config.injection)?;
    match obstacles::find(pod, namespace, config) {
        Some(obstacle) => Err(obstacle),
        None => Ok(allowed.unwrap_or(asked)),
    }
}

/// Labels or annotations, which an object may not have at all.
#[derive(Clone, Copy)]
struct Pairs<'a>(Option<&'a Labels>);

impl<'a> Pairs<'a> {
    fn get(self, key: &str) -> Option<&'a str> {
        self.0?.get(key).map(String::as_str)
    }
}
