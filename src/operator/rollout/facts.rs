//! What a rollout must know of a workload before it touches it, and while it is being renewed.

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::operator::fleet::proxy::Workload;

/// A workload that owns proxies, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub workload: Workload,
    /// Its own labels and those of its pods.
    pub labels: BTreeMap<String, String>,
    /// How many pods it is to have.
    pub wanted: usize,
    /// Why it is not rolled out and available; `None` where it is.
    pub unsettled: Option<String>,
    /// What its controller says of a rollout that cannot go on.
    pub stuck: Option<String>,
    /// How many pods its own strategy takes away at once.
    pub takes: usize,
    /// It makes pods anew only when somebody takes the old ones away.
    pub on_delete: bool,
    /// Why restarting it would do nothing, or not all that is needed.
    pub immovable: Option<String>,
    /// What the operator did to it last.
    pub restarted: Option<Restarted>,
    /// Sorted by name.
    pub pods: Vec<Pod>,
    /// PodDisruptionBudgets that select any of its pods.
    pub budgets: Vec<Budget>,
}

/// A restart by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarted {
    pub at: Timestamp,
    pub image: String,
}

impl Restarted {
    /// Whether the pod is of the time after it. Kubernetes cuts times to whole seconds.
    pub fn made(&self, pod: &Pod) -> bool {
        let cut = self.at.checked_sub(Duration::from_secs(1)).unwrap_or(self.at);
        pod.created >= cut
    }
}

/// A PodDisruptionBudget, as far as pods may go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `NAMESPACE/NAME`.
    pub name: String,
    pub allowed: usize,
}

/// A pod of the workload that is not on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub at: PodRef,
    pub created: Timestamp,
    pub ready: bool,
    /// Since when it is not.
    pub unready_since: Option<Timestamp>,
    pub address: String,
    /// `None`: it has none.
    pub proxy: Option<Container>,
    /// Since when its proxy is asked to be out of service.
    pub out_of_service: Option<Timestamp>,
    pub replaced: Option<Replaced>,
}

/// Names one pod, and not another of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// The proxy's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub list: List,
    pub image: String,
    /// What injection would choose for the pod now.
    pub wanted: String,
    /// Of what runs or ran; empty before that.
    pub id: String,
    pub ready: bool,
    /// Why it does not start, in the kubelet's words.
    pub waiting: Option<String>,
    /// The kubelet asks it whether it is ready, so that it can leave service.
    pub can_leave: bool,
}

/// A list of containers in a pod's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    InitContainers,
    Containers,
}

impl List {
    /// Its field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::InitContainers => "initContainers",
            Self::Containers => "containers",
        }
    }
}

/// What was there before a proxy's image was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub image: String,
    /// The container's id.
    pub container: String,
    pub at: Timestamp,
}

impl Pod {
    /// Whether a new pod would get another proxy than this one has.
    pub fn outdated(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.image != proxy.wanted)
    }

    /// Whether it was touched in place and is not back in service.
    pub fn in_flight(&self) -> bool {
        self.out_of_service.is_some() || self.replaced.is_some()
    }

    /// Why the proxy cannot start, with its image.
    pub fn broken(&self) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        let why = proxy.waiting.as_ref()?;
        Some(format!("{}: the proxy of image {} does not start: {why}", self.at, proxy.image))
    }
}

impl Facts {
    /// Pods whose proxy is to be renewed.
    pub fn outdated(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.outdated())
    }

    /// It was restarted for this image, and all its pods are new, yet some have another: something
    /// else says what they get.
    pub fn keeps_another(&self, image: &str) -> bool {
        let Some(restarted) = self.restarted.as_ref().filter(|r| r.image == image) else {
            return false;
        };
        let mut outdated = self.outdated().peekable();
        self.unsettled.is_none()
            && outdated.peek().is_some()
            && outdated.all(|pod| restarted.made(pod))
    }

    /// Whether all that its pods lack is a proxy that starts: renewing them is the cure.
    pub fn only_proxies_fail(&self) -> bool {
        let missing = self.wanted.saturating_sub(self.pods.iter().filter(|pod| pod.ready).count());
        let failing = self.pods.iter().filter(|pod| !pod.ready && pod.broken().is_some()).count();
        failing > 0 && failing >= missing
    }
}

/// As in the status: `Deployment NAMESPACE/NAME`.
pub fn text(workload: &Workload) -> String {
    format!("{} {}/{}", workload.kind, workload.namespace, workload.name)
}

/// Reads what [`text`] wrote.
pub fn parse(text: &str) -> Option<Workload> {
    let (kind, rest) = text.split_once(' ')?;
    let (namespace, name) = rest.split_once('/')?;
    Some(Workload { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
}
