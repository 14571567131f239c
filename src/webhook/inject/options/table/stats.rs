//! What the proxy counts.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::Annotation;
use crate::{
    mesh::syntax,
    webhook::inject::options::{bad, form},
};

/// What Envoy takes.
const FLUSH: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(5);
const EVICTION: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// How often Envoy flushes if nobody says otherwise.
const USUAL_FLUSH: u32 = 5000;
/// More would be a mistake, and a large bootstrap.
const MOST_BUCKETS: usize = 500;

pub(super) const ALL: &[Annotation] = &[
    Annotation {
        name: "stats-inclusion-prefixes",
        istio: &["sidecar.istio.io/statsInclusionPrefixes"],
        form: "a list of beginnings of metrics' names",
        example: "cluster.outbound,http.",
        effect: "Metrics of Envoy that are kept beside the usual.",
        apply: |draft, value| {
            draft.options.stats.prefixes.extend(form::texts(value)?);
            Ok(())
        },
    },
    Annotation {
        name: "stats-inclusion-suffixes",
        istio: &["sidecar.istio.io/statsInclusionSuffixes"],
        form: "a list of ends of metrics' names",
        example: "upstream_rq_timeout",
        effect: "Metrics of Envoy that are kept beside the usual.",
        apply: |draft, value| {
            draft.options.stats.suffixes.extend(form::texts(value)?);
            Ok(())
        },
    },
    Annotation {
        name: "stats-inclusion-regexps",
        istio: &["sidecar.istio.io/statsInclusionRegexps"],
        form: "a list of regular expressions for metrics' names",
        example: r"cluster\..*\.upstream_rq_.*",
        effect: "Metrics of Envoy that are kept beside the usual.",
        apply: |draft, value| {
            draft.options.stats.regexps.extend(regexps(&form::texts(value)?)?);
            Ok(())
        },
    },
    Annotation {
        name: "stats-histogram-buckets",
        istio: &["sidecar.istio.io/statsHistogramBuckets"],
        form: "a JSON object of lists of increasing upper bounds above 0, by beginnings of \
               histograms' names",
        example: r#"{"istiocustom":[1,5,10,50,100,500,1000,5000]}"#,
        effect: "Buckets of histograms. `istiocustom` stands for the mesh's standard metrics.",
        apply: |draft, value| {
            let buckets: BTreeMap<String, Vec<f64>> = object(value)?;
            for (name, bounds) in &buckets {
                check_bounds(name, bounds)?;
            }
            draft.options.stats.buckets.extend(buckets);
            Ok(())
        },
    },
    Annotation {
        name: "stats-histogram-bins",
        istio: &["sidecar.istio.io/statsHistogramBins"],
        form: "a JSON object of numbers from 1 to 46082 by beginnings of histograms' names",
        example: r#"{"istiocustom":100}"#,
        effect: "How many bins a histogram has in memory at first.",
        apply: |draft, value| {
            let bins: BTreeMap<String, u32> = object(value)?;
            // What Envoy takes.
            if let Some((name, _)) = bins.iter().find(|(_, bins)| !(1..=46_082).contains(*bins)) {
                return Err(format!("{} has a number out of range", form::part(name)));
            }
            draft.options.stats.bins.extend(bins);
            Ok(())
        },
    },
    Annotation {
        name: "stats-flush-interval",
        istio: &["sidecar.istio.io/statsFlushInterval"],
        form: "a duration from 1ms to 5m",
        example: "10s",
        effect: "How often Envoy flushes its metrics.",
        apply: |draft, value| {
            draft.options.stats.flush_interval = Some(form::millis(value, FLUSH)?);
            Ok(())
        },
    },
    Annotation {
        name: "stats-eviction-interval",
        istio: &["sidecar.istio.io/statsEvictionInterval"],
        form: "a duration that is a multiple of the flush interval, which is 5s if not given",
        example: "10m",
        effect: "How long Envoy keeps a metric that does not change.",
        apply: |draft, value| {
            let stats = &mut draft.options.stats;
            let interval = form::millis(value, EVICTION)?;
            let flush = stats.flush_interval.map_or(USUAL_FLUSH, |flush| flush.0);
            if interval.0 % flush != 0 {
                return Err(format!("{flush}ms does not divide it"));
            }
            stats.eviction_interval = Some(interval);
            Ok(())
        },
    },
    Annotation {
        name: "stats-compression",
        istio: &["sidecar.istio.io/statsCompression"],
        form: "`true` or `false`",
        example: "true",
        effect: "Whether Envoy's metrics on port 15090 may be sent compressed.",
        apply: |draft, value| {
            draft.options.stats.compression = form::boolean(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "extra-stat-tags",
        istio: &["sidecar.istio.io/extraStatTags"],
        form: "a list of names of letters, digits and underscores",
        example: "request_host",
        effect: "Accepted, and needed for nothing: tags that a Telemetry adds need not be \
                 announced.",
        apply: |_, value| check_tags(&form::texts(value)?),
    },
];

pub(in super::super) fn regexps(texts: &[String]) -> form::Result<Vec<String>> {
    let checked =
        |text: &String| syntax::regex(text).map_err(|error: String| bad::harmless(&error));
    texts.iter().map(checked).collect()
}

pub(in super::super) fn check_tags(tags: &[String]) -> form::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match tags.iter().find(|tag| !tag.chars().all(plain)) {
        Some(tag) => Err(format!("{} is no name of a tag", form::part(tag))),
        None => Ok(()),
    }
}

fn check_bounds(name: &str, bounds: &[f64]) -> form::Result<()> {
    let increasing = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let good = increasing && bounds.first().is_some_and(|first| *first > 0.0);
    if good && bounds.len() <= MOST_BUCKETS {
        Ok(())
    } else {
        Err(format!("{} has no such list", form::part(name)))
    }
}

fn object<T: serde::de::DeserializeOwned>(text: &str) -> form::Result<T> {
    serde_json::from_str(text).map_err(|error| bad::harmless(&error.to_string()))
}
