//! Brings running proxies to the image that new pods get, as `spec.fleet` says. Leader only.
//!
//! [`plan`] and [`renewal`] decide and are pure; [`read`] and [`requests`] look, [`act`] writes. The
//! controller keeps nothing in memory that it could not do without: how far a rollout is stands in
//! the MeshInstallation's status and in the objects that it touches. A step is taken only when what
//! the former one decided is stored.

mod act;
pub mod candidates;
mod conditions;
pub mod facts;
pub mod plan;
mod read;
pub mod renewal;
mod requests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    core::DeserializeGuard,
    runtime::events::{Event, EventType},
};
use tokio::sync::watch;

use self::{
    candidates::Fleet,
    facts::Facts,
    plan::{Requests, Situation, Step, plan},
    read::Reader,
    renewal::Action,
};
use super::{
    context::Context,
    fleet::{image::Wanted, proxy::Workload},
};
use crate::{
    api::meshwright::{
        FleetStrategy, MeshInstallation, RolloutPhase, RolloutStatus,
        labels::{MANAGED_BY, MANAGER, RESUME_ROLLOUT},
    },
    webhook::inject::{container::AGENT_PORT, decide::selector},
};

pub use conditions::mention;

/// How the rollouts of all installations go, by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rollouts(Arc<watch::Sender<BTreeMap<String, Option<RolloutStatus>>>>);

impl Rollouts {
    /// What is to stand in an installation's status; what is `known` where that has not been looked
    /// at yet.
    #[must_use]
    pub fn or(&self, installation: &str, known: Option<&RolloutStatus>) -> Option<RolloutStatus> {
        let all = self.0.borrow();
        all.get(installation).map_or_else(|| known.cloned(), Clone::clone)
    }

    /// Whether what is to stand in the status does not stand there yet.
    fn is_pending(&self, installation: &str, stored: Option<&RolloutStatus>) -> bool {
        self.0.borrow().get(installation).is_some_and(|wanted| wanted.as_ref() != stored)
    }

    /// Changes with any of them.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Option<RolloutStatus>>> {
        self.0.subscribe()
    }

    /// Forgets those that are gone: another of the same name begins anew.
    fn keep(&self, installations: &[Arc<MeshInstallation>]) {
        let exists = |name: &str| installations.iter().any(|object| object.name_any() == name);
        self.0.send_if_modified(|all| {
            all.retain(|name, _| exists(name));
            false
        });
    }

    fn publish(&self, installation: &str, status: Option<RolloutStatus>) {
        self.0.send_if_modified(|all| {
            let changed = all.get(installation) != Some(&status);
            all.insert(installation.to_owned(), status);
            changed
        });
    }
}

/// While something is under way.
const QUICK: Duration = Duration::from_secs(2);
/// While something is waited for that may come without any event that is followed.
const SLOW: Duration = Duration::from_secs(15);
/// Everything that comes within a moment is looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Looks after rollouts, until dropped.
pub async fn run(context: &Context) {
    // What another leader did meanwhile stands in the statuses.
    context.rollouts.0.send_replace(BTreeMap::new());
    let (mut fleet, mut installations) = (context.fleet.subscribe(), context.changed.clone());
    loop {
        // Of a fleet that is known in part, the rest would be taken for renewed.
        let known = context.fleet.is_complete();
        let pause = if known { look(context).await } else { Some(QUICK) };
        tokio::select! {
            () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)) => {}
            Ok(()) = fleet.changed() => tokio::time::sleep(SETTLE).await,
            Ok(()) = installations.changed() => tokio::time::sleep(SETTLE).await,
        }
        fleet.mark_unchanged();
        installations.mark_unchanged();
    }
}

/// One step for each installation; when to look again, if not only after a change.
pub async fn look(context: &Context) -> Option<Duration> {
    let mut pauses = Vec::new();
    let installations = &context.installations.load_full().objects;
    context.rollouts.keep(installations);
    for installation in installations {
        match step(context, installation).await {
            Ok(pause) => pauses.extend(pause),
            Err(error) => {
                let name = installation.name_any();
                tracing::warn!(installation = name, %error, "the rollout of proxies does not get on");
                pauses.push(SLOW);
            }
        }
    }
    pauses.into_iter().min()
}

