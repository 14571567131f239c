//! Reconciles MeshInstallations, in five steps: [`dereference`] reads, [`validate`] and [`build`] are
//! pure, [`super::apply`] writes objects, [`status`] writes what became of them.

pub mod build;
mod dereference;
pub mod handover;
pub mod status;
pub mod validate;

use std::sync::Arc;

use kube::{
    Api, ResourceExt,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        controller::Action,
        events::{Event, EventType},
        finalizer::{self, Event as Finalizer, finalizer},
    },
};

use super::{
    apply::{self, Changes},
    context::Context,
    removal,
};
use crate::{
    api::meshwright::{
        MeshInstallation,
        labels::{INSTALLATION, MANAGED_BY, MANAGER},
    },
    diagnostic::Diagnostic,
    webhook::validate::names,
};

/// Holds an installation until all that was made for it is gone, its webhook configurations first.
pub const FINALIZER: &str = "meshwright.dev/webhooks";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the MeshInstallation cannot be read: {0}")]
    Unreadable(#[from] Box<InvalidObject>),
    #[error("the MeshInstallation is not valid: {}", sentences(.0))]
    Invalid(Vec<Diagnostic>),
    #[error("cannot read what the installation depends on: {0}")]
    Dereference(#[source] Box<kube::Error>),
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
            Self::Dereference(_) => "ReadFailed",
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

/// Label selector of all that was made for an installation.
pub fn selector(installation: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{INSTALLATION}={installation}")
}

/// Brings the cluster to what the installation says.
pub async fn reconcile(
    object: Arc<DeserializeGuard<MeshInstallation>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let installation = object.0.as_ref().map_err(|error| Error::from(Box::new(error.clone())))?;
    if let Some(again) = remove(installation, &context).await? {
        return Ok(again);
    }
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
        _ => Action::requeue(context.backoff.next(&name)),
    }
}

async fn converge(installation: &MeshInstallation, context: &Context) -> Result<Action, Error> {
    match steps(installation, context).await {
        Ok(outcome) => {
            announce_changes(installation, context, &outcome.changes, "Applied").await;
            announce_changes(installation, context, &outcome.removed, "Removed").await;
            status::write(context, installation, outcome.status).await?;
            Ok(outcome.again)
        }
        Err(error) => {
            // Whoever looks at the object sees why nothing moves; the first error counts.
            let told = status::failed(installation, &error);
            if let Err(error) = status::write(context, installation, told).await {
                tracing::warn!(%error, "the failure could not be written to the status");
            }
            Err(error)
        }
    }
}

struct Outcome {
    changes: Changes,
    removed: Changes,
    status: status::Report,
    again: Action,
}

async fn steps(installation: &MeshInstallation, context: &Context) -> Result<Outcome, Error> {
    let _turn = context.turn.lock().await;
    // Needs a client.
    let inputs = dereference::dereference(installation, context).await?;
    // Pure.
    let valid = validate::validate(installation, inputs, &context.platform)?;
    let objects = build::build(&valid);
    // Need a client.
    let (applied, changes) = objects.apply(&context.client).await?;
    let removed = applied.prune(&context.client, &selector(&valid.name)).await?;
    let proxies = context.fleet.borrow().get(&valid.revision).cloned().unwrap_or_default();
    let mut status = status::report(installation, &valid, &applied, proxies);
    // Not a part of Ready: what is newer serves what this operator knows.
    status.findings.push(context.definitions.borrow().finding());
    let again = match &valid.tags.kept[..] {
        [] => Action::await_change(),
        // Who takes them over does not tell us.
        _ => Action::requeue(handover::LOOK_AGAIN),
    };
    Ok(Outcome { changes, removed, status, again })
}

/// Brings the removal of an installation that was deleted one step on. Says when to go on; nothing for
/// one that is gone, or that stays.
async fn remove(
    installation: &MeshInstallation,
    context: &Context,
) -> Result<Option<Action>, Error> {
    let is_ours = installation.finalizers().iter().any(|name| name == FINALIZER);
    if !names::is_leaving(installation) || !is_ours {
        return Ok(None);
    }
    let _turn = context.turn.lock().await;
    let mut changes = Changes::default();
    let namespace = &context.platform.namespace;
    let step = removal::proceed(&context.client, namespace, installation, &mut changes).await;
    announce_changes(installation, context, &changes, "Removed").await;
    let Some(waits) = step? else { return Ok(None) };
    status::write(context, installation, removal::report(installation, &waits)).await?;
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
