//! Whether a pod gets a proxy, and why.
//!
//! The webhook configuration's selectors let through a little more than what is injected; this is
//! what decides. Our labels win over Istio's on a namespace; a pod's "false" of either brand wins.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{InjectConfig, Namespace, container::PROXY_CONTAINER};
use crate::api::meshwright::labels;

/// Namespaces of Kubernetes itself, where nothing may stand in the way.
pub const KUBERNETES_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The proxy's user, whose traffic is not captured.
pub const PROXY_UID: i64 = 1337;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Inject(Reason),
    Skip(Reason),
}

/// Why a pod is injected, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NamespaceEnabled,
    NamespaceRevision,
    PodEnabled,
    PodRevision,
    HostNetwork,
    Windows,
    KubernetesNamespace,
    OwnNamespace,
    PodOptedOut,
    NamespaceOptedOut,
    NotAsked,
    /// The namespace or the pod asks for this one.
    OtherRevision(String),
    /// This revision of ours has injected it.
    AlreadyInjected(String),
    OtherMesh,
}

impl Reason {
    /// In one word, for metrics and audit annotations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NamespaceEnabled => "NamespaceEnabled",
            Self::NamespaceRevision => "NamespaceRevision",
            Self::PodEnabled => "PodEnabled",
            Self::PodRevision => "PodRevision",
            Self::HostNetwork => "HostNetwork",
            Self::Windows => "Windows",
            Self::KubernetesNamespace => "KubernetesNamespace",
            Self::OwnNamespace => "OwnNamespace",
            Self::PodOptedOut => "PodOptedOut",
            Self::NamespaceOptedOut => "NamespaceOptedOut",
            Self::NotAsked => "NotAsked",
            Self::OtherRevision(_) => "OtherRevision",
            Self::AlreadyInjected(_) => "AlreadyInjected",
            Self::OtherMesh => "OtherMesh",
        }
    }

    /// Whether it rests on the namespace's labels, which a cache may hold in an older version.
    pub fn is_about_namespace(&self) -> bool {
        matches!(self, Self::NamespaceOptedOut | Self::NotAsked | Self::OtherRevision(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceEnabled => f.write_str("the namespace is labelled for injection"),
            Self::NamespaceRevision => f.write_str("the namespace is labelled with this revision"),
            Self::PodEnabled => f.write_str("the pod is labelled for injection"),
            Self::PodRevision => f.write_str("the pod is labelled with this revision"),
            Self::HostNetwork => f.write_str("the pod uses the node's network"),
            Self::Windows => f.write_str("the pod runs on Windows"),
            Self::KubernetesNamespace => f.write_str("the namespace belongs to Kubernetes"),
            Self::OwnNamespace => f.write_str("the namespace belongs to Meshwright"),
            Self::PodOptedOut => f.write_str("the pod is labelled not to be injected"),
            Self::NamespaceOptedOut => f.write_str("the namespace is labelled not to be injected"),
            Self::NotAsked => f.write_str("neither the namespace nor the pod asks for injection"),
            Self::OtherRevision(revision) => write!(f, "revision {revision} is asked for"),
            Self::AlreadyInjected(revision) => write!(f, "revision {revision} has injected it"),
            Self::OtherMesh => f.write_str("the pod carries another mesh's proxy"),
        }
    }
}

/// Whether the pod is to be injected by the revision of `config`.
pub fn decide(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Decision {
    if let Some(reason) = exempt(pod, namespace, config) {
        return Decision::Skip(reason);
    }
    match asked(pod, namespace, config) {
        Ok((revision, reason)) if revision == config.revision => Decision::Inject(reason),
        Ok((revision, _)) => Decision::Skip(Reason::OtherRevision(revision)),
        Err(reason) => Decision::Skip(reason),
    }
}

/// What is wrong with how the pod asks.
pub fn warnings(pod: &Pod, config: &InjectConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for key in switches(config) {
        if let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(*key))
            && value != "true"
            && value != "false"
        {
            warnings
                .push(format!("label {key} must be \"true\" or \"false\"; {value:?} is ignored"));
        }
    }
    let runs_as_proxy = |container: &&Container| {
        container.name != PROXY_CONTAINER
            && container.security_context.as_ref().and_then(|c| c.run_as_user) == Some(PROXY_UID)
    };
    for container in pod.spec.iter().flat_map(|spec| spec.containers.iter().filter(runs_as_proxy)) {
        warnings.push(format!(
            "container {} runs as user {PROXY_UID}, the proxy's: its traffic does not go through the mesh",
            container.name
        ));
    }
    warnings
}

