//! How far a workload's renewal is, and the next thing to do for it. Pure.

mod in_place;
mod rolling;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::facts::{Facts, List, PodRef, Replaced};
use crate::{
    api::meshwright::{FleetPolicy, FleetStrategy, fleet::hundredths},
    operator::fleet::proxy::Workload,
};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// As `kubectl rollout restart` does.
    Restart(Workload),
    /// By the Eviction API, which asks the PodDisruptionBudgets once more.
    Evict(PodRef),
    /// The pod is not to be ready any more, so that nothing new comes.
    TakeOut(PodRef),
    /// Another image for the proxy; remembers what was there.
    Replace { pod: PodRef, list: List, image: String, before: Replaced },
    /// The pod is to be in service again.
    PutBack(PodRef),
    /// The former image, and in service again.
    Restore { pod: PodRef, list: List, image: String },
}

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was done to it yet; why not, if something keeps it.
    Untouched(Option<String>),
    /// It is on its way.
    Busy(String),
    Failed(String),
    Done,
}

/// What all renewals of a wave have in common.
#[derive(Clone, Copy, Debug)]
pub struct Wave<'a> {
    pub policy: &'a FleetPolicy,
    pub image: &'a str,
    pub started: Timestamp,
    pub now: Timestamp,
    /// Nothing that is untouched is touched now.
    pub held: bool,
}

/// What PodDisruptionBudgets allow, less what this step takes.
#[derive(Debug, Default)]
pub struct Budgets {
    taken: BTreeMap<String, usize>,
}

impl Budgets {
    /// Which budget does not allow so many pods of the workload to go.
    pub fn refuses(&self, facts: &Facts, pods: usize) -> Option<String> {
        let pods = pods.max(1);
        facts.budgets.iter().find_map(|budget| {
            let taken = self.taken.get(&budget.name).copied().unwrap_or(0);
            let left = budget.allowed.saturating_sub(taken);
            (left < pods).then(|| match budget.allowed {
                0 => format!("PodDisruptionBudget {} allows no disruption now", budget.name),
                _ => format!(
                    "PodDisruptionBudget {} allows {left} pods to go now, and {pods} would go at once",
                    budget.name
                ),
            })
        })
    }

    /// So many pods of the workload go.
    pub fn take(&mut self, facts: &Facts, pods: usize) {
        for budget in &facts.budgets {
            *self.taken.entry(budget.name.clone()).or_default() += pods.max(1);
        }
    }
}

/// How far the workload is, with what to do next.
pub fn renewal(facts: &Facts, wave: Wave<'_>, budgets: &mut Budgets) -> (State, Vec<Action>) {
    match wave.policy.strategy {
        FleetStrategy::InPlace => in_place::renewal(facts, wave, budgets),
        _ if facts.on_delete => rolling::eviction(facts, wave, budgets),
        _ => rolling::renewal(facts, wave, budgets),
    }
}

/// Why a workload cannot be touched now, though its proxies are outdated.
pub fn obstacle(facts: &Facts, policy: &FleetPolicy, budgets: &Budgets) -> Option<String> {
    let one_by_one = facts.on_delete || policy.strategy == FleetStrategy::InPlace;
    if !one_by_one && let Some(why) = &facts.immovable {
        return Some(why.clone());
    }
    // A pod that cannot become ready with the proxy that it has loses nothing.
    if facts.only_proxies_fail() {
        return None;
    }
    if let Some(why) = &facts.unsettled {
        return Some(format!("it is not rolled out and available: {why}"));
    }
    budgets.refuses(facts, takes(facts, policy))
}

/// How many pods go at once when the workload is touched.
pub fn takes(facts: &Facts, policy: &FleetPolicy) -> usize {
    if facts.on_delete || policy.strategy == FleetStrategy::InPlace { 1 } else { facts.takes }
}

/// What brings pods that were touched in place back, and which image they go on with.
pub fn abandon<'a>(facts: impl IntoIterator<Item = &'a Facts>) -> Vec<Action> {
    facts.into_iter().flat_map(|facts| facts.pods.iter()).filter_map(in_place::abandon).collect()
}

fn allowed_out(facts: &Facts, policy: &FleetPolicy) -> usize {
    let most = hundredths(&policy.max_unavailable, facts.pods.len());
    most.map_or(1, |most| (most / 100).max(1))
}

fn over(since: Timestamp, limit: Duration, now: Timestamp) -> bool {
    now > later(since, limit)
}

/// So much later, or the end of time.
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn deadline(policy: &FleetPolicy) -> Duration {
    policy.deadline().unwrap_or_default()
}
