//! Renewal of sidecars in running pods.
//!
//! A pod leaves service before its proxy is replaced: its agent says that it is not ready, so that no
//! new connection comes, and asks those that are there to go elsewhere. Then it gets the new image;
//! the kubelet stops the old container, which ends what is left, and starts the new one. What was
//! there before is written down in the pod, so that any operator can see how far it is and undo it.
//! The only pod of a workload does not leave: there is nowhere else to go, and a second without a
//! proxy is less than the half minute that leaving takes.

use std::time::Duration;

use super::{Action, Budgets, State, Wave, allowed_out, deadline, later, over};
use crate::operator::rollout::facts::{Container, Facts, Pod, Replaced};

/// From the moment that a pod is not ready until nobody sends it anything: endpoints, proxies and
/// nodes learn of it one after another.
const UNHEARD: Duration = Duration::from_secs(3);
/// How long a pod may take to leave service: the kubelet asks every few seconds whether it is ready,
/// and believes the fourth no.
const LEAVING: Duration = Duration::from_secs(90);

pub(super) fn renewal(
    facts: &Facts,
    wave: Wave<'_>,
    budgets: &mut Budgets,
) -> (State, Vec<Action>) {
    let mut steps = Steps { facts, wave, actions: Vec::new(), on_the_way: Vec::new() };
    let (touched, untouched): (Vec<_>, Vec<_>) = facts.pods.iter().partition(|pod| pod.in_flight());
    for pod in touched {
        if let Err(why) = steps.proceed(pod) {
            return (State::Failed(why), Vec::new());
        }
    }
    let outdated: Vec<_> = untouched.iter().filter(|pod| pod.outdated()).collect();
    let begun = !steps.on_the_way.is_empty();
    if outdated.is_empty() && !begun {
        return match facts.unsettled.clone().or_else(|| facts.stuck.clone()) {
            None => (State::Done, Vec::new()),
            Some(why) => {
                let since = facts.pods.iter().filter_map(|pod| pod.unready_since).max();
                let late = since.is_some_and(|at| over(at, deadline(wave.policy), wave.now));
                let state = if late { State::Failed(why) } else { State::Busy(why) };
                (state, Vec::new())
            }
        };
    }
    let away = facts.pods.iter().filter(|pod| !pod.ready || pod.in_flight()).count();
    let mut room = allowed_out(facts, wave.policy).saturating_sub(away);
    let mut why = None;
    for pod in outdated {
        // With an image that cannot be had, it is nobody's loss.
        let harmless = !pod.ready && pod.broken().is_some();
        if wave.held || (room == 0 && !harmless) {
            why = why.or_else(|| (!pod.ready).then(|| format!("{} is not ready", pod.at)));
            continue;
        }
        if !harmless {
            why = (!pod.ready).then(|| format!("{} is not ready", pod.at));
            why = why.or_else(|| budgets.refuses(facts, 1));
            if why.is_some() {
                break;
            }
            budgets.take(facts, 1);
            room -= 1;
        }
        steps.begin(pod, harmless);
    }
    let Steps { actions, on_the_way, .. } = steps;
    let state = match (on_the_way.is_empty(), why) {
        (true, why) => State::Untouched(why),
        (false, _) => State::Busy(on_the_way.join(", ")),
    };
    (state, actions)
}

/// Back to what it was, unless the new proxy runs already.
pub(super) fn abandon(pod: &Pod) -> Option<Action> {
    if !pod.in_flight() {
        return None;
    }
    let (Some(before), Some(proxy)) = (&pod.replaced, &pod.proxy) else {
        return Some(Action::PutBack(pod.at.clone()));
    };
    if runs_anew(proxy, before) {
        return Some(Action::PutBack(pod.at.clone()));
    }
    Some(Action::Restore { pod: pod.at.clone(), list: proxy.list, image: before.image.clone() })
}

fn runs_anew(proxy: &Container, before: &Replaced) -> bool {
    proxy.ready && !proxy.id.is_empty() && proxy.id != before.container
}

struct Steps<'a> {
    facts: &'a Facts,
    wave: Wave<'a>,
    actions: Vec<Action>,
    on_the_way: Vec<String>,
}

impl Steps<'_> {
    /// The next step of a pod that was touched; the error says why there is none.
    fn proceed(&mut self, pod: &Pod) -> Result<(), String> {
        let Some(proxy) = &pod.proxy else {
            self.actions.push(Action::PutBack(pod.at.clone()));
            return Ok(());
        };
        match (&pod.replaced, pod.out_of_service) {
            (Some(before), _) => self.wait_for_the_new_one(pod, proxy, before),
            (None, Some(_)) if !pod.outdated() => {
                self.actions.push(Action::PutBack(pod.at.clone()));
                self.say(pod, "comes back into service");
                Ok(())
            }
            (None, Some(_)) if self.has_left(pod, proxy) => {
                self.replace(pod, proxy);
                Ok(())
            }
            (None, Some(since)) if over(since, LEAVING, self.wave.now) => Err(format!(
                "{} does not leave service: its proxy says that it is ready, {} s after it was asked to leave",
                pod.at,
                LEAVING.as_secs()
            )),
            (None, _) => {
                self.say(pod, "leaves service");
                Ok(())
            }
        }
    }

    fn has_left(&self, pod: &Pod, proxy: &Container) -> bool {
        let unheard = |since| self.wave.now >= later(since, UNHEARD);
        !proxy.ready && !pod.ready && pod.unready_since.is_some_and(unheard)
    }

    fn wait_for_the_new_one(
        &mut self,
        pod: &Pod,
        proxy: &Container,
        before: &Replaced,
    ) -> Result<(), String> {
        if runs_anew(proxy, before) {
            self.actions.push(Action::PutBack(pod.at.clone()));
            self.say(pod, "comes back into service");
            return Ok(());
        }
        if let Some(why) = pod.broken() {
            return Err(why);
        }
        if over(before.at, deadline(self.wave.policy), self.wave.now) {
            let deadline = &self.wave.policy.deadline;
            return Err(format!("{}: its new proxy was not ready within {deadline}", pod.at));
        }
        self.say(pod, "gets its new proxy");
        Ok(())
    }

    fn begin(&mut self, pod: &Pod, at_once: bool) {
        let Some(proxy) = &pod.proxy else { return };
        let others = self.facts.pods.iter().filter(|other| other.ready && other.at != pod.at);
        if at_once || !proxy.can_leave || others.count() == 0 {
            self.replace(pod, proxy);
        } else {
            self.actions.push(Action::TakeOut(pod.at.clone()));
            self.say(pod, "leaves service");
        }
    }

    fn replace(&mut self, pod: &Pod, proxy: &Container) {
        let before =
            Replaced { image: proxy.image.clone(), container: proxy.id.clone(), at: self.wave.now };
        let image = proxy.wanted.clone();
        self.actions.push(Action::Replace { pod: pod.at.clone(), list: proxy.list, image, before });
        self.say(pod, "gets its new proxy");
    }

    fn say(&mut self, pod: &Pod, what: &str) {
        self.on_the_way.push(format!("{} {what}", pod.at));
    }
}
