//! A running proxy as the operator knows it.

use k8s_openapi::jiff::Timestamp;

/// A pod that carries a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    /// Revision that injected it.
    pub revision: String,
    /// Who would make it anew. `None`: a pod without an owner that the operator could restart.
    pub workload: Option<Workload>,
    pub kind: ProxyKind,
    /// Image of the proxy's container in the pod's spec.
    pub image: String,
    pub ready: bool,
    /// Whether a control plane has its stream, and what it makes of its configuration.
    pub configuration: Configuration,
    /// When its certificate ends; `None` while no control plane says it.
    pub certificate_ends: Option<Timestamp>,
}

/// What owns a pod and would make it anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `ReplicaSet`, `Job`, …
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// How the proxy runs in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// An init container that restarts always: the kubelet starts it first and ends it last.
    NativeSidecar,
    /// One container among the application's.
    ClassicSidecar,
    /// The pod is the proxy.
    Gateway,
}

/// What the control planes say of a proxy's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// No control plane could be asked.
    Unknown,
    /// No control plane has its stream.
    Disconnected,
    /// It accepted all that was sent.
    Current,
    /// Something was sent that it has not answered yet.
    Pending,
    /// It refused something: its first message.
    Rejected(String),
}
