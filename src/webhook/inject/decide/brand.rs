//! The labels by which injection is asked for, ours and Istio's.

use crate::api::meshwright::labels;

/// The labels of one brand.
#[derive(Debug, PartialEq, Eq)]
pub struct Brand {
    pub name: &'static str,
    /// On a namespace: `enabled` or `disabled`.
    pub injection: &'static str,
    /// On a namespace or a pod.
    pub revision: &'static str,
    /// On a pod: `"true"` or `"false"`.
    pub inject: &'static str,
    /// Whether `injection` counts on a namespace that has `revision` too.
    pub injection_wins: bool,
}

/// With ours, `enabled` and a revision say: enabled, by this revision.
pub const OURS: Brand = Brand {
    name: "meshwright",
    injection: labels::INJECTION,
    revision: labels::REVISION,
    inject: labels::INJECT,
    injection_wins: false,
};

pub const ISTIO: Brand = Brand {
    name: "istio",
    injection: labels::ISTIO_INJECTION,
    revision: labels::ISTIO_REVISION,
    inject: labels::ISTIO_INJECT,
    injection_wins: true,
};

impl Brand {
    /// The brands that count, the stronger first.
    pub fn recognized(istio_labels: bool) -> &'static [Self] {
        const ALL: &[Brand] = &[OURS, ISTIO];
        if istio_labels { ALL } else { &ALL[..1] }
    }
}
