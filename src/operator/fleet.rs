//! Counts the proxies of each revision.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use crate::api::meshwright::{ProxyCount, labels::REVISION};

/// A rollout changes many pods; the count is for people to read.
const SETTLE: Duration = Duration::from_secs(1);

type Counts = BTreeMap<String, ProxyCount>;

/// Follows all pods that carry a proxy, until dropped.
pub async fn follow(client: Client, counts: &watch::Sender<Counts>) {
    let pods = Api::<Pod>::all(client);
    let config = watcher::Config::default().labels(REVISION);
    let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut fleet = Fleet::default();
    loop {
        // Everything that comes within a moment is counted once.
        let pause = tokio::time::sleep(SETTLE);
        tokio::pin!(pause);
        let Ok(Some(event)) = events.try_next().await else { continue };
        fleet.see(event);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(event) = events.next() => if let Ok(event) = event { fleet.see(event) },
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

    fn counts(&self) -> Counts {
        let mut counts = BTreeMap::<_, (i32, i32)>::new();
        for (revision, ready) in self.pods.values() {
            let (all, ready_ones) = counts.entry(revision.clone()).or_default();
            *all += 1;
            *ready_ones += i32::from(*ready);
        }
        let count = |(revision, (total, ready))| (revision, ProxyCount::new(ready, total));
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
        assert_eq!(fleet.counts()["default"], ProxyCount::new(1, 2));
        fleet.see(watcher::Event::Delete(pod("a", "Running", "True")));
        assert_eq!(fleet.counts()["default"], ProxyCount::new(0, 1));
    }
}
