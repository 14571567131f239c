//! Webhook configurations: which objects the API server asks us about.
//!
//! The selectors say the same as [`crate::webhook::inject::decide`], which has the last word. Only
//! namespaces and pods that ask for injection are selected, so failing closed touches no others.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
        ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, OwnerReference},
};
use kube::api::ObjectMeta;

use super::{Validated, metadata};
use crate::{
    api::meshwright::labels::{
        DEFAULT_REVISION, INJECT, INJECTION, ISTIO_INJECT, ISTIO_INJECTION, ISTIO_REVISION,
        MANAGED_BY, MANAGER, REVISION,
    },
    operator::platform::{OPERATOR, WebhookEndpoint},
    webhook::inject::decide::KUBERNETES_NAMESPACES,
};

/// Name of the configuration of the validation webhook, one for all installations.
pub const VALIDATOR: &str = "meshwright-validator";
const TIMEOUT_SECONDS: i32 = 10;

type Requirements = Vec<LabelSelectorRequirement>;

/// The labels of one brand.
struct Brand {
    name: &'static str,
    injection: &'static str,
    revision: &'static str,
    inject: &'static str,
}

const OURS: Brand =
    Brand { name: "meshwright", injection: INJECTION, revision: REVISION, inject: INJECT };
const ISTIO: Brand = Brand {
    name: "istio",
    injection: ISTIO_INJECTION,
    revision: ISTIO_REVISION,
    inject: ISTIO_INJECT,
};

/// The injection webhook of a revision.
pub fn injector(valid: &Validated) -> MutatingWebhookConfiguration {
    let name = format!("meshwright-injector-{}", valid.revision);
    let mut webhooks = brand_webhooks(valid, &OURS, &[]);
    if valid.istio_labels {
        webhooks.extend(brand_webhooks(valid, &ISTIO, &[&OURS]));
    }
    MutatingWebhookConfiguration {
        metadata: metadata(valid, &name, None, &valid.webhook.owner),
        webhooks: Some(webhooks),
    }
}

/// The selections of one brand; it counts where none of `stronger` says anything.
fn brand_webhooks(valid: &Validated, brand: &Brand, stronger: &[&Brand]) -> Vec<MutatingWebhook> {
    let revision = valid.revision.as_str();
    let silent = |brands: &[&Brand]| -> Requirements {
        brands.iter().flat_map(|b| [absent(b.injection), absent(b.revision)]).collect()
    };
    // Ours wins where both are on a namespace; with Istio's labels, istio-injection does.
    let by_revision = if brand.injection == ISTIO_INJECTION {
        vec![is(brand.revision, revision), absent(brand.injection)]
    } else {
        vec![is(brand.revision, revision), is_not(brand.injection, "disabled")]
    };
    let neither: Requirements = [silent(stronger), silent(&[brand])].concat();
    let mut selections = vec![
        ("revision.namespace", [silent(stronger), by_revision].concat(), vec![]),
        ("revision.pod", neither.clone(), vec![is(brand.revision, revision)]),
    ];
    if revision == DEFAULT_REVISION {
        let mut enabled = [silent(stronger), vec![is(brand.injection, "enabled")]].concat();
        if brand.injection != ISTIO_INJECTION {
            enabled.push(absent(brand.revision));
        }
        let asks = vec![is(brand.inject, "true"), absent(brand.revision)];
        selections.push(("namespace", enabled, vec![]));
        selections.push(("pod", neither, asks));
    }
    selections
        .into_iter()
        .map(|(what, namespaces, pods)| {
            selection(
                valid,
                &format!("{what}.{}.inject.meshwright.dev", brand.name),
                namespaces,
                pods,
            )
        })
        .collect()
}

