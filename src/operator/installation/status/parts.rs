//! Conditions of an installation's parts, and of the whole. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;

use super::{Facts, rollout::Rollout, trouble::Trouble};
use crate::{
    operator::{apply::Key, conditions::Finding},
    webhook::validate::names::Tags,
};

/// Sentences of one kind that a condition carries; with many gateways there may be hundreds.
const MOST_SENTENCES: usize = 10;

/// Something that is wrong: reason and sentence.
pub(super) type Problem = (&'static str, String);

/// One part of an installation.
struct Part {
    kind: &'static str,
    what: &'static str,
    rollout: Rollout,
    /// What could not be brought about.
    problems: Vec<Problem>,
    /// What keeps pods from running.
    troubles: Vec<Problem>,
    /// Deployments that should be there and are not.
    missing: Vec<String>,
}

/// The conditions, and whether the control plane's pods are all of the newest version.
pub(super) fn findings(facts: &Facts<'_>) -> (Vec<Finding>, bool) {
    let control_plane = control_plane(facts);
    let gateways = gateways(facts);
    let parts = [control_plane.finding(), gateways.finding(), webhook(facts)];
    let mut findings = overall(facts, &parts, &[&control_plane, &gateways]);
    findings.extend(parts);
    (findings, control_plane.rollout.is_settled())
}

fn is_gateway(facts: &Facts<'_>, key: &Key) -> bool {
    let listed = |(namespace, name): &(String, String)| {
        key.namespace.as_ref() == Some(namespace) && key.name == *name
    };
    facts.valid.listed.iter().any(listed)
}

fn is_webhook(key: &Key) -> bool {
    key.kind == "MutatingWebhookConfiguration"
}

fn deployments<'a>(
    facts: &'a Facts<'_>,
    of_gateways: bool,
) -> impl Iterator<Item = &'a Deployment> {
    let belongs = move |d: &&Deployment| is_gateway(facts, &Key::of(*d)) == of_gateways;
    facts.applied.deployments.iter().filter(belongs)
}

fn problems(facts: &Facts<'_>, belongs: impl Fn(&Key) -> bool) -> Vec<Problem> {
    let failures = facts.failures.iter().filter(|failure| belongs(failure.object()));
    failures.map(|failure| (failure.reason(), failure.to_string())).collect()
}

fn troubles(facts: &Facts<'_>, of_gateways: bool) -> Vec<Problem> {
    let belongs = |t: &&Trouble| is_gateway(facts, &t.deployment) == of_gateways;
    let ours = facts.troubles.iter().filter(belongs);
    ours.map(|trouble| (trouble.reason, trouble.message.clone())).collect()
}

fn control_plane(facts: &Facts<'_>) -> Part {
    let rollout = Rollout::of(deployments(facts, false));
    let name = format!("{}/{}", facts.valid.namespace, facts.valid.control_plane.name);
    Part {
        kind: "ControlPlaneReady",
        what: "the control plane",
        missing: if rollout.total == 0 { vec![name] } else { Vec::new() },
        rollout,
        problems: problems(facts, |key| !is_gateway(facts, key) && !is_webhook(key)),
        troubles: troubles(facts, false),
    }
}

fn gateways(facts: &Facts<'_>) -> Part {
    let there: BTreeSet<_> = deployments(facts, true).map(super::rollout::name).collect();
    let listed = facts.valid.listed.iter().map(|(namespace, name)| format!("{namespace}/{name}"));
    let mut problems: Vec<_> = facts
        .valid
        .problems
        .iter()
        .map(|finding| ("Invalid", format!("{}: {}", finding.path, finding.message)))
        .collect();
    problems.extend(self::problems(facts, |key| is_gateway(facts, key)));
    Part {
        kind: "GatewaysReady",
        what: "gateways",
        missing: listed.filter(|name| !there.contains(name)).collect(),
        rollout: Rollout::of(deployments(facts, true)),
        problems,
        troubles: troubles(facts, true),
    }
}

fn webhook(facts: &Facts<'_>) -> Finding {
    const KIND: &str = "WebhookReady";
    let problems = problems(facts, is_webhook);
    if let Some((reason, _)) = problems.first() {
        return Finding::new(KIND, false, reason, sentences(&problems));
    }
    tags(facts, &facts.valid.tags)
}

