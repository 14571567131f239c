//! Conditions: written only where they say something new.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::diagnostic::Diagnostic;

/// The API server's limit for a condition's message.
const LONGEST_MESSAGE: usize = 32768;

/// A condition as it should be, before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub kind: &'static str,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Wanted {
    pub fn new(kind: &'static str, status: bool, reason: &'static str) -> Self {
        Self { kind, status, reason, message: String::new() }
    }

    /// A condition that holds unless something was found against it.
    pub fn unless(kind: &'static str, otherwise: &'static str, against: &[&Diagnostic]) -> Self {
        match against.first() {
            None => Self::new(kind, true, otherwise),
            Some(first) => Self { message: list(against), ..Self::new(kind, false, first.reason) },
        }
    }
}

/// Every finding on a line of its own.
pub fn list(findings: &[&Diagnostic]) -> String {
    let lines: Vec<_> =
        findings.iter().map(|found| format!("{}: {}", found.path, found.message)).collect();
    let mut text = lines.join("\n");
    if text.len() > LONGEST_MESSAGE {
        const MORE: &str = "…";
        let mut end = LONGEST_MESSAGE - MORE.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

/// The wanted conditions, in their order. One that has the same status as before keeps its time.
pub fn merge(
    existing: &[Condition],
    wanted: Vec<Wanted>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .into_iter()
        .map(|wanted| {
            let status = if wanted.status { "True" } else { "False" };
            let since = existing
                .iter()
                .find(|old| old.type_ == wanted.kind && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            Condition {
                type_: wanted.kind.to_owned(),
                status: status.to_owned(),
                reason: wanted.reason.to_owned(),
                message: wanted.message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// Whether `existing` says all that `wanted` says; times and further conditions play no part.
pub fn covers(existing: &[Condition], wanted: &[Condition]) -> bool {
    wanted.iter().all(|wanted| {
        existing.iter().any(|old| {
            old.type_ == wanted.type_
                && old.status == wanted.status
                && old.reason == wanted.reason
                && old.message == wanted.message
                && old.observed_generation == wanted.observed_generation
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn time_changes_with_the_status_only() {
        let good = || vec![Wanted::new("Ready", true, "Accepted")];
        let bad = || vec![Wanted::new("Ready", false, "HostNotFound")];
        let first = merge(&[], good(), Some(1), at(10));
        assert_eq!(first[0].last_transition_time.0, at(10));
        let second = merge(&first, good(), Some(2), at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert!(!covers(&first, &second), "the generation is news");
        let third = merge(&second, bad(), Some(2), at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
        assert!(covers(&third, &merge(&third, bad(), Some(2), at(40))));
    }

    #[test]
    fn long_lists_are_cut_at_a_character() {
        let object = crate::diagnostic::ObjectRef {
            api_version: "v1",
            kind: "Service",
            namespace: String::new(),
            name: "x".to_owned(),
            generation: 0,
        };
        let found = Diagnostic::error(&object, "spec", "Long", "ä".repeat(LONGEST_MESSAGE));
        assert!(list(&[&found]).len() <= LONGEST_MESSAGE);
    }
}
