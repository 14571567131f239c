use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::meshwright::{Injection, InjectionPolicy},
    webhook::inject::ProxySettings,
};

type Set = &'static [(&'static str, &'static str)];

fn map(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn config(revision: &str) -> InjectConfig {
    InjectConfig {
        revision: revision.to_owned(),
        tags: Vec::new(),
        system_namespace: "meshwright-system".to_owned(),
        istio_labels: true,
        injection: Injection::default(),
        proxy: ProxySettings::default(),
    }
}

fn namespace(labels: &[(&str, &str)]) -> Namespace {
    Namespace { name: "shop".to_owned(), labels: map(labels), ..Namespace::default() }
}

fn pod(labels: &[(&str, &str)]) -> Pod {
    let mut pod =
        Pod { spec: Some(k8s_openapi::api::core::v1::PodSpec::default()), ..Pod::default() };
    pod.metadata.labels = Some(map(labels));
    pod
}

/// The reason's name, behind a minus where the pod is not injected.
fn verdict(namespace: &Namespace, pod: &Pod, config: &InjectConfig) -> String {
    match decide(pod, namespace, config) {
        Decision::Inject(reason) => reason.name().to_owned(),
        Decision::Skip(reason) => format!("-{}", reason.name()),
    }
}

fn by_labels(
    on_namespace: &[(&str, &str)],
    on_pod: &[(&str, &str)],
    config: &InjectConfig,
) -> String {
    verdict(&namespace(on_namespace), &pod(on_pod), config)
}

const ON: (&str, &str) = ("meshwright.dev/injection", "enabled");
const ENABLED: Set = &[ON];

#[test]
fn labels_of_namespaces() {
    let cases: &[(Set, Set, &str)] = &[
        (&[], &[], "-NotAsked"),
        (ENABLED, &[], "NamespaceEnabled"),
        (&[("meshwright.dev/injection", "on")], &[], "-NamespaceUnclear"),
        (&[("istio-injection", "enabled")], &[], "NamespaceEnabled"),
        (&[("istio-injection", "true")], &[], "-NamespaceUnclear"),
        (&[("istio.io/rev", "default")], &[], "NamespaceRevision"),
        (&[("istio.io/rev", "canary")], &[], "-OtherRevision"),
        // Where a namespace has both of Istio's, istio-injection counts.
        (&[("istio-injection", "enabled"), ("istio.io/rev", "canary")], &[], "NamespaceEnabled"),
        (
            &[("istio-injection", "disabled"), ("istio.io/rev", "default")],
            &[],
            "-NamespaceOptedOut",
        ),
        // With ours, the revision says which, and disabled wins.
        (
            &[("meshwright.dev/injection", "enabled"), ("meshwright.dev/revision", "canary")],
            &[],
            "-OtherRevision",
        ),
        (
            &[("meshwright.dev/injection", "disabled"), ("meshwright.dev/revision", "default")],
            &[],
            "-NamespaceOptedOut",
        ),
        // Ours win over Istio's.
        (&[ON, ("istio-injection", "disabled")], &[], "NamespaceEnabled"),
        (
            &[("meshwright.dev/injection", "disabled"), ("istio-injection", "enabled")],
            &[],
            "-NamespaceOptedOut",
        ),
    ];
    for (namespace, pod, expected) in cases {
        let found = by_labels(namespace, pod, &config("default"));
        assert_eq!(found, *expected, "{namespace:?} {pod:?}");
    }
    assert_eq!(
        by_labels(&[("istio.io/rev", "canary")], &[], &config("canary")),
        "NamespaceRevision"
    );
    let ours_only = InjectConfig { istio_labels: false, ..config("default") };
    assert_eq!(by_labels(&[("istio-injection", "enabled")], &[], &ours_only), "-NotAsked");
    assert_eq!(
        by_labels(ENABLED, &[("sidecar.istio.io/inject", "false")], &ours_only),
        "NamespaceEnabled"
    );
}

#[test]
fn labels_of_pods() {
    let cases: &[(Set, Set, &str)] = &[
        // A namespace wins over its pods, but for a pod's no.
        (
            &[("meshwright.dev/injection", "disabled")],
            &[("meshwright.dev/inject", "true")],
            "-NamespaceOptedOut",
        ),
        (ENABLED, &[("istio.io/rev", "canary")], "NamespaceEnabled"),
        (ENABLED, &[("sidecar.istio.io/inject", "false")], "-PodOptedOut"),
        (ENABLED, &[("meshwright.dev/inject", "true")], "PodEnabled"),
        // Where the namespace says nothing, pods speak for themselves.
        (&[], &[("meshwright.dev/inject", "true")], "PodEnabled"),
        (&[], &[("sidecar.istio.io/inject", "true")], "PodEnabled"),
        (&[], &[("istio.io/rev", "canary")], "-OtherRevision"),
        (&[], &[("istio.io/rev", "default")], "PodRevision"),
        (&[], &[("meshwright.dev/inject", "yes")], "-NotAsked"),
        (
            &[],
            &[("meshwright.dev/inject", "true"), ("sidecar.istio.io/inject", "false")],
            "-PodOptedOut",
        ),
    ];
    for (namespace, pod, expected) in cases {
        let found = by_labels(namespace, pod, &config("default"));
        assert_eq!(found, *expected, "{namespace:?} {pod:?}");
    }
}

#[test]
fn a_tag_is_a_name_of_the_revision() {
    let tagged = |tags: &[&str]| InjectConfig {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..config("v2")
    };
    let stable = tagged(&["stable"]);
    assert_eq!(by_labels(&[("meshwright.dev/revision", "stable")], &[], &stable), "NamespaceTag");
    assert_eq!(by_labels(&[("istio.io/rev", "v2")], &[], &stable), "NamespaceRevision");
    assert_eq!(by_labels(&[], &[("istio.io/rev", "stable")], &stable), "PodTag");
    assert_eq!(by_labels(&[("istio.io/rev", "old")], &[], &stable), "-OtherRevision");
    assert_eq!(by_labels(ENABLED, &[], &stable), "-OtherRevision");
    let default = tagged(&["default"]);
    assert_eq!(by_labels(ENABLED, &[], &default), "NamespaceEnabled");
    assert_eq!(by_labels(&[], &[("sidecar.istio.io/inject", "true")], &default), "PodEnabled");
    assert_eq!(by_labels(&[("istio.io/rev", "default")], &[], &default), "NamespaceTag");
}

fn app(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(map(&[("app", name)])), match_expressions: None }
}