fn tags(facts: &Facts<'_>, tags: &Tags) -> Finding {
    const KIND: &str = "WebhookReady";
    if facts.applied.mutating_webhooks.is_empty() {
        return Finding::new(KIND, false, "Missing", "the injection webhook is not registered");
    }
    let waiting = tags.waiting.iter();
    let waiting = waiting.map(|(tag, holder)| format!("{tag} waits for {holder} to give it up"));
    let kept = tags.kept.iter();
    let kept = kept.map(|(name, heir)| format!("{name} is served from here until {heir} has it"));
    let notes: Vec<_> = waiting.chain(kept).collect();
    if notes.is_empty() {
        return Finding::new(KIND, true, "Registered", "the API server sends pods for injection");
    }
    let reason = if tags.waiting.is_empty() { "NamesLeaving" } else { "TagsWaiting" };
    Finding::new(KIND, true, reason, notes.join("; "))
}

impl Part {
    fn finding(&self) -> Finding {
        let Self { kind, rollout, problems, troubles, missing, .. } = self;
        let mut lines = rollout.unavailable.clone();
        lines.extend(missing.iter().map(|name| format!("{name} is not there")));
        if let Some((reason, _)) = problems.first() {
            let message = with(sentences(problems), lines);
            return Finding::new(kind, false, reason, message);
        }
        if !lines.is_empty() {
            let reason = troubles.first().map_or("Unavailable", |(reason, _)| *reason);
            return Finding::new(kind, false, reason, with(sentences(troubles), lines));
        }
        if rollout.total == 0 {
            return Finding::new(kind, true, "NoneWanted", format!("no {}", self.what));
        }
        Finding::new(kind, true, "Available", "all replicas are available")
    }
}

fn with(first: String, lines: Vec<String>) -> String {
    let first = Some(first).filter(|text| !text.is_empty());
    first.into_iter().chain(lines.into_iter().take(MOST_SENTENCES)).collect::<Vec<_>>().join("; ")
}

/// Each sentence once, and not too many.
fn sentences(problems: &[Problem]) -> String {
    let mut seen = BTreeSet::new();
    let unique: Vec<_> =
        problems.iter().map(|(_, text)| text.as_str()).filter(|text| seen.insert(*text)).collect();
    let more = unique.len().saturating_sub(MOST_SENTENCES);
    let shown = unique.into_iter().take(MOST_SENTENCES).collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

/// `Ready`, `Progressing` and `Degraded`, from the parts.
fn overall(facts: &Facts<'_>, parts: &[Finding], rollouts: &[&Part]) -> Vec<Finding> {
    let waiting: Vec<_> = parts.iter().filter(|part| part.status != Some(true)).collect();
    let mut wrong = problems(facts, |_| true);
    for part in rollouts {
        wrong.extend(part.problems.iter().filter(|(reason, _)| *reason == "Invalid").cloned());
        wrong.extend(part.troubles.iter().cloned());
    }
    wrong.extend(facts.unread.iter().map(|failure| (failure.reason(), failure.to_string())));
    let ready = if waiting.is_empty() {
        Finding::new("Ready", true, "Ready", "the mesh works")
    } else {
        let messages: Vec<_> = waiting.iter().map(|part| part.message.as_str()).collect();
        let reason = wrong.first().map_or("Waiting", |(reason, _)| *reason);
        Finding::new("Ready", false, reason, messages.join("; "))
    };
    let moving: Vec<_> = rollouts.iter().flat_map(|part| part.rollout.moving.clone()).collect();
    let progressing = if moving.is_empty() {
        Finding::new("Progressing", false, "Settled", "no pod is on its way")
    } else {
        Finding::new("Progressing", true, "RollingOut", with(String::new(), moving))
    };
    let degraded = match wrong.first() {
        None => Finding::new("Degraded", false, "AsExpected", "nothing is wrong"),
        Some((reason, _)) => Finding::new("Degraded", true, reason, sentences(&wrong)),
    };
    vec![ready, progressing, degraded]
}
