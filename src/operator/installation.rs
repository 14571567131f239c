//! Reconciles MeshInstallations, in five steps: [`dereference`] reads, [`validate`] and [`build`] are
//! pure, [`super::apply`] writes objects, [`status`] writes what became of them.

pub mod build;
mod certificates;
mod dereference;
pub mod handover;
pub mod status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::DynamicObject,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        controller::Action,
        events::{Event, EventType},
        finalizer::{self, Event as Finalizer, finalizer},
    },
};

use serde::Deserialize;

use self::dereference::{Observed, dereference};
use super::{
    apply::{self, Changes},
    context::Context,
    fleet::Wanted,
    removal,
};
use crate::{
    api::meshwright::{
        MeshInstallation, MeshInstallationStatus,
        labels::{INSTALLATION, MANAGED_BY, MANAGER},
    },
    diagnostic::Diagnostic,
    webhook::validate::names,
};

/// Holds an installation until all that was made for it is gone, its webhook configurations first.
pub const FINALIZER: &str = "meshwright.dev/webhooks";
/// Nothing tells us of what is not watched (namespaces, quotas, roles): a failure is tried again this
/// often at least.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a settled installation is looked at: certificates end without an event.
const LOOK_INTERVAL: Duration = Duration::from_hours(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the MeshInstallation cannot be read: {0}")]
    Unreadable(#[from] Box<InvalidObject>),
    #[error("the MeshInstallation is not valid: {}", sentences(.0))]
    Invalid(Vec<Diagnostic>),
    #[error("{}", incomplete(.0))]
    Incomplete(Vec<apply::Error>),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Removal(#[from] removal::Error),
    #[error("cannot write the status: {0}")]
    Status(#[source] Box<kube::Error>),
    #[error(transparent)]
    Finalizer(#[from] Box<finalizer::Error<Self>>),
}

impl Error {
    /// In one word, for metrics, events and conditions.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Invalid(_) => "Invalid",
            Self::Incomplete(failures) => failures.first().map_or("ApplyFailed", |f| f.reason()),
            Self::Apply(_) => "ApplyFailed",
            Self::Removal(_) => "RemovalFailed",
            Self::Status(_) => "StatusFailed",
            Self::Finalizer(error) => match &**error {
                finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => {
                    error.kind()
                }
                _ => "FinalizerFailed",
            },
        }
    }
}

fn sentences(diagnostics: &[Diagnostic]) -> String {
    let text = |finding: &Diagnostic| format!("{}: {}", finding.path, finding.message);
    diagnostics.iter().map(text).collect::<Vec<_>>().join("; ")
}

fn incomplete(failures: &[apply::Error]) -> String {
    let first = failures.first().map(ToString::to_string).unwrap_or_default();
    match failures.len() {
        0 | 1 => first,
        more => format!("{first}; and {} more", more - 1),
    }
}

/// Label selector of all that was made for an installation.
pub fn selector(installation: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{INSTALLATION}={installation}")
}

/// Brings the cluster to what the installation says.
pub async fn reconcile(
    object: Arc<DeserializeGuard<MeshInstallation>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let installation = match &object.0 {
        Ok(installation) => installation,
        Err(invalid) => return Err(unreadable(invalid, &context).await),
    };
    // Until its finalizer is off: the next one to go must know whether it is the last.
    let turn = if names::is_leaving(installation) {
        let turn = context.turn.lock().await;
        if let Some(again) = remove(installation, &context).await? {
            return Ok(again);
        }
        Some(turn)
    } else {
        None
    };
    let api = Api::<MeshInstallation>::all(context.client.clone());
    let step = |event| async {
        match event {
            Finalizer::Apply(installation) => converge(&installation, &context).await,
            // All of it is gone.
            Finalizer::Cleanup(_) => Ok(Action::await_change()),
        }
    };
    let action = finalizer(&api, FINALIZER, Arc::new(installation.clone()), step)
        .await
        .map_err(|error| Error::Finalizer(Box::new(error)))?;
    drop(turn);
    context.backoff.reset(&installation.name_any());
    Ok(action)
}

/// When to try again, by what went wrong.
#[expect(clippy::needless_pass_by_value, reason = "the Controller's signature")]
pub fn error_policy(
    object: Arc<DeserializeGuard<MeshInstallation>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    let name = object.name_any();
    tracing::warn!(installation = name, kind = error.kind(), %error, "not reconciled");
    match error.kind() {
        // Nothing changes until somebody edits it.
        "Unreadable" | "Invalid" => Action::await_change(),
        _ => Action::requeue(context.backoff.next(&name).min(LONGEST_PAUSE)),
    }
}

/// Says in the status that the spec means nothing to this version. All that runs goes on.
async fn unreadable(invalid: &InvalidObject, context: &Context) -> Error {
    let name = invalid.metadata.name.clone().unwrap_or_default();
    let error = Error::from(Box::new(invalid.clone()));
    let stored = dereference::stored(&context.client, &name).await;
    let before = stored.ok().flatten().map(|object| previous(&object)).unwrap_or_default();
    let installation =
        MeshInstallation { metadata: invalid.metadata.clone(), ..MeshInstallation::default() };
    told(&installation, context, &before, error).await
}

/// The status as the API server has it.
fn previous(stored: &DynamicObject) -> MeshInstallationStatus {
    stored
        .data
        .get("status")
        .and_then(|status| MeshInstallationStatus::deserialize(status).ok())
        .unwrap_or_default()
}

async fn converge(installation: &MeshInstallation, context: &Context) -> Result<Action, Error> {
    let turn = context.turn.lock().await;
    // Needs a client.
    let observed = match dereference(installation, context).await {
        Ok(observed) => observed,
        Err(error) => {
            let before = installation.status.clone().unwrap_or_default();
            return Err(told(installation, context, &before, error.into()).await);
        }
    };
    let before = observed.status.clone();
    // On the heap: it holds all objects of the installation.
    let outcome = Box::pin(steps(installation, context, observed)).await;
    drop(turn);
    match outcome {
        Ok(outcome) => {
            announce_changes(installation, context, &outcome.changes, "Applied").await;
            announce_changes(installation, context, &outcome.removed, "Removed").await;
            status::write(context, installation, &before, outcome.status).await?;
            if outcome.failures.is_empty() {
                Ok(outcome.again)
            } else {
                Err(Error::Incomplete(outcome.failures))
            }
        }
        Err(error) => Err(told(installation, context, &before, error).await),
    }
}

/// The error, told in the status: whoever looks at the object sees why nothing moves. The first one
/// counts.
async fn told(
    installation: &MeshInstallation,
    context: &Context,
    before: &MeshInstallationStatus,
    error: Error,
) -> Error {
    let report = status::failed(before, &error);
    if let Err(error) = status::write(context, installation, before, report).await {
        tracing::warn!(%error, "the failure could not be written to the status");
    }
    error
}

/// Pods that do not come up change nothing that is watched.
fn look_again(installation: &MeshInstallation, context: &Context, waits: bool) -> Action {
    let pods = format!("pods of {}", installation.name_any());
    if waits {
        return Action::requeue(context.backoff.next(&pods).min(LONGEST_PAUSE));
    }
    context.backoff.reset(&pods);
    Action::requeue(LOOK_INTERVAL)
}

struct Outcome {
    changes: Changes,
    removed: Changes,
    /// What could not be read, applied or removed.
    failures: Vec<apply::Error>,
    status: status::Report,
    again: Action,
}

async fn steps(
    installation: &MeshInstallation,
    context: &Context,
    observed: Observed,
) -> Result<Outcome, Error> {
    let Observed { inputs, live, mut failures, certificates, unknown_fields, status: before } =
        observed;
    // Pure.
    let valid = validate::validate(installation, inputs, &context.platform)?;
    let objects = build::build(&valid);
    // Need a client.
    let client = &context.client;
    let mut outcome = objects.apply_over(client, &live).await;
    let removed = outcome.prune(client, &live, |key| valid.is_held_back(key)).await;
    failures.extend(live.failures);
    let troubles = status::trouble::look(client, &outcome.applied.deployments, &mut failures).await;
    let wanted = Wanted::of(installation, &context.platform);
    let proxies = context.fleet.summary(&valid.revision, wanted);
    let facts = status::Facts {
        valid: &valid,
        applied: &outcome.applied,
        failures: &outcome.failures,
        unread: &failures,
        troubles: &troubles,
        proxies: proxies.as_deref(),
        certificates,
        unknown_fields,
    };
    let mut status = status::report(&before, facts, Timestamp::now());
    // Not a part of Ready: what is newer serves what this operator knows.
    status.findings.push(context.definitions.borrow().finding());
    let waits = !outcome.applied.deployments.iter().all(status::rollout::is_settled);
    outcome.failures.extend(failures);
    let again = match &valid.tags.kept[..] {
        [] => look_again(installation, context, waits),
        // Who takes them over does not tell us.
        _ => Action::requeue(handover::LOOK_AGAIN),
    };
    Ok(Outcome { changes: outcome.changes, removed, failures: outcome.failures, status, again })
}

/// Brings the removal of an installation that was deleted one step on. Says when to go on; nothing
/// when all of it is gone.
async fn remove(
    installation: &MeshInstallation,
    context: &Context,
) -> Result<Option<Action>, Error> {
    let is_ours = installation.finalizers().iter().any(|name| name == FINALIZER);
    if !is_ours {
        return Ok(None);
    }
    let mut changes = Changes::default();
    let namespace = &context.platform.namespace;
    let step = removal::proceed(&context.client, namespace, installation, &mut changes).await;
    announce_changes(installation, context, &changes, "Removed").await;
    let Some(waits) = step? else { return Ok(None) };
    let before = installation.status.clone().unwrap_or_default();
    status::write(context, installation, &before, removal::report(installation, &waits)).await?;
    Ok(Some(Action::requeue(waits.look_again())))
}

async fn announce_changes(
    installation: &MeshInstallation,
    context: &Context,
    changes: &Changes,
    reason: &'static str,
) {
    let Some(summary) = changes.summary() else { return };
    tracing::info!(installation = installation.name_any(), reason, summary);
    let event = Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(format!("{reason} {summary}")),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    context.publish(installation, event).await;
}
