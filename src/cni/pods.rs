//! The pods of this node, as the API server tells it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::sync::watch;

use super::decide::PodView;

/// Pods by their uid, kept up to date by [`follow`].
#[derive(Clone)]
pub struct Pods {
    client: Client,
    known: Arc<Mutex<HashMap<String, PodView>>>,
    /// Told after every change; true once all pods have been listed.
    changed: watch::Sender<bool>,
}

impl Pods {
    pub fn new(client: Client) -> Self {
        Self { client, known: Arc::default(), changed: watch::channel(false).0 }
    }

    /// Says that something changed; its value is whether the pods have been listed.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changed.subscribe()
    }

    /// Pods whose traffic is to be redirected, and that have not seen that it is.
    pub fn waiting(&self) -> Vec<PodView> {
        self.known().values().filter(|pod| pod.is_waiting()).cloned().collect()
    }

    /// One pod: as it is known, else as the API server says. The runtime may be ahead of the watch.
    pub async fn get(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<PodView>, kube::Error> {
        if let Some(known) = self.known().get(uid) {
            return Ok(Some(known.clone()));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let view = pods.get_opt(name).await?.map(|pod| PodView::of(&pod));
        Ok(view.filter(|view| uid.is_empty() || view.uid == uid))
    }

    /// Follows the pods of a node for as long as the process lives.
    pub async fn follow(self, node: String) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let events = watcher::watcher(Api::<Pod>::all(self.client.clone()), config);
        let mut events = std::pin::pin!(events.default_backoff());
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event, &mut listed),
                Err(error) => tracing::warn!(%error, "cannot watch the pods of this node"),
            }
        }
    }

    fn apply(&self, event: Event<Pod>, listed: &mut HashMap<String, PodView>) {
        let view = |pod: &Pod| {
            let view = PodView::of(pod);
            (view.uid.clone(), view)
        };
        match event {
            Event::Init => return listed.clear(),
            Event::InitApply(pod) => return listed.extend([view(&pod)]),
            Event::InitDone => *self.known() = std::mem::take(listed),
            Event::Apply(pod) => self.known().extend([view(&pod)]),
            Event::Delete(pod) => {
                self.known().remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
        self.changed.send_replace(true);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, PodView>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
