//! Renewal by making the pods anew.

use super::{Action, Budgets, State, Wave, allowed_out, deadline, obstacle, over, takes};
use crate::operator::rollout::facts::{Facts, Pod, Restarted};

/// The workload's own strategy replaces its pods, once its template says that they are to be new.
pub(super) fn renewal(
    facts: &Facts,
    wave: Wave<'_>,
    budgets: &mut Budgets,
) -> (State, Vec<Action>) {
    let Some(restarted) = in_this_wave(facts, wave) else { return begin(facts, wave, budgets) };
    let mut made = facts.pods.iter().filter(|pod| restarted.made(pod));
    if let Some(why) = made.find_map(new_and_broken) {
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

/// The restart that this wave made.
fn in_this_wave<'a>(facts: &'a Facts, wave: Wave<'_>) -> Option<&'a Restarted> {
    let restarted = facts.restarted.as_ref()?;
    (restarted.at >= wave.started && restarted.image == wave.image).then_some(restarted)
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

/// A workload that waits for its pods to be taken away, after the same restart: some at a time.
pub(super) fn eviction(
    facts: &Facts,
    wave: Wave<'_>,
    budgets: &mut Budgets,
) -> (State, Vec<Action>) {
    let Some(restarted) = in_this_wave(facts, wave) else { return begin(facts, wave, budgets) };
    let (new, old): (Vec<&Pod>, Vec<&Pod>) = facts.pods.iter().partition(|pod| restarted.made(pod));
    if let Some(why) = new.iter().copied().find_map(new_and_broken) {
        return (State::Failed(why), Vec::new());
    }
    let ready = facts.pods.iter().filter(|pod| pod.ready).count();
    let missing = facts.wanted.saturating_sub(ready);
    let progress = format!("{ready} of {} pods are ready", facts.wanted);
    let waiting = new.iter().filter(|pod| !pod.ready).map(|pod| pod.created).min();
    if waiting.is_some_and(|since| over(since, deadline(wave.policy), wave.now)) {
        let why = format!("within {}, {progress}", wave.policy.deadline);
        return (State::Failed(why), Vec::new());
    }
    let old: Vec<_> = old.into_iter().filter(|pod| pod.outdated()).collect();
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
    (State::Busy(why.unwrap_or(progress)), actions)
}

/// Why a pod that has the new proxy cannot start.
fn new_and_broken(pod: &Pod) -> Option<String> {
    pod.broken().filter(|_| !pod.outdated())
}