/// Why the pod is left alone whatever its labels say.
fn exempt(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Option<Reason> {
    if KUBERNETES_NAMESPACES.contains(&namespace.name.as_str()) {
        return Some(Reason::KubernetesNamespace);
    }
    if namespace.name == config.system_namespace {
        return Some(Reason::OwnNamespace);
    }
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        return Some(Reason::HostNetwork);
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Some(Reason::Windows);
    }
    let annotations = pod.metadata.annotations.as_ref();
    if let Some(status) = annotations.and_then(|a| a.get(labels::STATUS)) {
        let revision = injected_revision(status);
        if revision != config.revision {
            return Some(Reason::AlreadyInjected(revision));
        }
    }
    let foreign = annotations.is_some_and(|a| {
        a.contains_key("sidecar.istio.io/status") || a.contains_key("linkerd.io/proxy-version")
    });
    (foreign || has_foreign_proxy(spec)).then_some(Reason::OtherMesh)
}

fn has_foreign_proxy(spec: &PodSpec) -> bool {
    let init = spec.init_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(init)
        .any(|container| container.name == "linkerd-proxy" || is_istio_proxy(container))
}

/// A container of this name that does not start Istio's agent is the user's settings for ours.
fn is_istio_proxy(container: &Container) -> bool {
    let starts_agent = container.args.as_ref().and_then(|args| args.first());
    container.name == "istio-proxy"
        && starts_agent.is_some_and(|first| first == "proxy")
        && container.image.as_deref() != Some("auto")
}

fn injected_revision(status: &str) -> String {
    serde_json::from_str::<serde_json::Value>(status)
        .ok()
        .and_then(|status| status.get("revision")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Keys of a pod's switch, in the order in which they count.
fn switches(config: &InjectConfig) -> &'static [&'static str] {
    if config.istio_labels { &[labels::INJECT, labels::ISTIO_INJECT] } else { &[labels::INJECT] }
}

/// Which revision is asked for and by whom, or why none is.
fn asked(
    pod: &Pod,
    namespace: &Namespace,
    config: &InjectConfig,
) -> Result<(String, Reason), Reason> {
    let empty = BTreeMap::new();
    let on_pod = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&empty);
    // Older Istio files say it by annotation. Only "false" can work there: the API server selects
    // pods by label.
    let says_no = |key: &&str| {
        on_pod.get(*key).or_else(|| annotations.get(*key)).is_some_and(|value| value == "false")
    };
    if switches(config).iter().any(says_no) {
        return Err(Reason::PodOptedOut);
    }
    if let Some(policy) = namespace_policy(namespace, config) {
        return policy;
    }
    pod_policy(on_pod, config).ok_or(Reason::NotAsked)
}

fn namespace_policy(
    namespace: &Namespace,
    config: &InjectConfig,
) -> Option<Result<(String, Reason), Reason>> {
    let enabled = || (labels::DEFAULT_REVISION.to_owned(), Reason::NamespaceEnabled);
    let get = |key: &str| namespace.labels.get(key).map(String::as_str);
    match (get(labels::INJECTION), get(labels::REVISION)) {
        (Some("disabled"), _) => return Some(Err(Reason::NamespaceOptedOut)),
        (_, Some(revision)) => return Some(Ok((revision.to_owned(), Reason::NamespaceRevision))),
        (Some("enabled"), None) => return Some(Ok(enabled())),
        (_, None) => {}
    }
    if !config.istio_labels {
        return None;
    }
    match (get(labels::ISTIO_INJECTION), get(labels::ISTIO_REVISION)) {
        // Istio's rule: where a namespace has both, istio-injection counts.
        (Some("enabled"), _) => Some(Ok(enabled())),
        (Some(_), _) => Some(Err(Reason::NamespaceOptedOut)),
        (None, Some(revision)) => Some(Ok((revision.to_owned(), Reason::NamespaceRevision))),
        (None, None) => None,
    }
}