fn selection(
    valid: &Validated,
    name: &str,
    mut namespaces: Requirements,
    mut pods: Requirements,
) -> MutatingWebhook {
    let mut exempt: Vec<_> = KUBERNETES_NAMESPACES.map(str::to_owned).to_vec();
    exempt.push(valid.namespace.clone());
    namespaces.push(requirement("kubernetes.io/metadata.name", "NotIn", Some(exempt)));
    pods.push(is_not(INJECT, "false"));
    if valid.istio_labels {
        pods.push(is_not(ISTIO_INJECT, "false"));
    }
    MutatingWebhook {
        name: name.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client_config(
            &valid.webhook.endpoint,
            &valid.namespace,
            &valid.webhook.ca,
            &format!("/inject/{}", valid.revision),
        ),
        failure_policy: Some("Fail".to_owned()),
        // Another webhook may add a container whose probes must go through the agent too.
        reinvocation_policy: Some("IfNeeded".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        namespace_selector: Some(selector(namespaces)),
        object_selector: Some(selector(pods)),
        rules: Some(vec![rule(&[""], &["v1"], &["pods"], &["CREATE"], "Namespaced")]),
        ..MutatingWebhook::default()
    }
}

/// The validation webhook. It fails open: what it misses shows in the object's status, and an outage
/// of the operator must not keep anybody from changing the configuration.
pub fn validator(
    endpoint: &WebhookEndpoint,
    namespace: &str,
    ca: &str,
    owner: Option<OwnerReference>,
) -> ValidatingWebhookConfiguration {
    let changes = &["CREATE", "UPDATE"];
    let webhook = |name: &str, rules: Vec<RuleWithOperations>| ValidatingWebhook {
        name: name.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client_config(endpoint, namespace, ca, "/validate"),
        failure_policy: Some("Ignore".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        rules: Some(rules),
        ..ValidatingWebhook::default()
    };
    let networking = &["destinationrules", "gateways", "serviceentries", "virtualservices"];
    ValidatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(VALIDATOR.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        webhooks: Some(vec![
            webhook(
                "installation.validate.meshwright.dev",
                vec![rule(&["meshwright.dev"], &["*"], &["meshinstallations"], changes, "Cluster")],
            ),
            webhook(
                "istio.validate.meshwright.dev",
                vec![
                    rule(&["networking.istio.io"], &["*"], networking, changes, "Namespaced"),
                    rule(
                        &["security.istio.io"],
                        &["*"],
                        &["peerauthentications"],
                        changes,
                        "Namespaced",
                    ),
                ],
            ),
        ]),
    }
}

fn client_config(
    endpoint: &WebhookEndpoint,
    namespace: &str,
    ca: &str,
    path: &str,
) -> WebhookClientConfig {
    let ca_bundle = Some(ByteString(ca.as_bytes().to_vec()));
    match endpoint {
        WebhookEndpoint::Service => WebhookClientConfig {
            ca_bundle,
            service: Some(ServiceReference {
                name: OPERATOR.to_owned(),
                namespace: namespace.to_owned(),
                path: Some(path.to_owned()),
                port: Some(443),
            }),
            url: None,
        },
        WebhookEndpoint::Url(base) => WebhookClientConfig {
            ca_bundle,
            service: None,
            url: Some(format!("{}{path}", base.trim_end_matches('/'))),
        },
    }
}

fn rule(
    groups: &[&str],
    versions: &[&str],
    resources: &[&str],
    operations: &[&str],
    scope: &str,
) -> RuleWithOperations {
    let owned = |list: &[&str]| Some(list.iter().map(|item| (*item).to_owned()).collect());
    RuleWithOperations {
        api_groups: owned(groups),
        api_versions: owned(versions),
        resources: owned(resources),
        operations: owned(operations),
        scope: Some(scope.to_owned()),
    }
}

fn selector(requirements: Requirements) -> LabelSelector {
    LabelSelector { match_expressions: Some(requirements), match_labels: None }
}

fn is(key: &str, value: &str) -> LabelSelectorRequirement {
    requirement(key, "In", Some(vec![value.to_owned()]))
}

/// Also where the label is absent.
fn is_not(key: &str, value: &str) -> LabelSelectorRequirement {
    requirement(key, "NotIn", Some(vec![value.to_owned()]))
}

fn absent(key: &str) -> LabelSelectorRequirement {
    requirement(key, "DoesNotExist", None)
}

fn requirement(key: &str, operator: &str, values: Option<Vec<String>>) -> LabelSelectorRequirement {
    LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values }
}
