//! The API server's selectors and the decision say the same: whatever would be injected is selected,
//! by one webhook of that revision, and by none of another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Pod, PodSpec},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    jiff::Timestamp,
};
use meshwright::{
    api::meshwright::{Compatibility, MeshInstallation, MeshInstallationSpec},
    operator::{
        installation::{
            build::webhook::injector,
            validate::{Inputs, inject_config, validate},
        },
        platform::{Platform, WebhookEndpoint},
    },
    webhook::inject::{Decision, InjectConfig, Namespace, NativeSupport, decide},
};
use proptest::prelude::*;

type Labels = BTreeMap<String, String>;

fn platform() -> Platform {
    Platform {
        namespace: "meshwright-system".to_owned(),
        image_registry: "registry.test".to_owned(),
        image_tag: "1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        webhook: WebhookEndpoint::Service,
    }
}

/// What one installation registers, and what it decides by.
type Side = (MutatingWebhookConfiguration, InjectConfig);

/// Installations with these revisions and tags, the older first.
fn sides(names: &[(&str, &[&str])], istio_labels: bool) -> Vec<Side> {
    let installation = |(age, (revision, tags)): (i64, &(&str, &[&str]))| {
        let spec = MeshInstallationSpec {
            revision: (*revision).to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            compatibility: Compatibility { istio_labels },
            ..MeshInstallationSpec::default()
        };
        let mut made = MeshInstallation::new(revision, spec);
        // Who is older has the name that two ask for, whatever they are called.
        made.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
        Arc::new(made)
    };
    let all: Vec<_> = (0..).zip(names).map(installation).collect();
    let side = |installation: &Arc<MeshInstallation>| {
        let config = inject_config(
            installation,
            all.iter().map(AsRef::as_ref),
            &platform(),
            &NativeSupport::default(),
        );
        let inputs = Inputs {
            installations: all.clone(),
            selected: std::collections::BTreeMap::new(),
            webhook_ca: String::new(),
            operator_role: None,
        };
        (injector(&validate(installation, inputs, &platform()).unwrap()), config)
    };
    all.iter().map(side).collect()
}

/// As the API server evaluates it: an empty selector matches everything.
fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    assert!(selector.match_labels.is_none(), "the webhooks use expressions");
    selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("no operator {other}"),
        }
    })
}

/// Names of the webhooks that the API server calls.
fn called(
    configuration: &MutatingWebhookConfiguration,
    namespace: &Namespace,
    pod: &Labels,
) -> Vec<String> {
    let mut on_namespace = namespace.labels.clone();
    on_namespace.insert("kubernetes.io/metadata.name".to_owned(), namespace.name.clone());
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .filter(|webhook| {
            selects(webhook.namespace_selector.as_ref(), &on_namespace)
                && selects(webhook.object_selector.as_ref(), pod)
        })
        .map(|webhook| webhook.name.clone())
        .collect()
}

fn labels(
    keys: &[(&'static str, &'static [&'static str])],
) -> impl Strategy<Value = Labels> + use<> {
    let one = |(key, values): &(&'static str, &'static [&'static str])| {
        let key = (*key).to_owned();
        proptest::option::weighted(0.4, proptest::sample::select(*values))
            .prop_map(move |value| value.map(|value| (key.clone(), value.to_owned())))
    };
    keys.iter()
        .map(one)
        .collect::<Vec<_>>()
        .prop_map(|labels| labels.into_iter().flatten().collect())
}

const REVISIONS: &[&str] = &["default", "v2", "stable", "prod", "nobody", ""];
const INJECTION: &[&str] = &["enabled", "disabled", "true", ""];
const INJECT: &[&str] = &["true", "false", "yes"];

fn namespace() -> impl Strategy<Value = Namespace> {
    const NAMES: &[&str] = &["shop", "kube-system", "local-path-storage", "meshwright-system"];
    let name = prop_oneof![9 => Just("shop"), 1 => proptest::sample::select(NAMES)];
    let labels = labels(&[
        ("meshwright.dev/injection", INJECTION),
        ("meshwright.dev/revision", REVISIONS),
        ("istio-injection", INJECTION),
        ("istio.io/rev", REVISIONS),
    ]);
    (name, labels).prop_map(|(name, labels)| Namespace {
        name: name.to_owned(),
        labels,
        ..Namespace::default()
    })
}

fn pod() -> impl Strategy<Value = Labels> {
    labels(&[
        ("meshwright.dev/inject", INJECT),
        ("meshwright.dev/revision", REVISIONS),
        ("sidecar.istio.io/inject", INJECT),
        ("istio.io/rev", REVISIONS),
        ("app", &["web"]),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn selectors_and_decision_agree(
        namespace in namespace(),
        labels in pod(),
        istio_labels in any::<bool>(),
        default_is_a_tag in any::<bool>(),
    ) {
        let sides = if default_is_a_tag {
            sides(&[("v2", &["stable", "default"]), ("prod", &["default"])], istio_labels)
        } else {
            sides(&[("default", &["stable"]), ("v2", &["prod", "default"])], istio_labels)
        };
        let mut typed = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        typed.metadata.labels = Some(labels.clone());
        let mut injecting = 0;
        for (configuration, config) in &sides {
            let called = called(configuration, &namespace, &labels);
            let decision = decide(&typed, &namespace, config);
            match &decision {
                Decision::Inject(_) => {
                    injecting += 1;
                    prop_assert_eq!(called.len(), 1, "{:?} {:?}", called, decision);
                }
                // Asked of another revision, of none, or exempt: the API server knows it too.
                Decision::Skip(_) => prop_assert!(called.is_empty(), "{:?} {:?}", called, decision),
            }
        }
        prop_assert!(injecting <= 1, "one pod, one revision");
    }
}

/// The property would hold for webhooks that select nothing.
#[test]
fn each_webhook_selects_something() {
    let sides = sides(&[("default", &["stable"])], true);
    let pairs = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    for (namespace, pod, name) in [
        (vec![("meshwright.dev/injection", "enabled")], vec![], "namespace.meshwright"),
        (vec![("meshwright.dev/revision", "stable")], vec![], "revision.namespace.meshwright"),
        (vec![], vec![("meshwright.dev/inject", "true")], "pod.meshwright"),
        (vec![], vec![("meshwright.dev/revision", "stable")], "revision.pod.meshwright"),
        (vec![("istio-injection", "enabled")], vec![], "namespace.istio"),
        (vec![("istio.io/rev", "stable")], vec![], "revision.namespace.istio"),
        (vec![], vec![("sidecar.istio.io/inject", "true")], "pod.istio"),
        (vec![], vec![("istio.io/rev", "default")], "revision.pod.istio"),
    ] {
        let namespace = Namespace {
            name: "shop".to_owned(),
            labels: pairs(&namespace),
            ..Namespace::default()
        };
        let found = called(&sides[0].0, &namespace, &pairs(&pod));
        assert_eq!(found, [format!("{name}.inject.meshwright.dev")]);
    }
}
