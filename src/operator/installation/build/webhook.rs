//! Webhook configurations: which objects the API server asks us about.
//!
//! The selectors say the same as [`crate::webhook::inject::decide`], which has the last word. Only
//! namespaces and pods that ask for injection are selected, so failing closed touches no others:
//! `spec.injection.always` chooses among them, and does not reach namespaces that say nothing.

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
    api::meshwright::labels::{DEFAULT_REVISION, MANAGED_BY, MANAGER, NAMES},
    operator::platform::{OPERATOR, WebhookEndpoint},
    webhook::inject::decide::{Brand, KUBERNETES_NAMESPACES},
};

/// Name of the configuration of the validation webhook, one for all installations.
pub const VALIDATOR: &str = "meshwright-validator";
const TIMEOUT_SECONDS: i32 = 10;

type Requirements = Vec<LabelSelectorRequirement>;

/// The injection webhook of a revision and its tags.
pub fn injector(valid: &Validated) -> MutatingWebhookConfiguration {
    let name = format!("meshwright-injector-{}", valid.revision);
    let brands = Brand::recognized(valid.istio_labels);
    // Other installations read here which names they need not select any more.
    let mut metadata = metadata(valid, &name, None, &valid.webhook.owner);
    metadata.annotations = Some([(NAMES.to_owned(), names(valid).join(","))].into());
    MutatingWebhookConfiguration {
        metadata,
        webhooks: Some(
            (0..brands.len()).flat_map(|at| brand_webhooks(valid, brands, at)).collect(),
        ),
    }
}

/// The revision and its tags, and what another installation is about to take over.
fn names(valid: &Validated) -> Vec<&str> {
    let kept = valid.tags.kept.iter().map(|(name, _)| name);
    std::iter::once(&valid.revision)
        .chain(&valid.tags.held)
        .chain(kept)
        .map(String::as_str)
        .collect()
}

/// The selections of the brand at this position: by namespaces on which no stronger brand says
/// anything, and by pods of namespaces on which none does.
fn brand_webhooks(valid: &Validated, brands: &[Brand], at: usize) -> Vec<MutatingWebhook> {
    let (brand, stronger) = (&brands[at], &brands[..at]);
    let silent = |brand: &Brand| [absent(brand.injection), absent(brand.revision)];
    let others_silent: Requirements = stronger.iter().flat_map(silent).collect();
    let all_silent: Requirements = brands.iter().flat_map(silent).collect();
    let others_silent_on_pod: Requirements = stronger
        .iter()
        .flat_map(|brand| [absent(brand.revision), is_not(brand.inject, "true")])
        .collect();

    let names = names(valid);
    let by_name = is_one_of(brand.revision, &names);
    let not_refused = if brand.injection_wins {
        absent(brand.injection)
    } else {
        is_not(brand.injection, "disabled")
    };
    let on_namespace = |own: Requirements| ([others_silent.clone(), own].concat(), vec![]);
    let on_pod =
        |own: Requirements| (all_silent.clone(), [others_silent_on_pod.clone(), own].concat());
    let mut selections = vec![
        ("revision.namespace", on_namespace(vec![by_name.clone(), not_refused])),
        ("revision.pod", on_pod(vec![by_name])),
    ];
    if names.contains(&DEFAULT_REVISION) {
        let mut enabled = vec![is_one_of(brand.injection, &["enabled"])];
        if !brand.injection_wins {
            enabled.push(absent(brand.revision));
        }
        let asks = vec![is_one_of(brand.inject, &["true"]), absent(brand.revision)];
        selections.push(("namespace", on_namespace(enabled)));
        selections.push(("pod", on_pod(asks)));
    }
    let webhook = |(what, (namespaces, pods)): (&str, (Requirements, Requirements))| {
        selection(valid, &format!("{what}.{}.inject.meshwright.dev", brand.name), namespaces, pods)
    };
    selections.into_iter().map(webhook).collect()
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
    let brands = Brand::recognized(valid.istio_labels);
    pods.extend(brands.iter().map(|brand| is_not(brand.inject, "false")));
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
        // Events, which a dry run does not write.
        side_effects: "NoneOnDryRun".to_owned(),
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
    let (changes, removals) = (&["CREATE", "UPDATE"], &["DELETE"]);
    let installations = &["meshinstallations"];
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
                vec![rule(&["meshwright.dev"], &["*"], installations, changes, "Cluster")],
            ),
            // Open as well: without an operator nobody could remove what it left. It asks the same
            // question again before it takes the control plane away.
            webhook(
                "removal.validate.meshwright.dev",
                vec![rule(&["meshwright.dev"], &["*"], installations, removals, "Cluster")],
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

fn is_one_of(key: &str, values: &[&str]) -> LabelSelectorRequirement {
    requirement(key, "In", Some(values.iter().map(|value| (*value).to_owned()).collect()))
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
