//! How running proxies come to a new version.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// How running proxies come to a new version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetPolicy {
    /// What makes proxies go that run another image than new pods get. Pods without an owner and
    /// those of Jobs are never touched: the status counts them.
    pub strategy: FleetStrategy,
    /// No further workload is touched while this is true. What has begun is brought to its end.
    pub paused: bool,
    /// How many workloads are renewed together: a number, or a percentage of all workloads of this
    /// revision that have proxies, rounded up. The next wave begins when all of them are ready.
    #[schemars(extend("x-kubernetes-int-or-string" = true, "x-kubernetes-validations" = [{
        "rule": "type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",
        "message": "must be a number from 1, or a percentage from 1% to 100%",
    }]))]
    pub wave_size: IntOrString,
    /// How many pods of one workload `InPlace` takes out of service together, and `Rolling` where it
    /// evicts pods itself (StatefulSets and DaemonSets with `OnDelete`): a number, or a percentage of
    /// the workload's pods, rounded down but at least one. Otherwise the workload's own strategy
    /// decides. PodDisruptionBudgets can only make it fewer.
    #[schemars(extend("x-kubernetes-int-or-string" = true, "x-kubernetes-validations" = [{
        "rule": "type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",
        "message": "must be a number from 1, or a percentage from 1% to 100%",
    }]))]
    pub max_unavailable: IntOrString,
    /// How long new proxies serve before their errors are judged and the next wave begins.
    #[schemars(length(max = 32))]
    pub pause: String,
    /// How long a workload may take to be ready again. One that takes longer stops the rollout.
    #[schemars(length(max = 32))]
    pub deadline: String,
    /// How many percentage points more of the requests may fail (5xx) through a wave's new proxies
    /// than failed through the ones before them. More stop the rollout. 100 turns it off. Where no
    /// metrics can be read, or there are too few requests to judge, readiness alone decides.
    #[schemars(range(min = 0, max = 100))]
    pub max_error_percent: i32,
    /// Labels of namespaces: those that the first selector matches are renewed first, alone, then
    /// those of the second, and last all others. An empty selector matches nothing.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<LabelSelector>,
    /// Labels of namespaces whose proxies are left alone.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_namespaces: Vec<LabelSelector>,
    /// Labels of Deployments, StatefulSets and DaemonSets, or of their pods, whose proxies are left
    /// alone.
    #[schemars(length(max = 16))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_workloads: Vec<LabelSelector>,
}

/// Ways to renew proxies.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum FleetStrategy {
    /// A pod gets the new proxy whenever it is made anew for another reason.
    #[default]
    OnRestart,
    /// The operator restarts the Deployments, StatefulSets and DaemonSets that own outdated proxies,
    /// in waves, as `kubectl rollout restart` does.
    Rolling,
    /// The operator replaces the image of the sidecar in running pods, a workload's pods one after
    /// another; the application's containers go on. A pod that is not its workload's only one leaves
    /// service first: it is not ready until the new proxy is. Meanwhile, for the second or two in
    /// which the sidecar restarts, connections that the application itself opens are refused, and its
    /// probes, which go through the sidecar, fail: the application must try again, and a liveness
    /// probe must allow for a failure. What injection changes besides the image comes with the
    /// pod's next restart.
    InPlace,
}

impl Default for FleetPolicy {
    fn default() -> Self {
        Self {
            strategy: FleetStrategy::default(),
            paused: false,
            wave_size: IntOrString::String("10%".to_owned()),
            max_unavailable: IntOrString::Int(1),
            pause: "10s".to_owned(),
            deadline: "10m".to_owned(),
            max_error_percent: 5,
            order: Vec::new(),
            exclude_namespaces: Vec::new(),
            exclude_workloads: Vec::new(),
        }
    }
}

impl FleetPolicy {
    /// How long new proxies serve before the next wave; `None` where the text is no duration.
    pub fn pause(&self) -> Option<Duration> {
        duration::parse(&self.pause)
    }

    /// How long a workload may take to be ready; `None` where the text is no duration.
    pub fn deadline(&self) -> Option<Duration> {
        duration::parse(&self.deadline)
    }
}

/// How many of so many a number or percentage stands for, unrounded in hundredths; `None` for what
/// is neither, or is nothing.
pub fn hundredths(amount: &IntOrString, of: usize) -> Option<usize> {
    match amount {
        IntOrString::Int(number) => {
            usize::try_from(*number).ok().filter(|number| *number > 0)?.checked_mul(100)
        }
        IntOrString::String(text) => {
            let percent: usize = text.strip_suffix('%')?.parse().ok()?;
            (1..=100).contains(&percent).then(|| percent.saturating_mul(of))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_percentages() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        for (amount, of, want) in [
            (IntOrString::Int(3), 50, Some(300)),
            (text("10%"), 25, Some(250)),
            (text("100%"), 7, Some(700)),
            (IntOrString::Int(0), 5, None),
            (IntOrString::Int(-1), 5, None),
            (text("0%"), 5, None),
            (text("101%"), 5, None),
            (text("ten"), 5, None),
            (text("5"), 5, None),
        ] {
            assert_eq!(hundredths(&amount, of), want, "{amount:?}");
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        let policy = FleetPolicy::default();
        assert!(policy.pause().is_some() && policy.deadline().is_some());
        assert!(hundredths(&policy.wave_size, 1).is_some());
        assert!(hundredths(&policy.max_unavailable, 1).is_some());
    }
}
