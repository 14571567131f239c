//! Injection of the proxy into a pod: whether ([`decide`]), and what it becomes ([`patch`]).

mod canonical;
pub mod check;
mod company;
pub mod container;
pub mod damage;
pub mod decide;
mod encoded;
mod excerpt;
mod json;
mod layers;
mod metrics;
mod native;
pub mod options;
mod order;
mod overlay;
pub mod patch;
mod plan;
mod probes;
mod reading;
mod status;
pub mod strategic;
mod template;
mod user;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::api::meshwright::Injection;

pub use container::ProxySettings;
pub use damage::damage;
pub use decide::{Decision, Reason, decide};
pub use layers::leaves_the_choice;
pub use native::{NativeSupport, kubelet_version};
pub use options::{BadOption, Options};
pub use workload::workload_name;

/// What injection depends on beside the pod and its namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectConfig {
    /// The revision whose webhook was asked.
    pub revision: String,
    /// Other names of it.
    pub tags: Vec<String>,
    /// Where the mesh itself runs: never injected.
    pub system_namespace: String,
    /// Whether Istio's labels mean what ours mean.
    pub istio_labels: bool,
    pub injection: Injection,
    pub proxy: ProxySettings,
}

impl InjectConfig {
    /// Whether this is a name of the revision.
    pub fn answers_to(&self, revision: &str) -> bool {
        self.revision == revision || self.tags.iter().any(|tag| tag == revision)
    }
}

/// The namespace of a pod, as far as injection looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Those of [`PLATFORM_ANNOTATIONS`].
    pub annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// Of the annotations, keeps those that count.
    pub fn new(
        name: impl Into<String>,
        labels: BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let read = PLATFORM_ANNOTATIONS.iter().filter_map(|key| annotations.get_key_value(*key));
        let annotations = read.map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { name: name.into(), labels, annotations }
    }
}

/// Annotations of a namespace by which a platform says how its pods shall be.
pub const PLATFORM_ANNOTATIONS: [&str; 2] = [user::UID_RANGE, user::GROUPS];

/// Why a pod could not be injected although it asked for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is not a pod that Meshwright can read: {0}")]
    NotAPod(#[source] serde_json::Error),
    #[error("the pod has no spec")]
    NoSpec,
    #[error("{field}: {message}")]
    Template { field: String, message: String },
    #[error("{layer} cannot be laid over the pod: {message}")]
    Layer { layer: String, message: String },
    #[error(
        "annotation meshwright.dev/overrides, in which injection keeps the pod's own settings for the proxy's container, cannot be read ({0}): remove it"
    )]
    Overrides(String),
    #[error(
        "template gateway needs a container named istio-proxy or meshwright-proxy with image: auto, which becomes the gateway; for another image set the annotation meshwright.dev/proxy-image"
    )]
    NoGatewayContainer,
    #[error(
        "the pod has no container beside the proxy: for a gateway set the annotation inject.istio.io/templates: gateway, else add the application"
    )]
    OnlyAProxy,
    #[error(transparent)]
    Metrics(#[from] metrics::Rejected),
    #[error("the proxy's containers cannot be written as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    #[error("the patch does not fit the pod: {0}")]
    Patch(#[from] json_patch::PatchError),
    #[error("what the pod asks of its proxy cannot be done: {}", join(.0))]
    Options(Vec<BadOption>),
}

impl From<Vec<BadOption>> for Error {
    fn from(bad: Vec<BadOption>) -> Self {
        Self::Options(bad)
    }
}

fn join(bad: &[BadOption]) -> String {
    bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is to become of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub decision: Decision,
    /// What is to be changed, as JSON.
    pub patch: Option<Vec<u8>>,
    /// For the person who applied it.
    pub warnings: Vec<String>,
}

/// What became of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub decision: Decision,
    /// The pod as it should be; equal to the one given where nothing is to be done.
    pub pod: Value,
    /// For the person who applied it.
    pub warnings: Vec<String>,
}

/// Decides about a pod that the API server has read already, and says how it is injected.
pub fn judge(pod: &Value, namespace: &Namespace, config: &InjectConfig) -> Result<Verdict, Error> {
    let typed = reading::pod(pod).map_err(Error::NotAPod)?;
    let decision = decide(&typed, namespace, config);
    let mut warnings = decide::warnings(&typed, namespace, config);
    let mut patch = None;
    if matches!(decision, Decision::Inject(_)) {
        let injected = patch::injected(pod, &typed, namespace, config)?;
        warnings.extend(injected.warnings);
        patch = injected.patch;
    }
    Ok(Verdict { decision, patch, warnings })
}

/// Decides about a pod that nobody has read yet, and injects it if it asks for it, as the API server
/// does with the webhook's answer.
pub fn inject(pod: &Value, namespace: &Namespace, config: &InjectConfig) -> Result<Outcome, Error> {
    <Pod as serde::Deserialize>::deserialize(pod).map_err(Error::NotAPod)?;
    let Verdict { decision, patch, warnings } = judge(pod, namespace, config)?;
    let mut pod = pod.clone();
    if let Some(patch) = patch {
        let patch: json_patch::Patch = serde_json::from_slice(&patch).map_err(Error::Encode)?;
        json_patch::patch(&mut pod, &patch)?;
    }
    Ok(Outcome { decision, pod, warnings })
}
