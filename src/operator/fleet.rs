//! The fleet: every proxy, its version, the state of its configuration and its certificate.
//!
//! [`table`] knows the pods, from a watch of which each pod is read as a [`pod::InjectedPod`] and kept
//! as a record of a few hundred bytes; [`reports`] knows what control planes say, which
//! [`control_planes`] asks; [`summary`] makes the status of both. Only the leader follows the fleet.

mod connection;
mod control_planes;
pub mod image;
mod metrics;
pub mod pod;
pub mod proxy;
pub mod reports;
pub mod summary;
pub mod table;
pub mod version;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        events::{Event, EventType},
        watcher,
    },
};
use tokio::sync::watch;

pub use self::{image::Wanted, metrics::Metrics, proxy::Proxy, summary::Summary};
use self::{
    pod::InjectedPod,
    reports::{Reports, Source},
    summary::summarize,
    table::Table,
};
use super::context::Context;
use crate::{api::meshwright::labels::REVISION, control_plane::report::Line};

/// A rollout changes many pods; what is made of the fleet is for people to read.
const SETTLE: Duration = Duration::from_secs(1);
/// The least time between two changes of what the status says, however busy the fleet is.
const PAUSE: Duration = Duration::from_secs(4);
/// Pods in one answer of the API server. A page is in memory as a whole, as JSON.
const PAGE: u32 = 100;

/// By revision.
pub type Summaries = BTreeMap<String, Arc<Summary>>;

/// All proxies. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<Known>,
    /// Counts changes of `known`.
    touched: watch::Sender<u64>,
    /// The same when they have settled.
    settled: watch::Sender<u64>,
    summaries: watch::Sender<Summaries>,
    /// File with a token that control planes take for the operator's.
    token: Option<PathBuf>,
    metrics: Metrics,
}

/// What is known, from both sides.
#[derive(Debug, Default)]
struct Known {
    table: Table,
    reports: Reports,
    /// Why control planes are not asked at all.
    mute: Option<&'static str>,
}

impl Known {
    /// Why a proxy of which nothing is said may be connected all the same.
    fn doubt(&self, revision: &str) -> Option<String> {
        self.mute.map(str::to_owned).or_else(|| self.reports.doubt(revision))
    }

    fn is_complete(&self) -> bool {
        self.table.is_listed() && (self.mute.is_some() || self.reports.are_complete())
    }
}

impl Fleet {
    /// `token`: a file with a token that control planes take for the operator's; without one they are
    /// not asked.
    pub fn new(token: Option<PathBuf>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { token, metrics, ..Inner::default() }))
    }

    /// All proxies of a revision, as they are now, in the order of namespaces and pods.
    pub fn proxies(&self, revision: &str) -> Vec<Arc<Proxy>> {
        self.select(revision, |_| true)
    }

    /// Those of them that run another image than they would get now.
    pub fn outdated(&self, revision: &str, wanted: &Wanted) -> Vec<Arc<Proxy>> {
        self.select(revision, |record| !wanted.is_current(&record.image, record.pin.as_deref()))
    }

    fn select(
        &self,
        revision: &str,
        is_wanted: impl Fn(&table::Record) -> bool,
    ) -> Vec<Arc<Proxy>> {
        let known = self.known();
        let has_doubt = known.doubt(revision).is_some();
        let records = known.table.records().filter(|(_, r)| &*r.revision == revision);
        let proxy = |(uid, record): (&str, &table::Record)| {
            let (configuration, ends) = summary::configuration(&known, record, has_doubt);
            Arc::new(record.proxy(uid, configuration, ends))
        };
        let mut proxies: Vec<_> = records.filter(|(_, r)| is_wanted(r)).map(proxy).collect();
        drop(known);
        proxies.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
        proxies
    }

    /// Whether all pods were listed and all control planes asked, so that what is not known of is
    /// not there.
    pub fn is_complete(&self) -> bool {
        self.known().is_complete()
    }

    /// Changes with anything in the fleet, a moment later.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.settled.subscribe()
    }

    /// What installations' statuses are to say; changes every few seconds at most.
    pub fn summaries(&self) -> watch::Receiver<Summaries> {
        self.0.summaries.subscribe()
    }

    /// What the status of an installation is to say. `None` until the fleet is known as a whole.
    pub fn summary(&self, revision: &str, wanted: Wanted) -> Option<Arc<Summary>> {
        let published = self.0.summaries.borrow().get(revision).cloned();
        if let Some(summary) = published.filter(|summary| summary.wanted == wanted) {
            return Some(summary);
        }
        // The installation is not what it was a moment ago.
        let known = self.known();
        known.is_complete().then(|| Arc::new(summarize(&known, revision, wanted)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let outcome = change(&mut self.known());
        self.0.touched.send_modify(|changes| *changes += 1);
        outcome
    }

    fn token(&self) -> Option<&Path> {
        self.0.token.as_deref()
    }

    /// Takes an event of the watch of pods; returns what is broken in a pod that is new.
    pub fn see(&self, event: watcher::Event<InjectedPod>) -> Option<(InjectedPod, String)> {
        let damaged = self.newly_damaged(&event);
        self.change(|known| known.table.see(event));
        damaged
    }

    /// These are the control planes now, with their revisions.
    pub fn set_sources<'a>(&self, sources: impl Iterator<Item = (&'a Source, &'a str)>) {
        self.change(|known| known.reports.set_sources(sources));
    }

    /// A control plane says something.
    pub fn hear(&self, source: &Source, line: Line) {
        self.change(|known| known.reports.hear(source, line));
    }

    fn newly_damaged(&self, event: &watcher::Event<InjectedPod>) -> Option<(InjectedPod, String)> {
        let (watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else {
            return None;
        };
        if self.known().table.knows(pod.metadata.uid.as_deref()?) {
            return None;
        }
        pod.damage().map(|damage| (pod.clone(), damage))
    }
}

/// Forgets the fleet when this replica does not lead any more: others have newer news.
struct Leading<'a>(&'a Fleet);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.change(|known| *known = Known::default());
        self.0.0.summaries.send_replace(Summaries::new());
        self.0.0.metrics.show(&Summaries::new());
    }
}