async fn step(context: &Context, mirrored: &MeshInstallation) -> kube::Result<Option<Duration>> {
    let asked = |object: &MeshInstallation| object.spec.fleet.strategy != FleetStrategy::OnRestart;
    let rollout = mirrored.status.as_ref().and_then(|status| status.rollout.as_ref());
    if !asked(mirrored) && rollout.is_none() {
        return Ok(None);
    }
    let name = mirrored.name_any();
    // Not from the mirror: a step that was stored a moment ago must not be taken again.
    let api = Api::<DeserializeGuard<MeshInstallation>>::all(context.client.clone());
    let Some(DeserializeGuard(Ok(installation))) = api.get_opt(&name).await? else {
        return Ok(None);
    };
    if installation.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let stored = installation.status.as_ref().and_then(|status| status.rollout.clone());
    if context.rollouts.is_pending(&name, stored.as_ref()) {
        // Its reconciliation writes it; nothing is done that does not stand there.
        return Ok(Some(QUICK));
    }
    let wanted = Wanted::of(&installation, &context.platform);
    let rollout = Rollout { context, installation: &installation, wanted, stored };
    let (status, actions) = if asked(&installation) {
        let step = rollout.next().await?;
        (Some(step.status), step.actions)
    } else {
        rollout.end().await?
    };
    rollout.announce(status.as_ref()).await;
    let pause = status.as_ref().and_then(|status| pause(status, &actions));
    context.rollouts.publish(&name, status);
    rollout.act(&actions).await?;
    Ok(pause)
}

fn pause(status: &RolloutStatus, actions: &[Action]) -> Option<Duration> {
    match status.phase {
        _ if !actions.is_empty() => Some(QUICK),
        RolloutPhase::Rolling => Some(QUICK),
        RolloutPhase::Waiting => Some(SLOW),
        RolloutPhase::Stopped | RolloutPhase::Done => None,
    }
}

struct Rollout<'a> {
    context: &'a Context,
    installation: &'a MeshInstallation,
    wanted: Wanted,
    stored: Option<RolloutStatus>,
}

