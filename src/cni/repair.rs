//! Pods that started before the daemon could redirect them: before it was there, while it was
//! upgraded, or while another project's configuration was without our plugin. Their init container
//! holds them, so they are redirected in place; a pod whose namespace cannot be found is made anew.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
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
/// How long a pod may wait before it is deleted although its namespace is there: what the daemon before
/// this one did shows in its status only by then.
const DELETE_AFTER: Duration = Duration::from_secs(5);
/// How long a namespace may be missing: the runtime may not have mounted it yet.
const MISSING_AFTER: Duration = Duration::from_secs(30);

/// What to do about a waiting pod. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Redirect,
    Delete,
    Wait,
    /// Nothing would make it anew, so it is left and said.
    GiveUp,
}

/// Whether a waiting pod's namespace was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    No,
    Untouched,
    /// Redirection was tried in it.
    Tried,
}

fn step(policy: Policy, found: Found, pod: &PodView, waited: Duration) -> Step {
    let held = matches!(pod.progress, Progress::Waiting { .. });
    let delete = if pod.controlled { Step::Delete } else { Step::GiveUp };
    match (policy, found) {
        (Policy::Delete, Found::Untouched) if held && waited >= DELETE_AFTER => delete,
        (Policy::None, _) | (Policy::Delete, Found::Untouched) => Step::Wait,
        // That it was tried and failed is no reason to think that another pod would fare better.
        (_, Found::Untouched | Found::Tried) => Step::Redirect,
        (_, Found::No) if held && waited >= MISSING_AFTER => delete,
        (_, Found::No) => Step::Wait,
    }
}

/// Repairs pods for as long as the process lives.
pub async fn run(redirector: Arc<Redirector>, policy: Policy) {
    let mut changes = redirector.pods.changes();
    let mut since: HashMap<String, Instant> = HashMap::new();
    loop {
        let waiting = redirector.pods.waiting();
        since.retain(|uid, _| waiting.iter().any(|pod| pod.uid == *uid));
        let passes = waiting.into_iter().map(|pod| {
            let waited = since.entry(pod.uid.clone()).or_insert_with(Instant::now).elapsed();
            let redirector = redirector.clone();
            async move { pass(&redirector, policy, &pod, waited).await }
        });
        let passes: Vec<_> = passes.collect();
        futures::stream::iter(passes).buffer_unordered(AT_ONCE).collect::<()>().await;
        redirector.ledger.retain(Path::exists);
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// One look at one waiting pod.
async fn pass(redirector: &Redirector, policy: Policy, pod: &PodView, waited: Duration) {
    let arguments = match &pod.decision {
        Decision::Redirect(arguments) => arguments,
        Decision::Invalid(reason) => {
            let warning = EventType::Warning;
            return redirector.tell(pod, warning, "InvalidRedirection", reason.clone()).await;
        }
        Decision::Leave(_) => return,
    };
    let namespace = find(redirector, pod).await;
    let found = match &namespace {
        None => Found::No,
        Some(namespace) if redirector.ledger.knows(namespace) => Found::Tried,
        Some(_) => Found::Untouched,
    };
    match (step(policy, found, pod, waited), &namespace) {
        (Step::Redirect, Some(namespace)) => {
            if redirector.ledger.claim(namespace, pod.restarts()) {
                redirect(redirector, pod, namespace, arguments).await;
            }
        }
        (Step::Delete, _) => delete(redirector, pod).await,
        (Step::GiveUp, _) => give_up(redirector, pod).await,
        (Step::Redirect | Step::Wait, _) => {}
    }
}

/// The namespace of a pod: as the plugin noted it, else the one with the pod's address.
async fn find(redirector: &Redirector, pod: &PodView) -> Option<PathBuf> {
    let noted = redirector.notes.all().into_iter();
    let noted = noted.filter(|sandbox| sandbox.belongs_to(&pod.namespace, &pod.name, &pod.uid));
    let existing: Vec<PathBuf> =
        noted.filter_map(|sandbox| redirector.namespaces.named(&sandbox.netns)).collect();
    // A sandbox that was made anew is the one in which nothing was tried yet.
    let untouched = existing.iter().find(|namespace| !redirector.ledger.knows(namespace));
    if let Some(namespace) = untouched.or_else(|| existing.first()) {
        return Some(namespace.clone());
    }
    // Before its containers start, the plugin may still be about to ask.
    if pod.progress == Progress::Starting || pod.addresses.is_empty() {
        return None;
    }
    redirector.namespaces.with_address(&pod.addresses).await
}

async fn redirect(redirector: &Redirector, pod: &PodView, namespace: &Path, arguments: &[String]) {
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

    const SOON: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_mins(1);

    fn pod(progress: Progress, controlled: bool) -> PodView {
        PodView {
            namespace: "shop".to_owned(),
            name: "cart-0".to_owned(),
            uid: "u1".to_owned(),
            addresses: Vec::new(),
            decision: Decision::Redirect(Vec::new()),
            progress,
            controlled,
            ending: false,
        }
    }

    fn held() -> PodView {
        pod(Progress::Waiting { restarts: 0 }, true)
    }

    #[test]
    fn a_pod_is_redirected_where_it_is() {
        for pod in [held(), pod(Progress::Starting, false)] {
            for found in [Found::Untouched, Found::Tried] {
                assert_eq!(step(Policy::Program, found, &pod, SOON), Step::Redirect);
            }
        }
    }

    #[test]
    fn a_pod_without_a_namespace_is_made_anew_after_a_while() {
        let (starting, bare) =
            (pod(Progress::Starting, true), pod(Progress::Waiting { restarts: 1 }, false));
        for policy in [Policy::Program, Policy::Delete] {
            assert_eq!(step(policy, Found::No, &held(), SOON), Step::Wait);
            assert_eq!(step(policy, Found::No, &held(), LATE), Step::Delete);
            assert_eq!(step(policy, Found::No, &bare, LATE), Step::GiveUp);
            assert_eq!(step(policy, Found::No, &starting, LATE), Step::Wait);
        }
    }

    #[test]
    fn deleting_spares_pods_whose_redirection_was_tried_or_is_about_to_be() {
        let starting = pod(Progress::Starting, true);
        let bare = pod(Progress::Waiting { restarts: 0 }, false);
        assert_eq!(step(Policy::Delete, Found::Untouched, &held(), LATE), Step::Delete);
        assert_eq!(step(Policy::Delete, Found::Untouched, &bare, LATE), Step::GiveUp);
        assert_eq!(step(Policy::Delete, Found::Untouched, &held(), SOON), Step::Wait);
        assert_eq!(step(Policy::Delete, Found::Untouched, &starting, LATE), Step::Wait);
        assert_eq!(step(Policy::Delete, Found::Tried, &held(), LATE), Step::Redirect);
    }

    #[test]
    fn no_repair_is_none() {
        for found in [Found::No, Found::Untouched, Found::Tried] {
            assert_eq!(step(Policy::None, found, &held(), LATE), Step::Wait);
        }
    }
}
