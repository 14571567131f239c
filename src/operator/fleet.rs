//! Counts the proxies of each revision, and names pods whose injection somebody broke.

pub mod proxy;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        events::{Event, EventType},
        watcher,
    },
};
use tokio::sync::watch;

use super::context::Context;
use crate::{
    api::meshwright::{ProxyCount, labels::REVISION},
    webhook::inject::damage,
};

/// A rollout changes many pods; the count is for people to read.
const SETTLE: Duration = Duration::from_secs(1);

type Counts = BTreeMap<String, ProxyCount>;

/// Follows all pods that carry a proxy, until dropped.
pub async fn follow(context: &Context, counts: &watch::Sender<Counts>) {
    let pods = Api::<Pod>::all(context.client.clone());
    let config = watcher::Config::default().labels(REVISION);
    let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut fleet = Fleet::default();
    loop {
        // Everything that comes within a moment is counted once.
        let pause = tokio::time::sleep(SETTLE);
        tokio::pin!(pause);
        let Ok(Some(event)) = events.try_next().await else { continue };
        announce_damage(context, &fleet, &event).await;
        fleet.see(event);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(event) = events.next() => if let Ok(event) = event {
                    announce_damage(context, &fleet, &event).await;
                    fleet.see(event);
                },
            }
        }
        let now = fleet.counts();
        counts.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

/// Tells of a pod that cannot work, once, when it is seen for the first time.
async fn announce_damage(context: &Context, fleet: &Fleet, event: &watcher::Event<Pod>) {
    let Some((pod, damage)) = fleet.newly_damaged(event) else { return };
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

/// Revision and readiness of each pod, by its uid.
#[derive(Default)]
struct Fleet {
    pods: HashMap<String, (String, bool)>,
    /// A list in progress, which replaces `pods`.
    listing: HashMap<String, (String, bool)>,
}

impl Fleet {
    fn see(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => put(&mut self.listing, &pod),
            watcher::Event::InitDone => self.pods = std::mem::take(&mut self.listing),
            watcher::Event::Apply(pod) => put(&mut self.pods, &pod),
            watcher::Event::Delete(pod) => {
                self.pods.remove(&pod.uid().unwrap_or_default());
            }
        }
    }

    /// The pod of this event, if it is a new one that somebody broke.
    fn newly_damaged<'a>(&self, event: &'a watcher::Event<Pod>) -> Option<(&'a Pod, String)> {
        let (watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else {
            return None;
        };
        let is_known = self.pods.contains_key(pod.metadata.uid.as_deref()?);
        (!is_known).then(|| damage(pod)).flatten().map(|damage| (pod, damage))
    }

    fn counts(&self) -> Counts {
        let mut counts = BTreeMap::<_, (i32, i32)>::new();
        for (revision, ready) in self.pods.values() {
            let (all, ready_ones) = counts.entry(revision.clone()).or_default();
            *all += 1;
            *ready_ones += i32::from(*ready);
        }
        let count = |(revision, (total, ready))| {
            (revision, ProxyCount { total, ready, ..ProxyCount::default() }.summarized())
        };
        counts.into_iter().map(count).collect()
    }
}

fn put(pods: &mut HashMap<String, (String, bool)>, pod: &Pod) {
    let uid = pod.uid().unwrap_or_default();
    let status = pod.status.as_ref();
    let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    match pod.labels().get(REVISION) {
        Some(revision) if !over => {
            let conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
            let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
            pods.insert(uid, (revision.clone(), ready));
        }
        _ => drop(pods.remove(&uid)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, phase: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": uid, "name": uid, "labels": {REVISION: "default"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn names_a_pod_whose_proxy_lost_its_restart_policy_once() {
        let mut broken = pod("a", "Pending", "False");
        broken.metadata.annotations =
            Some([("meshwright.dev/status".to_owned(), "{}".to_owned())].into());
        broken.spec = serde_json::from_value(json!({
            "containers": [{"name": "web"}],
            "initContainers": [{"name": "meshwright-proxy"}],
        }))
        .unwrap();
        let mut fleet = Fleet::default();
        let event = watcher::Event::Apply(broken);
        let (_, damage) = fleet.newly_damaged(&event).unwrap();
        assert!(damage.contains("restartPolicy: Always"), "{damage}");
        fleet.see(event.clone());
        assert!(fleet.newly_damaged(&event).is_none());
        let fine = watcher::Event::Apply(pod("b", "Running", "True"));
        assert!(fleet.newly_damaged(&fine).is_none());
    }

    #[test]
    fn counts_what_runs() {
        let mut fleet = Fleet::default();
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(pod("a", "Running", "True")),
            watcher::Event::InitApply(pod("b", "Running", "False")),
            watcher::Event::InitDone,
            watcher::Event::Apply(pod("c", "Succeeded", "False")),
        ] {
            fleet.see(event);
        }
        assert_eq!(fleet.counts()["default"].summary, "1/2");
        fleet.see(watcher::Event::Delete(pod("a", "Running", "True")));
        assert_eq!(fleet.counts()["default"].summary, "0/1");
    }
}
