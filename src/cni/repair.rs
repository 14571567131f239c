//! Pods that started before the daemon could redirect them: before it was there, while it was
//! upgraded, or while another project's configuration was without our plugin. Their init container
//! holds them, so they are redirected in place; a pod whose namespace cannot be found is made anew.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
    runtime::events::EventType,
};

use super::{
    decide::{Decision, PodView, Progress},
    redirector::Redirector,
};

/// What is done about a pod that was not redirected when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Redirect it where it is; delete it if its namespace cannot be found
    Program,
    /// Delete it, so that it is made anew
    Delete,
    /// Leave it: it waits, and somebody else decides
    None,
}

/// Between two looks that nothing asked for: what failed is tried again.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at any rate.
const PAUSE: Duration = Duration::from_millis(250);
/// Pods at a time.
const AT_ONCE: usize = 4;
/// How long a namespace may be missing: the runtime may not have mounted it yet.
const GRACE: Duration = Duration::from_secs(30);

/// What to do about a waiting pod. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Redirect,
    Delete,
    Wait,
    /// Nothing would make it anew, so it is left and said.
    GiveUp,
}

/// What is known about a waiting pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// `tried`: its redirection was tried when it started, or later.
    Yes { tried: bool },
    /// Since then; nothing if the pod has not come so far that it could be found.
    No { missing: Option<Duration> },
}

fn step(policy: Policy, found: Found, progress: Progress, controlled: bool) -> Step {
    let delete = if controlled { Step::Delete } else { Step::GiveUp };
    let waits = matches!(progress, Progress::Waiting { .. });
    match (policy, found) {
        (Policy::None, _) => Step::Wait,
        (Policy::Delete, Found::Yes { tried: false }) if waits => delete,
        // A request about it is under way.
        (Policy::Delete, Found::Yes { tried: false }) => Step::Wait,
        // That it was tried and failed is no reason to think that another pod would fare better.
        (_, Found::Yes { .. }) => Step::Redirect,
        (_, Found::No { missing: Some(missing) }) if waits && missing >= GRACE => delete,
        (_, Found::No { .. }) => Step::Wait,
    }
}

