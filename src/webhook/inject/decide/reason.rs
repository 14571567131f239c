//! The outcomes of a decision, in words.

use std::fmt;

/// Why a pod is injected, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NamespaceEnabled,
    NamespaceRevision,
    /// By this tag of the revision.
    NamespaceTag(String),
    PodEnabled,
    PodRevision,
    /// By this tag of the revision.
    PodTag(String),
    /// Position in `spec.injection.always`.
    AlwaysSelector(usize),
    /// By this `KEY=VALUE`.
    PodOptedOut(String),
    /// By this `KEY=VALUE`.
    NamespaceOptedOut(String),
    /// This `KEY=VALUE` is neither yes nor no.
    NamespaceUnclear(String),
    NotAsked,
    /// The namespace or the pod asks for this one.
    OtherRevision(String),
    /// Position in `spec.injection.never`.
    NeverSelector(usize),
    PolicyDisabled,
    KubernetesNamespace,
    OwnNamespace,
    HostNetwork,
    Windows,
    /// By this property of the pod.
    VirtualNode(String),
    StaticPod,
    /// It carries the proxy of this one.
    OtherMesh(&'static str),
    /// This revision of ours has injected it.
    AlreadyInjected(String),
}

/// How to say that a pod shall stay as it is.
const OPT_OUT: &str = "or label the pod meshwright.dev/inject=false, so that it asks for no proxy";

impl Reason {
    /// In one word, for metrics and audit annotations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NamespaceEnabled => "NamespaceEnabled",
            Self::NamespaceRevision => "NamespaceRevision",
            Self::NamespaceTag(_) => "NamespaceTag",
            Self::PodEnabled => "PodEnabled",
            Self::PodRevision => "PodRevision",
            Self::PodTag(_) => "PodTag",
            Self::AlwaysSelector(_) => "AlwaysSelector",
            Self::PodOptedOut(_) => "PodOptedOut",
            Self::NamespaceOptedOut(_) => "NamespaceOptedOut",
            Self::NamespaceUnclear(_) => "NamespaceUnclear",
            Self::NotAsked => "NotAsked",
            Self::OtherRevision(_) => "OtherRevision",
            Self::NeverSelector(_) => "NeverSelector",
            Self::PolicyDisabled => "PolicyDisabled",
            Self::KubernetesNamespace => "KubernetesNamespace",
            Self::OwnNamespace => "OwnNamespace",
            Self::HostNetwork => "HostNetwork",
            Self::Windows => "Windows",
            Self::VirtualNode(_) => "VirtualNode",
            Self::StaticPod => "StaticPod",
            Self::OtherMesh(_) => "OtherMesh",
            Self::AlreadyInjected(_) => "AlreadyInjected",
        }
    }

    /// Whether it rests on the namespace's labels, which a cache may hold in an older version.
    pub fn is_about_namespace(&self) -> bool {
        matches!(
            self,
            Self::NamespaceOptedOut(_)
                | Self::NamespaceUnclear(_)
                | Self::NotAsked
                | Self::OtherRevision(_)
        )
    }

    /// Whether somebody asks for a proxy that the pod does not get. What an administrator's selectors
    /// and policy keep out is as it should be.
    pub fn was_asked(&self) -> bool {
        matches!(
            self,
            Self::KubernetesNamespace
                | Self::OwnNamespace
                | Self::HostNetwork
                | Self::Windows
                | Self::VirtualNode(_)
                | Self::StaticPod
                | Self::OtherMesh(_)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceEnabled => f.write_str("the namespace is labelled for injection"),
            Self::NamespaceRevision => f.write_str("the namespace is labelled with this revision"),
            Self::NamespaceTag(tag) => {
                write!(f, "the namespace is labelled with {tag}, a tag of this revision")
            }
            Self::PodEnabled => f.write_str("the pod is labelled for injection"),
            Self::PodRevision => f.write_str("the pod is labelled with this revision"),
            Self::PodTag(tag) => write!(f, "the pod is labelled with {tag}, a tag of this revision"),
            Self::AlwaysSelector(index) => {
                write!(f, "the pod matches spec.injection.always[{index}] of the MeshInstallation")
            }
            Self::PodOptedOut(label) => write!(f, "the pod refuses injection: {label}"),
            Self::NamespaceOptedOut(label) => {
                write!(f, "the namespace refuses injection: {label}")
            }
            Self::NamespaceUnclear(label) => {
                write!(f, "the namespace's label {label} must be enabled or disabled")
            }
            Self::NotAsked => f.write_str(
                "neither the namespace nor the pod asks for injection: label the namespace meshwright.dev/injection=enabled to have its new pods in the mesh",
            ),
            Self::OtherRevision(revision) => write!(f, "revision {revision} is asked for"),
            Self::NeverSelector(index) => write!(
                f,
                "the pod matches spec.injection.never[{index}] of the MeshInstallation: only its own label meshwright.dev/inject=true wins over that"
            ),
            Self::PolicyDisabled => f.write_str(
                "spec.injection.policy of the MeshInstallation is disabled: label the pod meshwright.dev/inject=true",
            ),
            _ => self.obstacle(f),
        }
    }
}

impl Reason {
    fn obstacle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubernetesNamespace => f.write_str(
                "the namespace belongs to the cluster itself, where no pod is injected: run the application in another one",
            ),
            Self::OwnNamespace => f.write_str(
                "the namespace belongs to Meshwright, where no pod is injected: run the application in another one",
            ),
            Self::HostNetwork => write!(
                f,
                "the pod uses the node's network, which has no traffic of its own to redirect: remove spec.hostNetwork, {OPT_OUT}"
            ),
            Self::Windows => {
                write!(f, "the pod runs on Windows, for which there is no proxy: move it to Linux, {OPT_OUT}")
            }
            Self::VirtualNode(by) => write!(
                f,
                "the pod runs on a virtual node ({by}), which has no init containers with network rights: take it off that node, {OPT_OUT}"
            ),
            Self::StaticPod => f.write_str(
                "the pod is the mirror of a static one, which the kubelet runs from a file: make a Deployment or a DaemonSet of it",
            ),
            Self::OtherMesh(mesh) => write!(
                f,
                "the pod carries the proxy of {mesh}, and two would redirect the same traffic: turn the injection of {mesh} off for it, {OPT_OUT}"
            ),
            Self::AlreadyInjected(revision) => {
                write!(
                    f,
                    "revision {revision} has injected it already: it keeps that proxy until its template has none"
                )
            }
            // The others are written above.
            _ => Ok(()),
        }
    }
}