#[test]
fn the_pods_own_switch_then_never_then_always_then_the_policy() {
    let with = |policy| InjectConfig {
        injection: Injection {
            policy,
            never: vec![LabelSelector::default(), app("batch")],
            always: vec![app("web"), app("batch")],
            ..Injection::default()
        },
        ..config("default")
    };
    let (on, off) = (with(InjectionPolicy::Enabled), with(InjectionPolicy::Disabled));
    for (labels, enabled, disabled) in [
        (map(&[]), "NamespaceEnabled", "-PolicyDisabled"),
        (map(&[("app", "web")]), "AlwaysSelector", "AlwaysSelector"),
        (map(&[("app", "batch")]), "-NeverSelector", "-NeverSelector"),
        (map(&[("app", "batch"), ("meshwright.dev/inject", "true")]), "PodEnabled", "PodEnabled"),
        (
            map(&[("app", "web"), ("meshwright.dev/inject", "false")]),
            "-PodOptedOut",
            "-PodOptedOut",
        ),
        (map(&[("meshwright.dev/inject", "maybe")]), "NamespaceEnabled", "-PolicyDisabled"),
    ] {
        let mut typed = pod(&[]);
        typed.metadata.labels = Some(labels);
        assert_eq!(verdict(&namespace(ENABLED), &typed, &on), enabled, "{typed:?}");
        assert_eq!(verdict(&namespace(ENABLED), &typed, &off), disabled, "{typed:?}");
        let elsewhere = verdict(&namespace(&[]), &typed, &on);
        let asks = elsewhere.starts_with('P') || elsewhere == "-PodOptedOut";
        assert!(
            asks || elsewhere == "-NotAsked",
            "selectors do not reach namespaces that do not ask"
        );
    }
    // As Istio's older files say it.
    let mut annotated = pod(&[]);
    annotated.metadata.annotations = Some(map(&[("sidecar.istio.io/inject", "true")]));
    assert_eq!(verdict(&namespace(ENABLED), &annotated, &off), "PodEnabled");
    annotated.metadata.labels = Some(map(&[("sidecar.istio.io/inject", "false")]));
    assert_eq!(verdict(&namespace(ENABLED), &annotated, &off), "-PodOptedOut");
}