/// Repairs pods for as long as the process lives.
pub async fn run(redirector: Arc<Redirector>, policy: Policy) {
    let mut changes = redirector.pods.changes();
    let mut missing: HashMap<String, Instant> = HashMap::new();
    loop {
        let waiting = redirector.pods.waiting();
        missing.retain(|uid, _| waiting.iter().any(|pod| pod.uid == *uid));
        let passes = waiting.into_iter().map(|pod| {
            let (redirector, since) = (redirector.clone(), missing.get(&pod.uid).copied());
            async move { pass(&redirector, policy, &pod, since).await }
        });
        let passes = futures::stream::iter(passes).buffer_unordered(AT_ONCE);
        for uid in passes.collect::<Vec<_>>().await.into_iter().flatten() {
            missing.entry(uid).or_insert_with(Instant::now);
        }
        redirector.ledger.retain(|path| path.exists());
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// One look at one waiting pod. Gives its uid if its namespace is missing.
async fn pass(
    redirector: &Redirector,
    policy: Policy,
    pod: &PodView,
    missing: Option<Instant>,
) -> Option<String> {
    let arguments = match &pod.decision {
        Decision::Redirect(arguments) => arguments,
        Decision::Invalid(reason) => {
            redirector.tell(pod, EventType::Warning, "InvalidRedirection", reason.clone()).await;
            return None;
        }
        Decision::Leave(_) => return None,
    };
    let namespace = find(redirector, pod).await;
    let found = match &namespace {
        Some(namespace) => Found::Yes { tried: redirector.ledger.knows(namespace) },
        None => Found::No { missing: missing.map(|since| since.elapsed()) },
    };
    match (step(policy, found, pod.progress, pod.controlled), &namespace) {
        (Step::Redirect, Some(namespace)) => {
            if redirector.ledger.claim(namespace, pod.restarts()) {
                redirect(redirector, pod, namespace, arguments).await;
            }
        }
        (Step::Delete, _) => delete(redirector, pod).await,
        (Step::GiveUp, _) => give_up(redirector, pod).await,
        (Step::Redirect | Step::Wait, _) => {}
    }
    namespace.is_none().then(|| pod.uid.clone())
}

/// The namespace of a pod: as the plugin noted it, else the one with the pod's address.
async fn find(redirector: &Redirector, pod: &PodView) -> Option<PathBuf> {
    let noted = redirector.notes.all().into_iter();
    let noted = noted.filter(|sandbox| sandbox.belongs_to(&pod.namespace, &pod.name, &pod.uid));
    let mut existing = noted.filter_map(|sandbox| redirector.namespaces.named(&sandbox.netns));
    if let Some(namespace) = existing.next() {
        return Some(namespace);
    }
    // Before its containers start, the plugin may still be about to ask.
    if pod.progress == Progress::Starting || pod.addresses.is_empty() {
        return None;
    }
    redirector.namespaces.with_address(&pod.addresses).await
}

async fn redirect(
    redirector: &Redirector,
    pod: &PodView,
    namespace: &std::path::Path,
    arguments: &[String],
) {
    let done = redirector.redirect(namespace, arguments, pod.restarts(), "repair").await;
    let PodView { namespace, name, .. } = pod;
    match done {
        Ok(()) => {
            tracing::info!(namespace, pod = name, "redirected late");
            let note = "It started before the CNI daemon of its node could redirect its traffic; \
                        now it is redirected";
            redirector.tell(pod, EventType::Normal, "RedirectedLate", note.to_owned()).await;
        }
        Err(error) => {
            tracing::warn!(namespace, pod = name, error, "not redirected");
            let note = format!("Its traffic cannot be redirected: {error}");
            redirector.tell(pod, EventType::Warning, "NotRedirected", note).await;
        }
    }
}

async fn delete(redirector: &Redirector, pod: &PodView) {
    let note = "It started before the CNI daemon of its node could redirect its traffic, and is \
                deleted to be made anew";
    redirector.tell(pod, EventType::Warning, "DeletedToRedirect", note.to_owned()).await;
    let pods: Api<Pod> = Api::namespaced(redirector.client.clone(), &pod.namespace);
    let this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let PodView { namespace, name, .. } = pod;
    match pods.delete(name, &DeleteParams::default().preconditions(this)).await {
        Ok(_) => {
            redirector.counts.deletions.inc();
            tracing::info!(namespace, pod = name, "deleted to be made anew");
        }
        Err(error) => tracing::warn!(namespace, pod = name, %error, "cannot delete the pod"),
    }
}

async fn give_up(redirector: &Redirector, pod: &PodView) {
    let note = "It started before the CNI daemon of its node could redirect its traffic. Nothing \
                would make it anew, so it is not deleted: delete and create it again";
    redirector.tell(pod, EventType::Warning, "NotRedirected", note.to_owned()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Progress = Progress::Waiting { restarts: 0 };
    const NEW: Found = Found::Yes { tried: false };
    const TRIED: Found = Found::Yes { tried: true };
    const GONE: Found = Found::No { missing: Some(GRACE) };
    const UNSEEN: Found = Found::No { missing: None };

    #[test]
    fn a_held_pod_is_redirected_where_it_is() {
        assert_eq!(step(Policy::Program, NEW, HELD, true), Step::Redirect);
        assert_eq!(step(Policy::Program, NEW, Progress::Starting, true), Step::Redirect);
        assert_eq!(step(Policy::Program, TRIED, HELD, false), Step::Redirect);
    }

    #[test]
    fn a_pod_without_a_namespace_is_made_anew_after_a_while() {
        let soon = Found::No { missing: Some(GRACE / 2) };
        assert_eq!(step(Policy::Program, UNSEEN, HELD, true), Step::Wait);
        assert_eq!(step(Policy::Program, soon, HELD, true), Step::Wait);
        assert_eq!(step(Policy::Program, GONE, HELD, true), Step::Delete);
        assert_eq!(step(Policy::Program, GONE, HELD, false), Step::GiveUp);
        assert_eq!(step(Policy::Program, GONE, Progress::Starting, true), Step::Wait);
    }

    #[test]
    fn deleting_spares_pods_whose_redirection_was_tried() {
        assert_eq!(step(Policy::Delete, NEW, HELD, true), Step::Delete);
        assert_eq!(step(Policy::Delete, NEW, HELD, false), Step::GiveUp);
        assert_eq!(step(Policy::Delete, NEW, Progress::Starting, true), Step::Wait);
        assert_eq!(step(Policy::Delete, TRIED, HELD, true), Step::Redirect);
    }

    #[test]
    fn no_repair_is_none() {
        for found in [NEW, TRIED, GONE, UNSEEN] {
            assert_eq!(step(Policy::None, found, HELD, true), Step::Wait);
        }
    }
}