fn pod_policy(
    on_pod: &BTreeMap<String, String>,
    config: &InjectConfig,
) -> Option<(String, Reason)> {
    let mut brands = vec![(labels::REVISION, labels::INJECT)];
    if config.istio_labels {
        brands.push((labels::ISTIO_REVISION, labels::ISTIO_INJECT));
    }
    brands.into_iter().find_map(|(revision, inject)| {
        if let Some(revision) = on_pod.get(revision) {
            return Some((revision.clone(), Reason::PodRevision));
        }
        (on_pod.get(inject)? == "true")
            .then(|| (labels::DEFAULT_REVISION.to_owned(), Reason::PodEnabled))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::inject::ProxySettings;

    type Pairs = &'static [(&'static str, &'static str)];

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn config(revision: &str, istio_labels: bool) -> InjectConfig {
        InjectConfig {
            revision: revision.to_owned(),
            system_namespace: "meshwright-system".to_owned(),
            tags: Vec::new(),
            istio_labels,
            injection: crate::api::meshwright::Injection::default(),
            proxy: ProxySettings::default(),
        }
    }

    fn run(
        namespace: &[(&str, &str)],
        pod: &[(&str, &str)],
        config: &InjectConfig,
    ) -> &'static str {
        let namespace =
            Namespace { name: "shop".to_owned(), labels: map(namespace), ..Namespace::default() };
        let mut typed = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        typed.metadata.labels = Some(map(pod));
        match decide(&typed, &namespace, config) {
            Decision::Inject(reason) => reason.name(),
            Decision::Skip(Reason::OtherRevision(_)) => "skip OtherRevision",
            Decision::Skip(Reason::PodOptedOut) => "skip PodOptedOut",
            Decision::Skip(Reason::NamespaceOptedOut) => "skip NamespaceOptedOut",
            Decision::Skip(_) => "skip",
        }
    }

    #[test]
    fn labels_of_both_brands() {
        let default = config("default", true);
        let cases: &[(Pairs, Pairs, &str)] = &[
            (&[], &[], "skip"),
            (&[("meshwright.dev/injection", "enabled")], &[], "NamespaceEnabled"),
            (&[("istio-injection", "enabled")], &[], "NamespaceEnabled"),
            (&[("istio.io/rev", "default")], &[], "NamespaceRevision"),
            (&[("istio.io/rev", "canary")], &[], "skip OtherRevision"),
            (
                &[("istio-injection", "enabled"), ("istio.io/rev", "canary")],
                &[],
                "NamespaceEnabled",
            ),
            (
                &[("meshwright.dev/injection", "enabled"), ("meshwright.dev/revision", "canary")],
                &[],
                "skip OtherRevision",
            ),
            (
                &[("meshwright.dev/injection", "enabled"), ("istio-injection", "disabled")],
                &[],
                "NamespaceEnabled",
            ),
            (
                &[("meshwright.dev/injection", "disabled")],
                &[("meshwright.dev/inject", "true")],
                "skip NamespaceOptedOut",
            ),
            (
                &[("meshwright.dev/injection", "enabled")],
                &[("sidecar.istio.io/inject", "false")],
                "skip PodOptedOut",
            ),
            (&[], &[("meshwright.dev/inject", "true")], "PodEnabled"),
            (&[], &[("sidecar.istio.io/inject", "true")], "PodEnabled"),
            (&[], &[("istio.io/rev", "canary")], "skip OtherRevision"),
            (
                &[("istio-injection", "disabled")],
                &[("sidecar.istio.io/inject", "true")],
                "skip NamespaceOptedOut",
            ),
        ];
        for (namespace, pod, expected) in cases {
            assert_eq!(run(namespace, pod, &default), *expected, "{namespace:?} {pod:?}");
        }
        assert_eq!(
            run(&[("istio.io/rev", "canary")], &[], &config("canary", true)),
            "NamespaceRevision"
        );
        assert_eq!(run(&[("istio-injection", "enabled")], &[], &config("default", false)), "skip");
    }

    #[test]
    fn exempt_pods() {
        let enabled = map(&[("meshwright.dev/injection", "enabled")]);
        let pod = |edit: fn(&mut Pod)| {
            let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
            edit(&mut pod);
            pod
        };
        let at = |name: &str, pod: &Pod| {
            let namespace = Namespace {
                name: name.to_owned(),
                labels: enabled.clone(),
                ..Namespace::default()
            };
            decide(pod, &namespace, &config("default", true))
        };
        let plain = pod(|_| {});
        assert_eq!(at("kube-system", &plain), Decision::Skip(Reason::KubernetesNamespace));
        assert_eq!(at("meshwright-system", &plain), Decision::Skip(Reason::OwnNamespace));
        let host = pod(|pod| pod.spec.as_mut().unwrap().host_network = Some(true));
        assert_eq!(at("shop", &host), Decision::Skip(Reason::HostNetwork));
        let other = pod(|pod| {
            let status = ("meshwright.dev/status".to_owned(), r#"{"revision":"old"}"#.to_owned());
            pod.metadata.annotations = Some([status].into());
        });
        assert_eq!(at("shop", &other), Decision::Skip(Reason::AlreadyInjected("old".to_owned())));
        let istio = pod(|pod| {
            let proxy = Container {
                name: "istio-proxy".to_owned(),
                args: Some(vec!["proxy".to_owned(), "sidecar".to_owned()]),
                ..Container::default()
            };
            pod.spec.as_mut().unwrap().containers.push(proxy);
        });
        assert_eq!(at("shop", &istio), Decision::Skip(Reason::OtherMesh));
    }
}
