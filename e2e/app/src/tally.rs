//! Counts what came of many requests. The summary's JSON is read by the scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Outcome;

/// Outcomes and latencies so far.
#[derive(Debug, Default)]
pub struct Tally {
    requests: u64,
    succeeded: u64,
    statuses: BTreeMap<String, u64>,
    versions: BTreeMap<String, u64>,
    pods: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    /// Microseconds, rounded to two digits so that a long run needs no more memory than a short one.
    latencies: BTreeMap<u64, u64>,
}

impl Tally {
    pub fn record(&mut self, outcome: &Outcome, took: Duration) {
        let count = |counts: &mut BTreeMap<String, u64>, key: String| {
            *counts.entry(key).or_default() += 1;
        };
        self.requests += 1;
        self.succeeded += u64::from(outcome.ok);
        count(&mut self.statuses, outcome.status.clone());
        if let Some(service) = outcome.field("service") {
            let version = outcome.field("version").unwrap_or("-");
            count(&mut self.versions, format!("{service}/{version}"));
        }
        if let Some(pod) = outcome.field("pod") {
            count(&mut self.pods, pod.to_owned());
        }
        if !outcome.ok {
            count(&mut self.errors, complaint(outcome));
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.latencies.entry(two_digits(micros)).or_default() += 1;
    }

    pub fn failed(&self) -> u64 {
        self.requests - self.succeeded
    }

    /// The summary as the scenarios read it.
    pub fn summary(&self, url: &str, connections: u64, ran: Duration) -> Value {
        json!({
            "url": url,
            "requests": self.requests,
            "succeeded": self.succeeded,
            "failed": self.failed(),
            "connections": connections,
            "statuses": self.statuses,
            "versions": self.versions,
            "pods": self.pods,
            "errors": self.errors,
            "latency_ms": {
                "p50": self.latency(0.50),
                "p99": self.latency(0.99),
                "max": self.latency(1.0),
            },
            "seconds": ran.as_secs_f64(),
        })
    }

    /// The latency in milliseconds that this share of the requests stayed within.
    #[expect(clippy::cast_precision_loss, reason = "two digits are all that is kept")]
    fn latency(&self, share: f64) -> f64 {
        let mut left = self.requests as f64 * share;
        for (micros, count) in &self.latencies {
            left -= *count as f64;
            if left <= 0.0 {
                return *micros as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// What a failed request said: the error, or what stood in the response instead of an answer.
fn complaint(outcome: &Outcome) -> String {
    let said = match (&outcome.error, &outcome.answer) {
        (Some(error), _) => error.clone(),
        (None, Value::String(text)) => text.chars().take(200).collect(),
        (None, answer) => answer["calls"]
            .as_array()
            .and_then(|calls| calls.iter().find_map(|call| call["error"].as_str()))
            .unwrap_or_default()
            .to_owned(),
    };
    format!("{}: {said}", outcome.status)
}

fn two_digits(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: &str, ok: bool, answer: Value) -> Outcome {
        Outcome { status: status.to_owned(), ok, answer, ..Outcome::default() }
    }

    #[test]
    fn counts_by_status_version_and_error() {
        let mut tally = Tally::default();
        let answered = json!({"service": "catalog", "version": "v2", "pod": "catalog-0"});
        for millis in 1..=99 {
            tally.record(&outcome("200", true, answered.clone()), Duration::from_millis(millis));
        }
        tally.record(
            &outcome("503", false, json!("no healthy upstream")),
            Duration::from_millis(400),
        );
        let summary = tally.summary("http://catalog", 1, Duration::from_secs(2));
        assert_eq!(summary["requests"], 100);
        assert_eq!(summary["failed"], 1);
        assert_eq!(summary["statuses"], json!({"200": 99, "503": 1}));
        assert_eq!(summary["versions"], json!({"catalog/v2": 99}));
        assert_eq!(summary["errors"], json!({"503: no healthy upstream": 1}));
        assert_eq!(summary["latency_ms"], json!({"p50": 50.0, "p99": 99.0, "max": 400.0}));
    }

    #[test]
    fn rounds_to_two_digits() {
        for (number, rounded) in [(0, 0), (99, 99), (123, 120), (45_678, 45_000)] {
            assert_eq!(two_digits(number), rounded);
        }
    }
}