#[test]
fn selectors_match_as_in_kubernetes() {
    let expression = |operator: &str, values: &[&str]| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }]),
        match_labels: None,
    };
    let matches = |selector: &LabelSelector, labels: &[(&str, &str)]| {
        super::selector::matches(selector, &map(labels))
    };
    let (front, back, none) = ([("tier", "front")], [("tier", "back")], []);
    for (selector, on_front, on_back, on_none) in [
        (expression("In", &["front", "x"]), true, false, false),
        (expression("NotIn", &["front"]), false, true, true),
        (expression("Exists", &[]), true, true, false),
        (expression("DoesNotExist", &[]), false, false, true),
        (expression("Within", &["front"]), false, false, false),
        (expression("NotIn", &[]), false, false, false),
        (LabelSelector::default(), false, false, false),
    ] {
        assert_eq!(matches(&selector, &front), on_front, "{selector:?}");
        assert_eq!(matches(&selector, &back), on_back, "{selector:?}");
        assert_eq!(matches(&selector, &none), on_none, "{selector:?}");
    }
    let both =
        LabelSelector { match_labels: Some(map(&[("app", "web")])), ..expression("Exists", &[]) };
    assert!(matches(&both, &[("app", "web"), ("tier", "back")]));
    assert!(!matches(&both, &[("app", "web")]) && !matches(&both, &back));
}

