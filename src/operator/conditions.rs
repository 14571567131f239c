//! Conditions that change only when they change.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// A condition as computed, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: &'static str,
    /// `None` is `Unknown`.
    pub status: Option<bool>,
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    pub fn new(
        kind: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status: Some(status), reason, message: message.into() }
    }
}

/// The findings as conditions; the time of the last transition is kept where the status is the same.
pub fn merge(
    existing: &[Condition],
    findings: Vec<Finding>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |finding: Finding| {
        let status = match finding.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = existing.iter().find(|c| c.type_ == finding.kind && c.status == status);
        Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message,
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| Time(now), |before| before.last_transition_time.clone()),
        }
    };
    findings.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_time_of_a_status_that_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = |status| vec![Finding::new("Ready", status, "Why", "because")];
        let first = merge(&[], ready(true), Some(1), at(10));
        let second = merge(&first, ready(true), Some(2), at(20));
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = merge(&second, ready(false), Some(2), at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }
}