impl Rollout<'_> {
    async fn next(&self) -> kube::Result<Step> {
        let Self { context, installation, wanted, stored } = self;
        let spec = &installation.spec;
        let policy = &spec.fleet;
        let by_labels = [&policy.order, &policy.exclude_namespaces];
        let namespaces = if by_labels.iter().all(|selectors| selectors.is_empty()) {
            BTreeMap::new()
        } else {
            read::namespaces(&context.client).await?
        };
        let own = candidates::own_gateways(installation, &context.platform.namespace);
        let proxies = context.fleet.proxies(&spec.revision);
        let outdated = context.fleet.outdated(&spec.revision, wanted);
        let mut fleet = Fleet::new(&proxies, &outdated, policy, &namespaces, &own);
        let facts = self.facts(&mut fleet).await?;
        let now = Timestamp::now();
        let situation = Situation {
            policy,
            version: context.platform.version(&spec.version),
            image: &wanted.image,
            generation: installation.metadata.generation.unwrap_or_default(),
            resume: installation.annotations().get(RESUME_ROLLOUT).map_or("", String::as_str),
            before: stored.as_ref(),
            candidates: &fleet.candidates,
            workloads: fleet.workloads,
            facts: &facts,
            gate: self.gate(),
            tally: fleet.tally,
            requests: self.judged(&facts, now).await,
            now,
        };
        let mut step = plan(&situation);
        let begins = |status: &RolloutStatus| status.wave_started.clone();
        if !step.status.wave_started.is_empty()
            && stored.as_ref().map(begins).as_ref() != Some(&step.status.wave_started)
        {
            let before = measure(&step.status, &facts).await.and_then(Requests::error_percent);
            step.status.error_percent_before =
                before.map(|percent| format!("{percent:.2}")).unwrap_or_default();
        }
        Ok(step)
    }

    /// Of what runs, or of as many as are needed to begin a wave.
    async fn facts(&self, fleet: &mut Fleet) -> kube::Result<BTreeMap<Workload, Facts>> {
        let mut reader = Reader::new(&self.context.client, &self.wanted);
        let mut all = BTreeMap::new();
        let touched = self.stored.iter().flat_map(|status| &status.workloads);
        for workload in touched.filter_map(|text| facts::parse(text)) {
            if let Some(facts) = reader.facts(&workload).await? {
                all.insert(workload, facts);
            }
        }
        if self.stored.as_ref().is_some_and(|status| status.phase == RolloutPhase::Rolling) {
            return Ok(all);
        }
        let policy = &self.installation.spec.fleet;
        let mut wanted = plan::wave_size(policy, fleet.workloads);
        let mut left_out = Vec::new();
        for candidate in &fleet.candidates {
            if wanted == 0 {
                break;
            }
            let workload = &candidate.workload;
            let found = match all.remove(workload) {
                Some(facts) => Some(facts),
                None => reader.facts(workload).await?,
            };
            match found {
                Some(facts) if !self.leaves_out(&facts) => {
                    wanted -= usize::from(plan::eligible(&facts, policy, &self.wanted.image));
                    all.insert(workload.clone(), facts);
                }
                // Gone, or none of our business.
                _ => left_out.push(workload.clone()),
            }
        }
        fleet.leave_out(&left_out);
        Ok(all)
    }

    /// Our own gateways have the new image in their Deployments already.
    fn leaves_out(&self, facts: &Facts) -> bool {
        let selectors = &self.installation.spec.fleet.exclude_workloads;
        facts.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
            || selectors.iter().any(|selector| selector::matches(selector, &facts.labels))
    }

    /// Proxies follow their control plane and never lead.
    fn gate(&self) -> Option<String> {
        let installation = self.installation;
        let status = installation.status.clone().unwrap_or_default();
        let version = self.context.platform.version(&installation.spec.version);
        if status.observed_generation < installation.metadata.generation {
            return Some("the installation's last change is not in force yet".to_owned());
        }
        if status.version != version {
            return Some(format!("the control plane does not run version {version} yet"));
        }
        let ready = status.conditions.iter().find(|c| c.type_ == "ControlPlaneReady");
        match ready {
            Some(condition) if condition.status == "True" => None,
            Some(condition) => {
                Some(format!("the control plane is not ready: {}", condition.message))
            }
            None => Some("the control plane is not ready".to_owned()),
        }
    }

    /// What became of requests through a wave that has served as long as it was to.
    async fn judged(&self, facts: &BTreeMap<Workload, Facts>, now: Timestamp) -> Option<Requests> {
        let status = self.stored.as_ref()?;
        let ended: Timestamp = status.wave_ended.parse().ok()?;
        let policy = &self.installation.spec.fleet;
        let over = now >= renewal::later(ended, policy.pause().unwrap_or_default());
        let comparable = !status.error_percent_before.is_empty() && policy.max_error_percent < 100;
        if status.phase != RolloutPhase::Rolling || !over || !comparable {
            return None;
        }
        measure(status, facts).await
    }

    /// Nothing is asked for any more: what was touched in place comes back, then the status goes.
    async fn end(&self) -> kube::Result<(Option<RolloutStatus>, Vec<Action>)> {
        let mut reader = Reader::new(&self.context.client, &self.wanted);
        let mut touched = Vec::new();
        for text in self.stored.iter().flat_map(|status| &status.workloads) {
            let Some(workload) = facts::parse(text) else { continue };
            touched.extend(reader.facts(&workload).await?);
        }
        let actions = plan::end(&touched);
        let status = self.stored.clone().filter(|_| !actions.is_empty());
        Ok((status, actions))
    }

    async fn act(&self, actions: &[Action]) -> kube::Result<()> {
        let Self { context, installation, wanted, .. } = self;
        for action in actions {
            tracing::info!(installation = installation.name_any(), ?action, "renewing proxies");
            act::act(&context.client, action, &wanted.image).await?;
        }
        Ok(())
    }

    /// An event for each turn that the rollout takes.
    async fn announce(&self, now: Option<&RolloutStatus>) {
        let nothing = RolloutStatus::default();
        let before = self.stored.as_ref().unwrap_or(&nothing);
        let Some((reason, note)) = now.and_then(|now| turn(before, now)) else { return };
        let bad = reason == "RolloutStopped";
        tracing::info!(installation = self.installation.name_any(), reason, note);
        let event = Event {
            type_: if bad { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Rollout".to_owned(),
            secondary: None,
        };
        self.context.publish(self.installation, event).await;
    }
}

async fn measure(status: &RolloutStatus, facts: &BTreeMap<Workload, Facts>) -> Option<Requests> {
    let of_wave = |text: &String| facts.get(&facts::parse(text)?);
    let workloads: Vec<_> = status.workloads.iter().filter_map(of_wave).collect();
    requests::measure(&workloads, AGENT_PORT).await
}

/// The turn from one status to the next, as reason and text of an event.
fn turn(before: &RolloutStatus, now: &RolloutStatus) -> Option<(&'static str, String)> {
    let wave = format!("wave {} of {}", now.wave, now.waves);
    if now.phase == RolloutPhase::Stopped && before.phase != RolloutPhase::Stopped {
        Some(("RolloutStopped", now.message.clone()))
    } else if now.phase == RolloutPhase::Rolling && before.wave_started != now.wave_started {
        let workloads = now.workloads.join(", ");
        Some(("RolloutWaveStarted", format!("{wave} to {}: {workloads}", now.image)))
    } else if before.wave_ended.is_empty() && !now.wave_ended.is_empty() {
        Some(("RolloutWaveReady", format!("{wave} is ready; {} proxies are new", now.summary)))
    } else if now.phase == RolloutPhase::Done && before.phase != now.phase && now.wave > 0 {
        Some(("RolloutDone", format!("{} proxies run {}", now.summary, now.image)))
    } else {
        None
    }
}
