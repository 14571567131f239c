//! What `spec.fleet` must be beyond its schema.

use std::time::Duration;

use crate::{
    api::meshwright::{FleetPolicy, fleet::hundredths},
    webhook::inject::decide::selector,
};

/// A mistyped hour must not keep a broken wave unnoticed for a year.
const LONGEST: Duration = Duration::from_hours(24 * 7);
const SHORTEST_DEADLINE: Duration = Duration::from_secs(10);

/// A field, a reason in one word, and what is wrong.
pub struct Problem {
    pub path: String,
    pub reason: &'static str,
    pub message: String,
}

/// All that is wrong.
pub fn problems(policy: &FleetPolicy) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |field: &str, reason, message: String| {
        found.push(Problem { path: format!("spec.fleet.{field}"), reason, message });
    };
    for (field, amount) in
        [("waveSize", &policy.wave_size), ("maxUnavailable", &policy.max_unavailable)]
    {
        if hundredths(amount, 1).is_none() {
            let message = "must be a number from 1, or a percentage from 1% to 100%";
            say(field, "InvalidAmount", message.to_owned());
        }
    }
    if policy.pause().is_none_or(|pause| pause > LONGEST) {
        let message = format!("{:?} is not a duration between 0s and 168h", policy.pause);
        say("pause", "InvalidDuration", message);
    }
    let within = |deadline| (SHORTEST_DEADLINE..=LONGEST).contains(&deadline);
    if !policy.deadline().is_some_and(within) {
        let message = format!("{:?} is not a duration between 10s and 168h", policy.deadline);
        say("deadline", "InvalidDuration", message);
    }
    if !(0..=100).contains(&policy.max_error_percent) {
        let message = "must be from 0 to 100";
        say("maxErrorPercent", "OutOfRange", message.to_owned());
    }
    for (field, selectors) in [
        ("order", &policy.order),
        ("excludeNamespaces", &policy.exclude_namespaces),
        ("excludeWorkloads", &policy.exclude_workloads),
    ] {
        for (index, selector) in selectors.iter().enumerate() {
            if let Some((path, problem)) = selector::problem(selector) {
                say(&format!("{field}[{index}].{path}"), "InvalidSelector", problem);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn paths(policy: Value) -> Vec<String> {
        let policy = serde_json::from_value(policy).unwrap();
        problems(&policy).into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(paths(json!({})).is_empty());
    }

    #[test]
    fn names_the_field() {
        for (policy, want) in [
            (json!({"waveSize": 0}), "spec.fleet.waveSize"),
            (json!({"waveSize": "ten"}), "spec.fleet.waveSize"),
            (json!({"waveSize": "101%"}), "spec.fleet.waveSize"),
            (json!({"maxUnavailable": "0%"}), "spec.fleet.maxUnavailable"),
            (json!({"pause": "soon"}), "spec.fleet.pause"),
            (json!({"pause": "9999h"}), "spec.fleet.pause"),
            (json!({"deadline": "1s"}), "spec.fleet.deadline"),
            (json!({"maxErrorPercent": 101}), "spec.fleet.maxErrorPercent"),
            (
                json!({"order": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}),
                "spec.fleet.order[0].matchExpressions[0].operator",
            ),
        ] {
            assert_eq!(paths(policy), [want]);
        }
    }
}
