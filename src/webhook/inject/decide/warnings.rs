//! What is odd about how a pod asks, for the person who applied it.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Brand, PROXY_UID, Pairs, claims, selector};
use crate::webhook::inject::{InjectConfig, Namespace, container::PROXY_CONTAINER};

/// Labels that disagree (and which of them counts), values that mean nothing, selectors that never
/// match, containers that the proxy cannot see.
pub fn warnings(pod: &Pod, namespace: &Namespace, config: &InjectConfig) -> Vec<String> {
    let brands = Brand::recognized(config.istio_labels);
    let labels = Pairs(pod.metadata.labels.as_ref());
    let mut warnings = switches(labels, brands);
    warnings.extend(overruled(namespace, labels, brands));
    warnings.extend(selectors(config));
    warnings.extend(proxy_users(pod));
    warnings
}

fn switches(labels: Pairs<'_>, brands: &[Brand]) -> Vec<String> {
    let set = || brands.iter().filter_map(|brand| Some((brand.inject, labels.get(brand.inject)?)));
    let mut warnings: Vec<_> = set()
        .filter(|(_, value)| !matches!(*value, "true" | "false"))
        .map(|(key, value)| {
            format!("label {key} must be \"true\" or \"false\"; {value:?} is ignored")
        })
        .collect();
    let of = |wanted: &str| set().find(|(_, value)| *value == wanted).map(|(key, _)| key);
    if let (Some(no), Some(yes)) = (of("false"), of("true")) {
        warnings.push(format!("labels disagree: {no}=false counts, {yes}=true does not"));
    }
    warnings
}

fn overruled(namespace: &Namespace, labels: Pairs<'_>, brands: &'static [Brand]) -> Vec<String> {
    let claims = claims::all(&namespace.labels, labels, brands);
    let Some((first, others)) = claims.split_first() else { return Vec::new() };
    let on = |claim: &claims::Claim<'_>| {
        if claim.on_namespace {
            format!("{} of namespace {}", claim.label(), namespace.name)
        } else {
            format!("{} of the pod", claim.label())
        }
    };
    others
        .iter()
        .filter(|other| first.overrules(other))
        .map(|other| format!("labels disagree: {} counts, {} does not", on(first), on(other)))
        .collect()
}

fn selectors(config: &InjectConfig) -> Vec<String> {
    let lists = [("never", &config.injection.never), ("always", &config.injection.always)];
    let mut warnings = Vec::new();
    for (list, selectors) in lists {
        for (index, selector) in selectors.iter().enumerate() {
            if let Some((path, problem)) = selector::problem(selector) {
                warnings.push(format!(
                    "spec.injection.{list}[{index}].{path} of the MeshInstallation: {problem}; the selector matches no pod"
                ));
            }
        }
    }
    warnings
}

fn proxy_users(pod: &Pod) -> Vec<String> {
    let runs_as_proxy = |container: &&Container| {
        // The proxy itself, in a pod that was injected before.
        container.name != PROXY_CONTAINER
            && container.security_context.as_ref().and_then(|c| c.run_as_user) == Some(PROXY_UID)
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .filter(runs_as_proxy)
        .map(|container| {
            format!(
                "container {} runs as user {PROXY_UID}, the proxy's: its traffic does not go through the mesh",
                container.name
            )
        })
        .collect()
}
