//! The connected proxies: who may connect as whom, what each is to have, what each refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::config::core::v3::Node;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    agents::{AgentStream, Agents},
    member::{Facts, Member, Waiting},
    metrics::Metrics,
    node,
    world::{Own, World},
};
use crate::{
    ca::Certificate,
    identity::SpiffeId,
    mesh::{ProxyNode, ProxyRole},
    plan::{self, ScopeKey},
    watch::{
        Key,
        snapshot::{Pod, Table},
    },
    xds::{
        Rejection, ResourceType, View,
        server::{Peer, Proxy, Refusal, Source},
    },
};

/// All proxies of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: Arc<ArcSwapOption<World>>,
    /// Streams beside those of proxies.
    agents: Arc<Agents>,
    /// The world's sequence; streams wake by it.
    updates: watch::Sender<u64>,
    members: Mutex<BTreeMap<u64, Member>>,
    /// Counts changes of what anybody refuses.
    refusals: watch::Sender<u64>,
    metrics: Metrics,
}

/// What one proxy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub proxy: Key,
    pub rejection: Rejection,
}

impl Fleet {
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            world: Arc::default(),
            agents: Arc::default(),
            updates: watch::Sender::new(0),
            members: Mutex::default(),
            refusals: watch::Sender::new(0),
            metrics,
        }))
    }

    /// Puts a world in force: every stream of a proxy wakes, and those of agents if hosts changed.
    pub fn publish(&self, world: World) {
        let sequence = world.sequence;
        let names = world.names.clone();
        let before = self.0.world.swap(Some(Arc::new(world)));
        self.0.updates.send_replace(sequence);
        if before.is_none_or(|before| !Arc::ptr_eq(&before.names, &names)) {
            self.0.agents.wake_all();
        }
    }

    /// Takes note of the pods as they are now: agents of those in `finished` wake.
    pub fn set_pods(&self, pods: &Table<Pod>, finished: &BTreeSet<Key>) {
        self.0.agents.set_pods(pods, finished);
    }

    pub fn world(&self) -> Option<Arc<World>> {
        self.0.world.load_full()
    }

    /// Changes with every world.
    pub fn updates(&self) -> watch::Receiver<u64> {
        self.0.updates.subscribe()
    }

    /// The plans that connected sidecars use.
    pub fn scopes(&self) -> Vec<ScopeKey> {
        let Some(world) = self.0.world.load_full() else { return Vec::new() };
        let members = self.0.members();
        let sidecars = members.values().filter(|m| m.node.role == ProxyRole::Sidecar);
        let mut scopes: Vec<_> =
            sidecars.map(|m| plan::scope(&world.config.mesh, &m.node)).collect();
        scopes.sort();
        scopes.dedup();
        scopes
    }

    /// Changes whenever [`Fleet::refused`] may.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.0.refusals.subscribe()
    }

    /// Everything that connected proxies refuse.
    pub fn refused(&self) -> Vec<Refused> {
        let members = self.0.members();
        let of = |member: &Member| {
            let proxy = member.node.key.clone();
            let rejections = member.rejections.iter().cloned();
            rejections.map(|r| Refused { proxy: proxy.clone(), rejection: r }).collect::<Vec<_>>()
        };
        members.values().flat_map(of).collect()
    }

    /// Looks at all connected proxies. No stream opens or ends meanwhile.
    pub(super) fn with_members<T>(&self, look: impl FnOnce(&BTreeMap<u64, Member>) -> T) -> T {
        look(&self.0.members())
    }
}

