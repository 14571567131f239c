//! The one task that writes status.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{Patch as KubePatch, PatchParams},
};
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Findings, Patch, patches};
use crate::watch::Key;

/// Field manager of everything that the control plane writes into status.
const FIELD_MANAGER: &str = "meshwright-control-plane";
/// Writes under way at once: status must not crowd out what the API server is there for.
const CONCURRENCY: usize = 8;
/// Findings that follow each other closely are written once.
const GATHER: Duration = Duration::from_millis(50);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// What was last written to each object, and the object's version at that time: until the watch
/// shows the outcome, the same write must not be made again.
type Memory = BTreeMap<(String, Key), (String, Value)>;

/// Writes status as long as this process leads; returns when no findings can come any more.
pub async fn write(
    client: Client,
    mut leader: watch::Receiver<bool>,
    mut findings: watch::Receiver<Findings>,
) {
    let mut memory = Memory::new();
    let mut retry: Option<Duration> = None;
    loop {
        if !*leader.borrow_and_update() {
            // Whoever leads meanwhile may have written something else.
            memory.clear();
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        }
        let latest = findings.borrow_and_update().clone();
        let failed = pass(&client, &latest, &mut memory).await;
        retry = failed.then(|| retry.map_or(FIRST_RETRY, |last| (last * 2).min(LAST_RETRY)));
        tokio::select! {
            changed = findings.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
            changed = leader.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
        }
    }
}

/// Writes what differs; whether something must be tried again.
async fn pass(client: &Client, findings: &Findings, memory: &mut Memory) -> bool {
    let due = due(patches(findings, Timestamp::now()), memory);
    let outcomes: Vec<_> = stream::iter(due)
        .map(|patch| {
            let client = client.clone();
            async move {
                let outcome = apply(client, &patch).await;
                (patch, outcome)
            }
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut failed = false;
    for (patch, outcome) in outcomes {
        match outcome {
            Ok(()) => {
                memory.insert(patch.object(), (patch.resource_version.clone(), patch.timeless()));
            }
            Err(error) => failed |= is_worth_retrying(&patch, &error),
        }
    }
    failed
}

/// The patches that were not made yet; forgets objects that need none.
fn due(patches: Vec<Patch>, memory: &mut Memory) -> Vec<Patch> {
    let needed: BTreeSet<_> = patches.iter().map(Patch::object).collect();
    memory.retain(|object, _| needed.contains(object));
    let made = |patch: &Patch| {
        memory.get(&patch.object()).is_some_and(|(version, body)| {
            *version == patch.resource_version && *body == patch.timeless()
        })
    };
    patches.into_iter().filter(|patch| !made(patch)).collect()
}

async fn apply(client: Client, patch: &Patch) -> kube::Result<()> {
    let api = patch.api(client);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let name = &*patch.key.name;
    let outcome = api.patch_status(name, &params, &KubePatch::Apply(&patch.body)).await;
    match outcome {
        // The object has changed since the snapshot, by its status alone as it may be, of which
        // the snapshot would not tell.
        Err(kube::Error::Api(status)) if status.code == 409 && patch.is_pinned() => {
            let mut patch = patch.clone();
            patch.rebase(&api.get(name).await?);
            api.patch_status(name, &params, &KubePatch::Apply(&patch.body)).await?;
        }
        outcome => {
            outcome?;
        }
    }
    debug!(kind = %patch.resource.kind, object = %patch.key, "status written");
    Ok(())
}

fn is_worth_retrying(patch: &Patch, error: &kube::Error) -> bool {
    let code = match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    match code {
        // It is gone.
        404 => false,
        // The object is not as its own schema wants it; the same body would fail again.
        400 | 422 => {
            warn!(kind = %patch.resource.kind, object = %patch.key, %error, "status refused");
            false
        }
        _ => {
            warn!(kind = %patch.resource.kind, object = %patch.key, %error, "status not written");
            true
        }
    }
}