/// Follows pods and control planes, until dropped.
pub async fn follow(context: &Context) {
    let fleet = &context.fleet;
    let leading = Leading(fleet);
    tokio::join!(
        follow_pods(context),
        control_planes::follow(&context.client, &context.platform.namespace, fleet),
        publish(context),
    );
    drop(leading);
}

/// Events of all pods that carry a revision's label.
pub fn pods(
    client: Client,
) -> impl Stream<Item = watcher::Result<watcher::Event<InjectedPod>>> + Send {
    let config = watcher::Config::default().labels(REVISION).page_size(PAGE);
    watcher(Api::<InjectedPod>::all(client), config).default_backoff()
}

async fn follow_pods(context: &Context) {
    let mut events = std::pin::pin!(pods(context.client.clone()));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some((pod, damage)) = context.fleet.see(event) {
                    announce_damage(context, &pod, damage).await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot watch pods"),
        }
    }
}

/// Tells of a pod that cannot work, once, when it is seen for the first time.
async fn announce_damage(context: &Context, pod: &InjectedPod, damage: String) {
    let namespace = pod.namespace().unwrap_or_default();
    tracing::warn!(namespace, pod = pod.name_any(), damage, "an injected pod is damaged");
    let event = Event {
        type_: EventType::Warning,
        reason: "InjectionDamaged".to_owned(),
        note: Some(damage),
        action: "Injecting".to_owned(),
        secondary: None,
    };
    context.publish(pod, event).await;
}

/// Makes summaries of what changes, not more often than anybody reads them.
async fn publish(context: &Context) {
    let fleet = &context.fleet;
    let (mut touched, mut installations) = (fleet.0.touched.subscribe(), context.changed.clone());
    loop {
        tokio::select! {
            _ = touched.changed() => {}
            Ok(()) = installations.changed() => {}
        }
        tokio::time::sleep(SETTLE).await;
        touched.mark_unchanged();
        fleet.0.settled.send_modify(|changes| *changes += 1);
        if fleet.publish(wanted(context)) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What each installation wants, by revision.
fn wanted(context: &Context) -> Vec<(String, Wanted)> {
    let installations = context.installations.load();
    let wanted = installations.objects.iter().map(|installation| {
        (installation.spec.revision.clone(), Wanted::of(installation, &context.platform))
    });
    // The oldest of a revision comes first, and it is the one that counts.
    wanted.rev().collect()
}

impl Fleet {
    /// Makes new summaries; returns whether they are others than before.
    fn publish(&self, wanted: Vec<(String, Wanted)>) -> bool {
        let known = self.known();
        if !known.is_complete() {
            return false;
        }
        let summary = |(revision, wanted): (String, Wanted)| {
            let summary = Arc::new(summarize(&known, &revision, wanted));
            (revision, summary)
        };
        let summaries: Summaries = wanted.into_iter().map(summary).collect();
        drop(known);
        self.0.metrics.show(&summaries);
        self.0.summaries.send_if_modified(|before| {
            let differ = *before != summaries;
            *before = summaries;
            differ
        })
    }
}

#[cfg(test)]
mod tests;
