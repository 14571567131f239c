//! Renewal by making the pods anew.

use std::time::Duration;

use super::{Action, Budgets, State, Wave, allowed_out, deadline, obstacle, over, takes};
use crate::operator::rollout::facts::{Facts, Pod};

/// The workload's own strategy replaces its pods, once its template says that they are to be new.
pub(super) fn renewal(
    facts: &Facts,
    wave: Wave<'_>,
    budgets: &mut Budgets,
) -> (State, Vec<Action>) {
    let ours = |at, image: &String| at >= wave.started && image == wave.image;
    let Some(restarted) = facts.restarted.as_ref().filter(|r| ours(r.at, &r.image)) else {
        return begin(facts, wave, budgets);
    };
    // Not one of an earlier attempt. Kubernetes cuts times to whole seconds.
    let since = restarted.at.checked_sub(Duration::from_secs(1)).unwrap_or(restarted.at);
    let mut made_for_this = facts.pods.iter().filter(|pod| pod.created >= since);
    if let Some(why) = made_for_this.find_map(new_and_broken) {
        return (State::Failed(why), Vec::new());
    }
    if let Some(why) = &facts.stuck {
        return (State::Failed(why.clone()), Vec::new());
    }
    let state = match &facts.unsettled {
        None => State::Done,
        Some(why) if over(restarted.at, deadline(wave.policy), wave.now) => {
            State::Failed(format!("it was not ready within {}: {why}", wave.policy.deadline))
        }
        Some(why) => {
            // It may take pods away at any moment that the budget does not count as gone yet.
            budgets.take(facts, facts.takes);
            State::Busy(why.clone())
        }
    };
    (state, Vec::new())
}

fn begin(facts: &Facts, wave: Wave<'_>, budgets: &mut Budgets) -> (State, Vec<Action>) {
    if facts.outdated().next().is_none() {
        // Somebody else restarted it.
        return (State::Done, Vec::new());
    }
    let why = obstacle(facts, wave.policy, budgets);
    if wave.held || why.is_some() {
        return (State::Untouched(why), Vec::new());
    }
    budgets.take(facts, takes(facts, wave.policy));
    (State::Busy("it is being restarted".to_owned()), vec![Action::Restart(facts.workload.clone())])
}

/// A workload that waits for its pods to be taken away: some at a time.
pub(super) fn eviction(
    facts: &Facts,
    wave: Wave<'_>,
    budgets: &mut Budgets,
) -> (State, Vec<Action>) {
    let new = |pod: &&Pod| pod.created >= wave.started;
    if let Some(why) = facts.pods.iter().filter(new).find_map(new_and_broken) {
        return (State::Failed(why), Vec::new());
    }
    let missing = facts.wanted.saturating_sub(facts.pods.iter().filter(|pod| pod.ready).count());
    // What came with another image while the wave ran would come with it again.
    let old: Vec<_> = facts.outdated().filter(|pod| pod.created < wave.started).collect();
    let begun = facts.pods.iter().any(|pod| new(&pod));
    let late = facts.pods.iter().filter(|pod| !pod.ready && new(pod)).map(|pod| pod.created).min();
    if late.is_some_and(|since| over(since, deadline(wave.policy), wave.now)) {
        let why = format!("{missing} of {} pods are not ready", facts.wanted);
        return (State::Failed(format!("within {}: {why}", wave.policy.deadline)), Vec::new());
    }
    if old.is_empty() && missing == 0 {
        return (State::Done, Vec::new());
    }
    let mut actions = Vec::new();
    let mut room = allowed_out(facts, wave.policy).saturating_sub(missing);
    let mut why = None;
    for pod in old {
        let harmless = !pod.ready && pod.broken().is_some();
        if wave.held || (room == 0 && !harmless) {
            break;
        }
        if !harmless {
            why = budgets.refuses(facts, 1);
            if why.is_some() {
                break;
            }
            budgets.take(facts, 1);
            room -= 1;
        }
        actions.push(Action::Evict(pod.at.clone()));
    }
    let state = if begun || !actions.is_empty() {
        let ready = facts.wanted.saturating_sub(missing);
        State::Busy(why.unwrap_or_else(|| format!("{ready} of {} pods are ready", facts.wanted)))
    } else {
        State::Untouched(why)
    };
    (state, actions)
}

/// Why a pod that has the new proxy cannot start.
fn new_and_broken(pod: &Pod) -> Option<String> {
    pod.broken().filter(|_| !pod.outdated())
}