impl Inner {
    fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Fleet {
    fn connect(&self, node: &Node, peer: &Peer) -> Result<Box<dyn Proxy>, Refusal> {
        let claimed = node::parse(node).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let Some(world) = self.0.world.load_full() else {
            return Err(Refusal::NotReady("the control plane has not seen the cluster yet".into()));
        };
        let resolved = node::resolve(&claimed, &world.config.snapshot.pods);
        let mut certificate = None;
        if let Peer::Tls(certificates) = peer {
            let leaf = certificates.0.first();
            certificate =
                leaf.and_then(|der| Certificate::from_der(der, "the client certificate").ok());
            let identity = certificate.as_ref().and_then(Certificate::identity);
            admit(&resolved, identity, &world.config.mesh.config.trust_domain)?;
        }
        if node::is_agent(node) {
            let Inner { agents, world, metrics, .. } = &*self.0;
            let (agents, world, metrics) = (agents.clone(), world.clone(), metrics.clone());
            return Ok(Box::new(AgentStream::new(agents, world, metrics, resolved.key)));
        }
        let facts = Facts::new(node, certificate.as_ref());
        Ok(Box::new(Connection::new(self.0.clone(), claimed, resolved, facts, &world)))
    }
}

/// Whether whoever holds `identity` may be `node`.
fn admit(node: &ProxyNode, identity: Option<&SpiffeId>, trust_domain: &str) -> Result<(), Refusal> {
    let Some(identity) = identity else {
        let sentence =
            "a client certificate of the mesh with exactly one workload identity is needed";
        return Err(Refusal::Unauthenticated(sentence.to_owned()));
    };
    let (pod, account) = (&node.key, &node.service_account);
    let denied = |why: String| {
        Err(Refusal::Denied(format!(
            "{identity} may not get the configuration of pod {pod}: {why}"
        )))
    };
    if identity.trust_domain != trust_domain {
        return denied(format!("the trust domain of this mesh is {trust_domain}"));
    }
    if identity.namespace != *pod.namespace {
        return denied("the pod is in another namespace".to_owned());
    }
    if identity.service_account != **account {
        return denied(format!("the pod runs as service account {account:?}"));
    }
    Ok(())
}

struct Connection {
    fleet: Arc<Inner>,
    id: u64,
    claimed: ProxyNode,
    resolved: (u64, ProxyNode),
    own: Option<Own>,
    /// The oldest change that it was sent and has not acknowledged.
    since: Option<Instant>,
    newest: Instant,
    /// `since`, for others to see.
    waiting: Arc<Waiting>,
    reconnect_at: Option<Instant>,
}

impl Connection {
    fn new(
        fleet: Arc<Inner>,
        claimed: ProxyNode,
        resolved: ProxyNode,
        facts: Facts,
        world: &World,
    ) -> Self {
        let now = Instant::now();
        let waiting = Arc::new(Waiting::new(now));
        let reconnect_in = facts.reconnect_in(&resolved.key, OffsetDateTime::now_utc());
        fleet.metrics.connected(resolved.role, 1);
        let mut members = fleet.members();
        let id = members.last_key_value().map_or(0, |(last, _)| last + 1);
        let member = Member {
            node: resolved.clone(),
            rejections: Vec::new(),
            facts,
            waiting: waiting.clone(),
        };
        members.insert(id, member);
        drop(members);
        tracing::info!(proxy = %resolved.key, role = ?resolved.role, "connected");
        let resolved = (world.config.generation, resolved);
        Self {
            fleet,
            id,
            claimed,
            resolved,
            own: None,
            since: None,
            newest: now,
            waiting,
            reconnect_at: reconnect_in.map(|pause| now + pause),
        }
    }
}

impl Proxy for Connection {
    fn updates(&self) -> watch::Receiver<u64> {
        self.fleet.updates.subscribe()
    }

    fn view(&mut self) -> View {
        let Some(world) = self.fleet.world.load_full() else { return View::default() };
        if self.resolved.0 != world.config.generation {
            let resolved = node::resolve(&self.claimed, &world.config.snapshot.pods);
            if resolved != self.resolved.1
                && let Some(member) = self.fleet.members().get_mut(&self.id)
            {
                member.node.clone_from(&resolved);
            }
            self.resolved = (world.config.generation, resolved);
        }
        self.newest = if self.own.is_some() { world.since } else { Instant::now() };
        world.view(&self.resolved.1, &mut self.own)
    }

    fn rejected(&mut self, rejections: Vec<Rejection>) {
        for rejection in &rejections {
            let Rejection { kind, name, message, .. } = rejection;
            tracing::warn!(proxy = %self.claimed.key, ?kind, %name, %message, "rejected");
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(member) = self.fleet.members().get_mut(&self.id) {
            let before = count(member.rejections.len());
            self.fleet.metrics.rejected(count(rejections.len()) - before);
            member.rejections = rejections;
        }
        self.fleet.refusals.send_modify(|changes| *changes += 1);
    }

    fn sent(&mut self, kind: ResourceType, bytes: usize) {
        if self.since.is_none() {
            self.since = Some(self.newest);
            self.waiting.begin(Instant::now());
        }
        self.fleet.metrics.sent(kind, bytes);
    }

    fn reconnect_at(&self) -> Option<Instant> {
        self.reconnect_at
    }

    fn settled(&mut self) {
        if let Some(since) = self.since.take() {
            self.waiting.end();
            self.fleet.metrics.converged(since.elapsed());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.fleet.metrics.connected(self.claimed.role, -1);
        let member = self.fleet.members().remove(&self.id);
        let refused = member.map_or(0, |member| member.rejections.len());
        if refused > 0 {
            self.fleet.metrics.rejected(-i64::try_from(refused).unwrap_or(i64::MAX));
            self.fleet.refusals.send_modify(|changes| *changes += 1);
        }
        tracing::info!(proxy = %self.claimed.key, "disconnected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Interception;

    fn node() -> ProxyNode {
        ProxyNode {
            role: ProxyRole::Sidecar,
            key: Key::new("shop", "cart-0"),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            service_account: "cart".into(),
            workload: "cart".into(),
            interception: Interception::Redirect,
        }
    }

    #[test]
    fn a_certificate_is_good_for_pods_of_its_own_account_only() {
        let check = |identity: &str| {
            let identity = (!identity.is_empty()).then(|| identity.parse().unwrap());
            admit(&node(), identity.as_ref(), "cluster.local")
        };
        assert_eq!(check("spiffe://cluster.local/ns/shop/sa/cart"), Ok(()));
        assert!(matches!(check(""), Err(Refusal::Unauthenticated(_))));
        for other in [
            "spiffe://elsewhere/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/bank/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/web",
        ] {
            assert!(matches!(check(other), Err(Refusal::Denied(_))), "{other}");
        }
    }

    #[test]
    fn the_refusal_is_a_sentence() {
        let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let refusal = admit(&node(), Some(&identity), "cluster.local").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "spiffe://cluster.local/ns/shop/sa/web may not get the configuration of pod \
             shop/cart-0: the pod runs as service account \"cart\""
        );
    }
}
