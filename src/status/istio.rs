//! The status of Istio's kinds: one condition `Ready`.

use k8s_openapi::jiff::Timestamp;

use super::conditions::{Wanted, list, merge};
use crate::{
    api::istio::Status,
    diagnostic::{Diagnostic, Severity},
};

/// What the status should be. `findings` has the errors first.
pub fn status(
    existing: &Status,
    generation: Option<i64>,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> Status {
    let errors: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    let ready = match (errors.first(), findings) {
        (Some(first), _) => {
            Wanted { message: list(findings), ..Wanted::new("Ready", false, first.reason) }
        }
        (None, []) => Wanted {
            message: "all of it takes effect".to_owned(),
            ..Wanted::new("Ready", true, "Accepted")
        },
        (None, warnings) => {
            Wanted { message: list(warnings), ..Wanted::new("Ready", true, "AcceptedWithWarnings") }
        }
    };
    Status {
        observed_generation: generation,
        conditions: merge(&existing.conditions, vec![ready], generation, now),
    }
}
