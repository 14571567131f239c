//! Streams of agents. They are not proxies: no plan is made for them, nobody counts them, and they
//! wake only for what they are told of: hosts, and the end of their own pod's work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{metrics::Metrics, world::World};
use crate::{
    watch::{
        Key,
        snapshot::{Pod, Table},
    },
    xds::{Rejection, Resource, ResourceSet, ResourceType, View, names, server::Proxy},
};

/// The agents of this process.
#[derive(Debug, Default)]
pub struct Agents(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connected: BTreeMap<u64, Connected>,
    /// As last seen: whether a pod has finished is known before, and without, a new world.
    pods: Table<Pod>,
}

#[derive(Debug)]
struct Connected {
    pod: Key,
    /// Counts what the agent must look at.
    news: watch::Sender<u64>,
}

impl Agents {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts are not what they were.
    pub fn wake_all(&self) {
        for agent in self.state().connected.values() {
            agent.news.send_modify(|news| *news += 1);
        }
    }

    /// These are the pods now, and of some the work has ended, or not after all.
    pub fn set_pods(&self, pods: &Table<Pod>, finished: &BTreeSet<Key>) {
        let mut state = self.state();
        state.pods.clone_from(pods);
        if finished.is_empty() {
            return;
        }
        for agent in state.connected.values().filter(|agent| finished.contains(&agent.pod)) {
            agent.news.send_modify(|news| *news += 1);
        }
    }

    fn has_finished(&self, pod: &Key) -> bool {
        self.state().pods.get(pod).is_some_and(|pod| pod.applications_finished)
    }
}

/// One agent.
pub struct AgentStream {
    agents: Arc<Agents>,
    world: Arc<ArcSwapOption<World>>,
    metrics: Metrics,
    id: u64,
    pod: Key,
    news: watch::Receiver<u64>,
    /// What it was last told of its pod.
    told: Option<(bool, Arc<ResourceSet>)>,
}

impl AgentStream {
    pub fn new(
        agents: Arc<Agents>,
        world: Arc<ArcSwapOption<World>>,
        metrics: Metrics,
        pod: Key,
    ) -> Self {
        let (sender, news) = watch::channel(0);
        let mut state = agents.state();
        let id = state.connected.last_key_value().map_or(0, |(last, _)| last + 1);
        state.connected.insert(id, Connected { pod: pod.clone(), news: sender });
        drop(state);
        tracing::debug!(%pod, "an agent connected");
        Self { agents, world, metrics, id, pod, news, told: None }
    }

    fn own_pod(&mut self) -> Arc<ResourceSet> {
        let finished = self.agents.has_finished(&self.pod);
        if let Some((_, set)) = self.told.as_ref().filter(|(told, _)| *told == finished) {
            return set.clone();
        }
        let message = names::Pod { applications_finished: finished };
        let resource = Resource::encode_nameless(&self.pod.to_string(), &message);
        let set: Arc<ResourceSet> = Arc::new([Arc::new(resource)].into_iter().collect());
        self.told = Some((finished, set.clone()));
        set
    }
}

impl Proxy for AgentStream {
    fn updates(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    fn view(&mut self) -> View {
        let mut view = View::default().with(ResourceType::Pod, &self.own_pod());
        if let Some(world) = self.world.load_full() {
            view.replace(ResourceType::Host, world.names.layers(&self.pod.namespace));
        }
        view
    }

    fn rejected(&mut self, rejections: Vec<Rejection>) {
        for Rejection { kind, name, message, .. } in &rejections {
            tracing::warn!(agent = %self.pod, ?kind, %name, %message, "rejected");
        }
    }

    fn sent(&mut self, kind: ResourceType, bytes: usize) {
        self.metrics.sent(kind, bytes);
    }

    fn settled(&mut self) {}
}

impl Drop for AgentStream {
    fn drop(&mut self) {
        self.agents.state().connected.remove(&self.id);
        tracing::debug!(pod = %self.pod, "an agent disconnected");
    }
}
