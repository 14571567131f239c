//! What a rollout does next. Pure: from what the cluster shows and what the status says to the next
//! status and the writes that go with it.
//!
//! Nothing is remembered: a wave is first written to the MeshInstallation's status, and only what
//! stands there is touched. Whoever leads next goes on from the same words.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{
    facts::{self, Facts},
    renewal::{self, Action, Budgets, State, Wave, abandon, later, obstacle, renewal, takes},
};
use crate::{
    api::meshwright::{
        FleetPolicy, FleetStrategy, RolloutPhase, RolloutStatus, fleet::hundredths,
        labels::RESUME_ROLLOUT,
    },
    operator::fleet::proxy::Workload,
};

/// With fewer requests, one that fails would say too much.
const ENOUGH_REQUESTS: u64 = 20;
/// How many names a message has at most.
const MOST_NAMES: usize = 3;

/// All that a step depends on.
#[derive(Debug)]
pub struct Situation<'a> {
    pub policy: &'a FleetPolicy,
    /// The installation's version, for people.
    pub version: &'a str,
    /// The image that new proxies have.
    pub image: &'a str,
    pub generation: i64,
    /// Value of the annotation that lets a stopped rollout go on.
    pub resume: &'a str,
    /// The status as it is stored.
    pub before: Option<&'a RolloutStatus>,
    /// Workloads with outdated proxies, in the order in which they are to be renewed.
    pub candidates: &'a [Candidate],
    /// How many workloads have proxies.
    pub workloads: usize,
    /// Of the wave that runs, or of as many candidates as are needed for the next.
    pub facts: &'a BTreeMap<Workload, Facts>,
    /// Why nothing may be touched now.
    pub gate: Option<String>,
    pub tally: Tally,
    /// What became of requests through the wave's proxies.
    pub requests: Option<Requests>,
    pub now: Timestamp,
}

/// A workload with outdated proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub workload: Workload,
    /// Those of a lower group are renewed before those of a higher one.
    pub group: usize,
}

/// Proxies in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub renewed: usize,
    pub all: usize,
    /// Names of those that are outdated and have nobody who could be told to renew them.
    pub unowned: Vec<String>,
    /// How many are outdated in what `spec.fleet` leaves out.
    pub excluded: usize,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub all: u64,
    /// Answered with 5xx.
    pub failed: u64,
}

impl Requests {
    /// The share that failed, in percent; `None` for too few to tell.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
    pub fn error_percent(self) -> Option<f64> {
        (self.all >= ENOUGH_REQUESTS).then(|| 100.0 * self.failed as f64 / self.all as f64)
    }
}

/// What to write to the status, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub status: RolloutStatus,
    pub actions: Vec<Action>,
}

/// The next step.
pub fn plan(situation: &Situation<'_>) -> Step {
    let mut step = situation.step();
    let status = &mut step.status;
    let Tally { renewed, all, ref unowned, excluded } = situation.tally;
    status.summary = format!("{renewed}/{all}");
    let kept = situation.kept();
    let kept_pods: usize = kept.iter().map(|facts| facts.outdated().count()).sum();
    status.manual = i32::try_from(unowned.len() + kept_pods).unwrap_or(i32::MAX);
    let mut notes = Vec::new();
    if !unowned.is_empty() {
        notes.push(format!(
            "{} proxies are left to you, as nobody but you can restart them: {}",
            unowned.len(),
            named(unowned)
        ));
    }
    if !kept.is_empty() {
        let names: Vec<_> = kept.iter().map(|facts| facts::text(&facts.workload)).collect();
        notes.push(format!("restarted, but still with another image: {}", named(&names)));
    }
    if excluded > 0 {
        notes.push(format!("{excluded} outdated proxies are left out by spec.fleet"));
    }
    for note in notes {
        if !status.message.is_empty() {
            status.message.push_str("; ");
        }
        status.message.push_str(&note);
    }
    step
}

/// Whether the workload may be a part of the next wave.
pub fn eligible(facts: &Facts, policy: &FleetPolicy, image: &str) -> bool {
    facts.outdated().next().is_some()
        && !facts.keeps_another(image)
        && obstacle(facts, policy, &Budgets::default()).is_none()
}

/// How many workloads a wave has.
pub fn wave_size(policy: &FleetPolicy, workloads: usize) -> usize {
    let hundredths = hundredths(&policy.wave_size, workloads);
    hundredths.map_or(1, |hundredths| hundredths.div_ceil(100).max(1))
}

