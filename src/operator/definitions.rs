//! Keeps the CustomResourceDefinitions of the cluster at the operator's version: the chart brings them
//! before the operator's first start, the operator upgrades them from then on. Objects that are stored
//! in a version that is not the stored one any more are written anew ([`migrate`]).
//!
//! Never back: what a newer operator left is served as it is, and reported. Istio's own definitions
//! and those of the Gateway API project are left alone.

pub mod decide;
pub mod migrate;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time::Instant};

use self::decide::{Decision, decide};
use super::{conditions::Finding, context::Context};
use crate::api::crd::Source;

/// What failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// Several definitions change together.
const GATHER: Duration = Duration::from_millis(500);
/// For other API servers to take notice of a definition, after one has.
const SETTLE: Duration = Duration::from_secs(1);

/// What became of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not in the cluster: a part of the API that nobody has asked for.
    Absent,
    /// Of somebody else, or kept by them.
    LeftAlone,
    Current,
    /// Of this version, which is newer than the operator.
    Newer(String),
    Failed(String),
}

/// What became of each definition, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<(String, State)>);

impl Report {
    /// As a condition of each installation.
    pub fn finding(&self) -> Finding {
        const KIND: &str = "DefinitionsReady";
        let failed = self.0.iter().filter_map(|(name, state)| match state {
            State::Failed(error) => Some(format!("{name}: {error}")),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        if !failed.is_empty() {
            return Finding::new(KIND, false, "UpgradeFailed", failed.join("; "));
        }
        let newer = self.0.iter().filter_map(|(name, state)| match state {
            State::Newer(version) => Some(format!("{name} is of {version}")),
            _ => None,
        });
        let newer: Vec<_> = newer.collect();
        if !newer.is_empty() {
            let message = format!(
                "{}, newer than this operator, which is {}: what they add has no effect; upgrade the operator",
                newer.join(", "),
                env!("CARGO_PKG_VERSION")
            );
            return Finding::new(KIND, false, "NewerDefinitions", message);
        }
        if self.0.is_empty() {
            let message = "the definitions have not been looked at yet".to_owned();
            return Finding { kind: KIND, status: None, reason: "NotChecked", message };
        }
        let left: Vec<_> = self
            .0
            .iter()
            .filter(|(_, state)| *state == State::LeftAlone)
            .map(|(name, _)| name.as_str())
            .collect();
        let message = if left.is_empty() {
            "the definitions are of the operator's version".to_owned()
        } else {
            format!("served as they are, since others keep them: {}", left.join(", "))
        };
        Finding::new(KIND, true, "Current", message)
    }
}

/// The definitions that the operator keeps, where they are ours.
pub fn ours() -> Vec<CustomResourceDefinition> {
    [Source::Meshwright, Source::Istio].into_iter().flat_map(Source::definitions).collect()
}

/// Looks at all definitions now and whenever one of them changes, until `stop` resolves.
pub async fn run(
    context: Arc<Context>,
    reports: watch::Sender<Report>,
    stop: impl Future<Output = ()>,
) {
    let api = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(context.client.clone());
    let ours = ours();
    let is_ours = |name: &str| ours.iter().any(|crd| crd.name_any() == name);
    let mut events = std::pin::pin!(
        watcher(api, watcher::Config::default()).default_backoff().touched_objects()
    );
    let mut stop = std::pin::pin!(stop);
    let mut due = Some(Instant::now());
    loop {
        let sleep = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
        tokio::select! {
            () = &mut stop => return,
            Some(event) = events.next() => match event {
                Ok(crd) if is_ours(&crd.name_any()) => {
                    due.get_or_insert_with(|| Instant::now() + GATHER);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot watch CustomResourceDefinitions"),
            },
            () = sleep, if due.is_some() => {
                let report = pass(&context.client, &ours, SETTLE).await;
                let failed = report.0.iter().any(|(_, state)| matches!(state, State::Failed(_)));
                due = failed.then(|| Instant::now() + RETRY);
                reports.send_if_modified(|before| {
                    let changed = *before != report;
                    *before = report;
                    changed
                });
            }
        }
    }
}

/// Brings each definition to where it should be. One that fails does not keep the others.
pub async fn pass(
    client: &kube::Client,
    ours: &[CustomResourceDefinition],
    settle: Duration,
) -> Report {
    let mut report = Report::default();
    for crd in ours {
        let state = one(client, crd, settle).await.unwrap_or_else(|error| {
            tracing::warn!(definition = crd.name_any(), %error, "definition not upgraded");
            State::Failed(error.to_string())
        });
        report.0.push((crd.name_any(), state));
    }
    report
}

async fn one(
    client: &kube::Client,
    ours: &CustomResourceDefinition,
    settle: Duration,
) -> Result<State, migrate::Error> {
    let name = ours.name_any();
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let live = api.get_opt(&name).await.map_err(migrate::failed("read the definition"))?;
    let Some(live) = live else { return Ok(State::Absent) };
    let state = match decide(ours, &live) {
        Decision::LeaveAlone => State::LeftAlone,
        Decision::Newer(version) => State::Newer(version),
        Decision::Keep => State::Current,
        Decision::Upgrade(steps) => {
            migrate::bring_about(client, &live, &steps, settle).await?;
            State::Current
        }
    };
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_first() {
        let report = |states: &[State]| {
            let named = states.iter().map(|state| ("a.b".to_owned(), state.clone())).collect();
            let finding = Report(named).finding();
            (finding.status, finding.reason, finding.message)
        };
        assert_eq!(report(&[]).1, "NotChecked");
        let (status, reason, _) = report(&[State::Current, State::LeftAlone, State::Absent]);
        assert_eq!((status, reason), (Some(true), "Current"));
        let newer = State::Newer("9.0.0".to_owned());
        let (status, reason, message) = report(&[newer.clone(), State::Current]);
        assert_eq!((status, reason), (Some(false), "NewerDefinitions"));
        assert!(message.starts_with("a.b is of 9.0.0, newer than this operator"), "{message}");
        let failed = State::Failed("forbidden".to_owned());
        assert_eq!(
            report(&[newer, failed]),
            (Some(false), "UpgradeFailed", "a.b: forbidden".to_owned(),)
        );
    }
}
