//! What the pod's own switch and the installation's policy say about a pod that somebody asks for.

use super::{Brand, Pairs, Reason, selector};
use crate::api::meshwright::{Injection, InjectionPolicy};

/// The label or annotation by which the pod refuses. One no is enough.
pub(super) fn refusal(
    labels: Pairs<'_>,
    annotations: Pairs<'_>,
    brands: &[Brand],
) -> Option<String> {
    let says_no = |brand: &&Brand| switch(labels, annotations, brand) == Some("false");
    brands.iter().find(says_no).map(|brand| format!("{}=false", brand.inject))
}

/// Whether the pod may be injected: by its own switch, else by the selectors, else by the policy.
/// The reason is one that is better than that somebody asks.
pub(super) fn consent(
    labels: Pairs<'_>,
    annotations: Pairs<'_>,
    brands: &[Brand],
    injection: &Injection,
) -> Result<Option<Reason>, Reason> {
    if brands.iter().any(|brand| switch(labels, annotations, brand) == Some("true")) {
        return Ok(Some(Reason::PodEnabled));
    }
    if let Some(index) = selector::first_match(&injection.never, labels.0) {
        return Err(Reason::NeverSelector(index));
    }
    if let Some(index) = selector::first_match(&injection.always, labels.0) {
        return Ok(Some(Reason::AlwaysSelector(index)));
    }
    match injection.policy {
        InjectionPolicy::Enabled => Ok(None),
        InjectionPolicy::Disabled => Err(Reason::PolicyDisabled),
    }
}

/// Older files for Istio say it by annotation.
fn switch<'a>(labels: Pairs<'a>, annotations: Pairs<'a>, brand: &Brand) -> Option<&'a str> {
    labels.get(brand.inject).or_else(|| annotations.get(brand.inject))
}
