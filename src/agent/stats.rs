//! What a pod wants to know of its proxy beyond what every proxy counts.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The name under which Istio's configuration knows the standard metrics.
const ISTIO_SCOPE: &str = "istiocustom";
/// How the names of the mesh's standard metrics begin, after their scope.
const STANDARD_PREFIX: &str = "istio_";

/// What the injector writes into `MESHWRIGHT_STATS`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StatsOptions {
    /// Metrics that are kept beside the usual, by how their names begin, end, and look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suffixes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regexps: Vec<String>,
    /// Upper bounds of histograms' buckets, by how the histograms' names begin.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub buckets: BTreeMap<String, Vec<f64>>,
    /// How many bins a histogram has in memory at first, by how the histograms' names begin.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bins: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_interval: Option<Millis>,
    /// How long a metric that nobody changes is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_interval: Option<Millis>,
    /// Whether the proxy's metrics may be sent compressed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compression: bool,
}

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u32);

impl Millis {
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }

    /// As protobuf's JSON writes it.
    fn text(self) -> String {
        format!("{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

impl StatsOptions {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Matchers of the metrics that are kept beside the usual.
    pub(super) fn patterns(&self) -> Vec<Value> {
        let suffix = |suffix: &String| json!({"suffix": suffix});
        let regexp = |regexp: &String| json!({"safe_regex": {"regex": regexp}});
        let prefixes = self.prefixes.iter().map(|prefix| beginning(prefix));
        prefixes
            .chain(self.suffixes.iter().map(suffix))
            .chain(self.regexps.iter().map(regexp))
            .collect()
    }

    /// Settings of histograms. The first that matches holds, so the longest name stands first.
    pub(super) fn histograms(&self) -> Vec<Value> {
        let mut names: Vec<&String> = self.buckets.keys().chain(self.bins.keys()).collect();
        names.sort_by_key(|name| (std::cmp::Reverse(name.len()), *name));
        names.dedup();
        names.into_iter().map(|name| self.histogram(name)).collect()
    }

    fn histogram(&self, name: &str) -> Value {
        let mut settings = Map::from_iter([("match".to_owned(), beginning(name))]);
        if let Some(buckets) = self.buckets.get(name) {
            settings.insert("buckets".to_owned(), json!(buckets));
        }
        if let Some(bins) = self.bins.get(name) {
            settings.insert("bins".to_owned(), json!(bins));
        }
        settings.into()
    }

    /// Fields of the bootstrap itself.
    pub(super) fn intervals(&self) -> impl Iterator<Item = (String, Value)> {
        [
            ("stats_flush_interval", self.flush_interval),
            ("stats_eviction_interval", self.eviction_interval),
        ]
        .into_iter()
        .filter_map(|(field, interval)| Some((field.to_owned(), interval?.text().into())))
    }
}

/// Matches metrics by how their names begin. What Istio names by its scope has another one here.
fn beginning(prefix: &str) -> Value {
    match prefix.strip_prefix(ISTIO_SCOPE) {
        Some("" | ".") => json!({"contains": STANDARD_PREFIX}),
        Some(rest) => json!({"contains": rest.trim_start_matches('.')}),
        None => json!({"prefix": prefix}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_of_histograms_stands_first() {
        let options = StatsOptions {
            buckets: [("a".to_owned(), vec![1.0, 2.5]), ("a.b".to_owned(), vec![3.0])].into(),
            bins: [("a".to_owned(), 10)].into(),
            ..StatsOptions::default()
        };
        assert_eq!(
            options.histograms(),
            [
                json!({"match": {"prefix": "a.b"}, "buckets": [3.0]}),
                json!({"match": {"prefix": "a"}, "buckets": [1.0, 2.5], "bins": 10}),
            ]
        );
    }

    #[test]
    fn istios_scope_stands_for_the_standard_metrics() {
        assert_eq!(beginning("istiocustom"), json!({"contains": "istio_"}));
        let one = beginning("istiocustom.istio_request_bytes");
        assert_eq!(one, json!({"contains": "istio_request_bytes"}));
        assert_eq!(beginning("server."), json!({"prefix": "server."}));
    }

    #[test]
    fn intervals_are_protobufs() {
        let options =
            StatsOptions { flush_interval: Some(Millis(10_005)), ..StatsOptions::default() };
        let found: Vec<_> = options.intervals().collect();
        assert_eq!(found, [("stats_flush_interval".to_owned(), json!("10.005s"))]);
    }
}