fn of_json(metadata: &Value, spec: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

#[test]
fn obstacles() {
    let spec = |mut spec: Value| {
        spec["containers"] = json!([{"name": "app"}]);
        of_json(&json!({}), &spec)
    };
    let container = |container: Value| of_json(&json!({}), &json!({"containers": [container]}));
    let annotated = |key: &str, value: &str| {
        of_json(&json!({"annotations": {key: value}}), &json!({"containers": []}))
    };
    let affinity = |key: &str, values: &[&str]| {
        spec(json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": "In", "values": values}]},
            ]},
        }}}))
    };
    let tolerations = json!([{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]);
    let cases = vec![
        (spec(json!({})), "NamespaceEnabled"),
        (spec(json!({"hostNetwork": true})), "-HostNetwork"),
        (spec(json!({"os": {"name": "windows"}})), "-Windows"),
        (spec(json!({"nodeSelector": {"kubernetes.io/os": "windows"}})), "-Windows"),
        (affinity("kubernetes.io/os", &["windows"]), "-Windows"),
        (affinity("kubernetes.io/os", &["windows", "linux"]), "NamespaceEnabled"),
        (spec(json!({"nodeSelector": {"kubernetes.io/os": "linux"}})), "NamespaceEnabled"),
        (
            spec(json!({"nodeSelector": {"type": "virtual-kubelet"}, "tolerations": tolerations})),
            "-VirtualNode",
        ),
        (affinity("type", &["virtual-kubelet"]), "-VirtualNode"),
        (spec(json!({"nodeName": "virtual-node-aci-linux"})), "-VirtualNode"),
        // It may go there, but also elsewhere.
        (spec(json!({"tolerations": tolerations})), "NamespaceEnabled"),
        (annotated("kubernetes.io/config.mirror", "x"), "-StaticPod"),
        (annotated("kubernetes.io/config.source", "file"), "-StaticPod"),
        (annotated("kubernetes.io/config.source", "api"), "NamespaceEnabled"),
        (annotated("sidecar.istio.io/status", "{}"), "-OtherMesh"),
        (annotated("linkerd.io/proxy-version", "stable-2.14"), "-OtherMesh"),
        (annotated("kuma.io/sidecar-injected", "true"), "-OtherMesh"),
        (annotated("kuma.io/sidecar-injected", "false"), "NamespaceEnabled"),
        (container(json!({"name": "linkerd-proxy"})), "-OtherMesh"),
        (container(json!({"name": "istio-proxy", "args": ["proxy", "sidecar"]})), "-OtherMesh"),
        // The user's own settings for our proxy.
        (container(json!({"name": "istio-proxy", "image": "auto"})), "NamespaceEnabled"),
        (annotated("meshwright.dev/status", r#"{"revision":"old"}"#), "-AlreadyInjected"),
        (annotated("meshwright.dev/status", r#"{"revision":"default"}"#), "NamespaceEnabled"),
    ];
    for (pod, expected) in &cases {
        assert_eq!(verdict(&namespace(ENABLED), pod, &config("default")), *expected, "{pod:?}");
        // Nobody has to be told about a pod for which nobody asks.
        assert_eq!(verdict(&namespace(&[]), pod, &config("default")), "-NotAsked");
    }
    for (name, expected) in [
        ("kube-system", "-KubernetesNamespace"),
        ("local-path-storage", "-KubernetesNamespace"),
        ("meshwright-system", "-OwnNamespace"),
    ] {
        let namespace = Namespace { name: name.to_owned(), ..namespace(ENABLED) };
        assert_eq!(verdict(&namespace, &pod(&[]), &config("default")), expected);
    }
}

#[test]
fn warns_of_what_does_not_count() {
    let warned = |on_namespace: Set, on_pod: Set| {
        warnings(&pod(on_pod), &namespace(on_namespace), &config("default"))
    };
    let none: [String; 0] = [];
    assert_eq!(warned(ENABLED, &[]), none);
    // A plain yes goes with any revision.
    assert_eq!(warned(&[ON, ("meshwright.dev/revision", "v2")], &[]), none);
    assert_eq!(warned(&[("istio.io/rev", "v2")], &[("sidecar.istio.io/inject", "true")]), none);
    assert_eq!(
        warned(&[("istio-injection", "enabled"), ("istio.io/rev", "v2")], &[]),
        [
            "labels disagree: istio-injection=enabled of namespace shop counts, istio.io/rev=v2 of namespace shop does not"
        ]
    );
    assert_eq!(
        warned(ENABLED, &[("istio.io/rev", "v2")]),
        [
            "labels disagree: meshwright.dev/injection=enabled of namespace shop counts, istio.io/rev=v2 of the pod does not"
        ]
    );
    assert_eq!(
        warned(&[], &[("meshwright.dev/inject", "yes")]),
        ["label meshwright.dev/inject must be \"true\" or \"false\"; \"yes\" is ignored"]
    );
    assert_eq!(
        warned(&[], &[("meshwright.dev/inject", "true"), ("sidecar.istio.io/inject", "false")]),
        [
            "labels disagree: sidecar.istio.io/inject=false counts, meshwright.dev/inject=true does not"
        ]
    );
}

#[test]
fn warns_of_selectors_that_never_match() {
    let mut config = config("default");
    config.injection.never = vec![
        app("a"),
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: "Equals".to_owned(),
                values: Some(vec!["back".to_owned()]),
            }]),
            match_labels: None,
        },
    ];
    assert_eq!(
        warnings(&pod(&[]), &namespace(ENABLED), &config),
        [
            "spec.injection.never[1].matchExpressions[0].operator of the MeshInstallation: \"Equals\" is not an operator: use In, NotIn, Exists or DoesNotExist; the selector matches no pod"
        ]
    );
}