impl Situation<'_> {
    fn step(&self) -> Step {
        let stale = self.before.is_some_and(|before| before.image != self.image);
        if stale || self.policy.strategy != FleetStrategy::InPlace {
            // What was begun in place for another image, or under another strategy, ends first.
            let actions = abandon(self.facts.values());
            if let (false, Some(before)) = (actions.is_empty(), self.before) {
                let message = "pods that were touched in place come back into service first";
                let status = RolloutStatus { message: message.to_owned(), ..before.clone() };
                return Step { status, actions };
            }
        }
        let fresh = || RolloutStatus {
            version: self.version.to_owned(),
            image: self.image.to_owned(),
            ..RolloutStatus::default()
        };
        let mut status = self.before.filter(|_| !stale).cloned().unwrap_or_else(fresh);
        self.version.clone_into(&mut status.version);
        status.message.clear();
        match status.phase {
            RolloutPhase::Stopped if self.stays_stopped(&status) => self.stopped(status),
            RolloutPhase::Stopped => self.next(resumed(status)),
            RolloutPhase::Rolling if !status.workloads.is_empty() => self.running(status),
            _ => self.next(status),
        }
    }

    fn stays_stopped(&self, status: &RolloutStatus) -> bool {
        status.stopped_at_generation == Some(self.generation)
            && status.stopped_at_resume == self.resume
    }

    /// Nothing but what brings pods back.
    fn stopped(&self, mut status: RolloutStatus) -> Step {
        if let Some(before) = self.before {
            // The reason is what it was; notes after it are made anew.
            let reason = before.message.split("; then ").next().unwrap_or_default();
            status.message = format!("{reason}; then {}", how_to_go_on());
        }
        Step { status, actions: abandon(self.facts.values()) }
    }

    fn stop(&self, mut status: RolloutStatus, why: &str) -> Step {
        status.phase = RolloutPhase::Stopped;
        status.stopped_at_generation = Some(self.generation);
        self.resume.clone_into(&mut status.stopped_at_resume);
        status.message =
            format!("wave {} failed: {why}; find out why; then {}", status.wave, how_to_go_on());
        Step { status, actions: abandon(self.facts.values()) }
    }

    /// A wave that runs, or has run and is being judged.
    fn running(&self, mut status: RolloutStatus) -> Step {
        let started = parse_time(&status.wave_started).unwrap_or(self.now);
        let wave = Wave {
            policy: self.policy,
            image: self.image,
            started,
            now: self.now,
            held: self.policy.paused || self.gate.is_some(),
        };
        let mut budgets = Budgets::default();
        let (mut actions, mut open) = (Vec::new(), Vec::new());
        for text in &status.workloads {
            // What is gone needs no renewal.
            let facts = facts::parse(text).and_then(|workload| self.facts.get(&workload));
            let Some(facts) = facts else { continue };
            let (state, next) = renewal(facts, wave, &mut budgets);
            match state {
                State::Done => {}
                State::Failed(why) => return self.stop(status.clone(), &format!("{text}: {why}")),
                State::Busy(why) => open.push(format!("{text}: {why}")),
                State::Untouched(why) => {
                    let why = why.unwrap_or_else(|| self.hold().unwrap_or_default());
                    open.push(format!("{text} waits: {why}"));
                }
            }
            actions.extend(next);
        }
        if let Some(why) = self.errors(&status) {
            return self.stop(status, &why);
        }
        if !open.is_empty() {
            return self.unfinished(status, actions, &open);
        }
        let pause = self.policy.pause().unwrap_or_default();
        match parse_time(&status.wave_ended) {
            None => status.wave_ended = self.now.to_string(),
            Some(ended) if self.now >= later(ended, pause) => return self.next(finished(status)),
            Some(_) => {}
        }
        status.message = format!(
            "wave {} is ready, and serves {} before the next",
            status.wave, self.policy.pause
        );
        if status.error_percent_before.is_empty() && self.policy.max_error_percent < 100 {
            status.message.push_str(
                "; there are no figures of requests before it to compare with, so readiness alone decides",
            );
        }
        Step { status, actions }
    }

    fn unfinished(&self, mut status: RolloutStatus, actions: Vec<Action>, open: &[String]) -> Step {
        status.message = named(open);
        // It was ready and is not any more.
        let pause = self.policy.pause().unwrap_or_default();
        let patience = pause.saturating_add(self.policy.deadline().unwrap_or_default());
        let ended = parse_time(&status.wave_ended);
        if ended.is_some_and(|ended| self.now > later(ended, patience)) {
            let why = format!("it was ready and did not stay so: {}", status.message);
            return self.stop(status, &why);
        }
        Step { status, actions }
    }

    /// Why nothing new is touched.
    fn hold(&self) -> Option<String> {
        let paused = self.policy.paused.then(|| "spec.fleet.paused is true".to_owned());
        paused.or_else(|| self.gate.clone())
    }

    /// The new proxies fail more than those before them.
    fn errors(&self, status: &RolloutStatus) -> Option<String> {
        let before: f64 = status.error_percent_before.parse().ok()?;
        let after = self.requests.and_then(Requests::error_percent)?;
        let most = f64::from(self.policy.max_error_percent);
        let ready = !status.wave_ended.is_empty() && most < 100.0;
        (ready && after > before + most).then(|| {
            format!(
                "{after:.1} % of the requests through its new proxies fail, of those before it were {before:.1} %; spec.fleet.maxErrorPercent allows {most} more"
            )
        })
    }

    /// Workloads that were renewed as far as can be, and still have outdated proxies.
    fn kept(&self) -> Vec<&Facts> {
        self.facts.values().filter(|facts| facts.keeps_another(self.image)).collect()
    }

    /// The next wave, if there is one and it may begin.
    fn next(&self, mut status: RolloutStatus) -> Step {
        let nothing_left = |candidate: &&Candidate| {
            let facts = self.facts.get(&candidate.workload);
            !facts.is_some_and(|facts| {
                facts.outdated().next().is_none() || facts.keeps_another(self.image)
            })
        };
        let remaining: Vec<_> = self.candidates.iter().filter(nothing_left).collect();
        status.waves = status.wave + self.waves(&remaining);
        let Some(group) = remaining.iter().map(|candidate| candidate.group).min() else {
            status.phase = RolloutPhase::Done;
            return Step { status, actions: Vec::new() };
        };
        status.phase = RolloutPhase::Waiting;
        if let Some(why) = self.hold() {
            status.message = why;
            return Step { status, actions: Vec::new() };
        }
        let (chosen, obstacles) = self.choose(&remaining, group);
        if chosen.is_empty() {
            status.message = if obstacles.is_empty() {
                "the next wave is being prepared".to_owned()
            } else {
                named(&obstacles)
            };
            return Step { status, actions: Vec::new() };
        }
        status.phase = RolloutPhase::Rolling;
        status.wave += 1;
        status.waves = status.waves.max(status.wave);
        status.wave_started = self.now.to_string();
        status.workloads = chosen;
        status.message = format!("wave {} begins", status.wave);
        // What stands in the status is touched, and nothing else: the next step does it.
        Step { status, actions: Vec::new() }
    }

    /// As many of a group as a wave has, and why others are not among them.
    fn choose(&self, remaining: &[&Candidate], group: usize) -> (Vec<String>, Vec<String>) {
        let size = wave_size(self.policy, self.workloads);
        let mut budgets = Budgets::default();
        let (mut chosen, mut obstacles) = (Vec::new(), Vec::new());
        for candidate in remaining.iter().filter(|candidate| candidate.group == group) {
            let Some(facts) = self.facts.get(&candidate.workload) else { continue };
            let name = facts::text(&candidate.workload);
            if let Some(why) = obstacle(facts, self.policy, &budgets) {
                obstacles.push(format!("{name} waits: {why}"));
            } else if chosen.len() < size {
                budgets.take(facts, takes(facts, self.policy));
                chosen.push(name);
            }
        }
        (chosen, obstacles)
    }

    fn waves(&self, remaining: &[&Candidate]) -> i32 {
        let size = wave_size(self.policy, self.workloads);
        let mut groups = BTreeMap::<usize, usize>::new();
        for candidate in remaining {
            *groups.entry(candidate.group).or_default() += 1;
        }
        let waves: usize = groups.values().map(|count| count.div_ceil(size)).sum();
        i32::try_from(waves).unwrap_or(i32::MAX)
    }
}

fn resumed(status: RolloutStatus) -> RolloutStatus {
    RolloutStatus {
        stopped_at_generation: None,
        stopped_at_resume: String::new(),
        ..finished(status)
    }
}

fn finished(status: RolloutStatus) -> RolloutStatus {
    RolloutStatus {
        workloads: Vec::new(),
        wave_started: String::new(),
        wave_ended: String::new(),
        error_percent_before: String::new(),
        ..status
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn how_to_go_on() -> String {
    format!(
        "change the spec, or go on as it is with: kubectl annotate meshinstallation NAME --overwrite {RESUME_ROLLOUT}=$(date +%s)"
    )
}

/// Some names, and how many more there are.
fn named(names: &[String]) -> String {
    let shown = names.len().min(MOST_NAMES);
    let more = match names.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..shown].join("; "))
}

/// What brings back pods that were touched in place, when no rollout is asked for any more.
pub fn end<'a>(facts: impl IntoIterator<Item = &'a Facts>) -> Vec<Action> {
    renewal::abandon(facts)
}
