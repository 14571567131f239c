//! One client's side of the protocol as a state machine without I/O: requests and views in,
//! responses out.
//!
//! What the client has is not listed: it is "what the sets that were last sent hold" (`base`, shared
//! with every other session) plus the few names for which that is not so (`held`). An update is
//! then the difference of two shared sets, which is computed once for all sessions.

mod request;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub use request::Request;
pub use verdict::Rejection;

use super::{
    Resource, ResourceType,
    subscription::Subscription,
    view::{Layers, Memo, Names, View, lookup},
};

/// The two forms of the protocol that stream over ADS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Delta,
    StateOfTheWorld,
}

/// What to send, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub variant: Variant,
    pub kind: ResourceType,
    pub nonce: u64,
    pub resources: Vec<Arc<Resource>>,
    /// Names that the client is to drop, or that do not exist. Delta only.
    pub removed: Vec<Arc<str>>,
}

/// What a request or a new view led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub responses: Vec<Response>,
    /// [`Session::rejections`] is not what it was.
    pub rejections_changed: bool,
}

/// What a client has of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It asks, and must hear something whatever it has.
    Unanswered,
    Nothing,
    Version(u64),
    /// It refused the last one and may have one from before.
    Unknown,
}

#[derive(Debug, Default)]
struct TypeState {
    subscription: Subscription,
    base: Layers,
    held: BTreeMap<Arc<str>, Held>,
    /// Sent and not yet acknowledged, oldest first.
    in_flight: VecDeque<(u64, Names)>,
    /// Parts of a refused response, to be sent apart.
    apart: Vec<Names>,
    must_answer: bool,
}

/// The state of each type that the client has spoken of: Envoy never asks for what agents do, nor
/// agents for what Envoy does, and thousands of sessions should not pay for it.
#[derive(Debug, Default)]
struct TypeStates([Option<Box<TypeState>>; ResourceType::ALL.len()]);

impl TypeStates {
    fn get(&self, kind: ResourceType) -> Option<&TypeState> {
        self.0[kind as usize].as_deref()
    }

    fn get_mut(&mut self, kind: ResourceType) -> Option<&mut TypeState> {
        self.0[kind as usize].as_deref_mut()
    }

    /// The state of a type, from now on there.
    fn of(&mut self, kind: ResourceType) -> &mut TypeState {
        self.0[kind as usize].get_or_insert_default()
    }

    fn started(&self) -> impl Iterator<Item = &TypeState> {
        self.0.iter().filter_map(|state| state.as_deref())
    }
}

/// Types whose resources others refer to: they go when nothing does any more.
const REMOVED_LAST: [ResourceType; 3] =
    [ResourceType::Endpoints, ResourceType::Cluster, ResourceType::Secret];

/// A client that acknowledges nothing must not make us remember everything.
const MAX_IN_FLIGHT: usize = 64;

#[derive(Debug, Default)]
struct Pending {
    upserts: Vec<Arc<Resource>>,
    removals: Vec<Arc<str>>,
    /// What `removals` removes, for state-of-the-world responses that must still hold it.
    leaving: Vec<Arc<Resource>>,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    memo: Arc<Memo>,
    view: View,
    types: TypeStates,
    rejected: BTreeMap<(ResourceType, Arc<str>), Rejection>,
    last_nonce: u64,
}

impl Session {
    pub fn new(variant: Variant, memo: Arc<Memo>) -> Self {
        Self {
            variant,
            memo,
            view: View::default(),
            types: TypeStates::default(),
            rejected: BTreeMap::new(),
            last_nonce: 0,
        }
    }

    /// The client's configuration changed, or is known for the first time.
    pub fn on_view(&mut self, view: View) -> Outcome {
        self.view = view;
        let rejections_changed = self.forget_rejections_of_what_is_gone();
        Outcome { responses: self.flush(), rejections_changed }
    }

    /// Returns whether there were any. A resource that comes back is sent again, for only its
    /// rejection knew that the client does not have what was last sent.
    fn forget_rejections_of_what_is_gone(&mut self) -> bool {
        let gone = |(kind, name): &(ResourceType, Arc<str>)| self.view.get(*kind, name).is_none();
        let gone: Vec<_> = self.rejected.keys().filter(|key| gone(key)).cloned().collect();
        for (kind, name) in &gone {
            self.rejected.remove(&(*kind, name.clone()));
            let state = self.types.of(*kind);
            if state.subscription.includes(name) {
                state.held.entry(name.clone()).or_insert(Held::Unknown);
            }
        }
        !gone.is_empty()
    }

    /// The client said something.
    pub fn on_request(&mut self, request: Request) -> Outcome {
        let Some(kind) = request.kind else { return Outcome::default() };
        let stale = self.is_stale(kind, &request);
        let rejections_changed = self.judge(kind, &request);
        // "Resource updates … stale": only the newest response of the state of the world counts.
        if !(stale && self.variant == Variant::StateOfTheWorld) {
            self.subscribe(kind, request);
        }
        Outcome { responses: self.flush(), rejections_changed }
    }

    /// Whether everything that was sent is acknowledged or refused.
    pub fn is_settled(&self) -> bool {
        self.types.started().all(|state| state.in_flight.is_empty())
    }

    /// What the client refuses now, with its words.
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.rejected.values()
    }

    fn is_stale(&self, kind: ResourceType, request: &Request) -> bool {
        let newest =
            self.types.get(kind).and_then(|state| state.in_flight.back()).map(|sent| sent.0);
        request.nonce.is_some_and(|nonce| newest.is_some_and(|newest| nonce < newest))
    }

    fn subscribe(&mut self, kind: ResourceType, request: Request) {
        let (view, memo) = (&self.view, &self.memo);
        let state = self.types.of(kind);
        // Names live as long as the session: take those of the resources, which live anyway.
        let known = |name: String| match view.get(kind, &name) {
            Some(resource) => resource.name.clone(),
            None => Arc::from(name),
        };
        let first = !state.subscription.is_started();
        let named: Vec<Arc<str>> = request.subscribe.into_iter().map(known).collect();
        let covered = state.subscription.clone();
        let change = match self.variant {
            Variant::Delta => {
                let dropped = request.unsubscribe.into_iter().map(known);
                state.subscription.delta(named, dropped, kind.is_wildcard())
            }
            Variant::StateOfTheWorld => state.subscription.replace(named, kind.is_wildcard()),
        };
        if change.became_wildcard {
            state.start_wildcard(&covered);
            state.must_answer = first && request.initial_versions.is_empty();
        }
        if !change.asked.is_empty() || !change.dropped.is_empty() {
            state.subscription.share(|names| memo.share(names));
        }
        for name in &change.dropped {
            state.held.remove(name);
        }
        state.held.extend(change.asked.into_iter().map(|name| (name, Held::Unanswered)));
        if first {
            for (name, version) in request.initial_versions {
                let version = u64::from_str_radix(&version, 16);
                let held = version.map_or(Held::Unanswered, Held::Version);
                if state.subscription.includes(&name) {
                    state.held.insert(known(name), held);
                }
            }
        }
    }

    /// Brings the client from what it has to what it is to have: makes before it breaks.
    fn flush(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        let mut pending: [Pending; ResourceType::ALL.len()] = Default::default();
        for kind in ResourceType::ALL {
            pending[kind as usize] = self.pending(kind);
            if kind == ResourceType::Cluster {
                self.warm(&pending[kind as usize].upserts);
            }
        }
        for kind in ResourceType::ALL {
            let Some(state) = self.types.get_mut(kind) else { continue };
            let must_answer = std::mem::take(&mut state.must_answer);
            for names in std::mem::take(&mut state.apart) {
                responses.extend(self.part(kind, &names));
            }
            let pending = &mut pending[kind as usize];
            let upserts = std::mem::take(&mut pending.upserts);
            let together = !REMOVED_LAST.contains(&kind);
            let removals =
                if together { std::mem::take(&mut pending.removals) } else { Vec::new() };
            if must_answer || !upserts.is_empty() || !removals.is_empty() {
                let leaving = if together { &[][..] } else { &pending.leaving };
                responses.extend(self.respond(kind, upserts, removals, leaving));
            }
        }
        for kind in REMOVED_LAST {
            let removals = std::mem::take(&mut pending[kind as usize].removals);
            if !removals.is_empty() {
                responses.extend(self.respond(kind, Vec::new(), removals, &[]));
            }
        }
        responses
    }

    /// What one type lacks. Afterwards its state says that the client has it.
    fn pending(&mut self, kind: ResourceType) -> Pending {
        // What clients refuse to route anew may still be routed to where it was.
        let keep = self.variant == Variant::Delta
            && matches!(kind, ResourceType::Cluster | ResourceType::Endpoints)
            && self.rejected.keys().any(|(kind, _)| kind.is_routing());
        let Some(state) = self.types.get_mut(kind).filter(|s| s.subscription.is_started()) else {
            return Pending::default();
        };
        let (old, new) = (std::mem::take(&mut state.base), self.view.layers(kind));
        let held = std::mem::take(&mut state.held);
        let mut pending = Pending::default();
        let mut consider = |name: &Arc<str>, has: Held| match lookup(new, name) {
            Some(resource) if has != Held::Version(resource.version) => {
                pending.upserts.push(resource.clone());
            }
            None if keep && matches!(has, Held::Version(_) | Held::Unknown) => {
                state.held.insert(name.clone(), has);
            }
            None if has != Held::Nothing => {
                pending.leaving.extend(lookup(&old, name).cloned());
                pending.removals.push(name.clone());
            }
            _ => {}
        };
        for (name, has) in &held {
            consider(name, *has);
        }
        for name in changed(&self.memo, &old, new) {
            if !held.contains_key(&name) && state.subscription.includes(&name) {
                let has = lookup(&old, &name).map_or(Held::Nothing, |r| Held::Version(r.version));
                consider(&name, has);
            }
        }
        state.base.clone_from(new);
        pending
    }

    /// An updated cluster stays in warming until its endpoints arrive; Envoy does not ask for them
    /// again, since it is subscribed to them already.
    fn warm(&mut self, clusters: &[Arc<Resource>]) {
        let Some(endpoints) = self.types.get_mut(ResourceType::Endpoints) else { return };
        for name in clusters.iter().filter_map(|cluster| cluster.warmed_by.as_ref()) {
            if endpoints.subscription.includes(name) {
                endpoints.held.insert(name.clone(), Held::Unanswered);
            }
        }
    }

    fn respond(
        &mut self,
        kind: ResourceType,
        mut resources: Vec<Arc<Resource>>,
        removed: Vec<Arc<str>>,
        leaving: &[Arc<Resource>],
    ) -> Option<Response> {
        let changed = resources.iter().map(|r| r.name.clone()).chain(removed.iter().cloned());
        let names: Names = changed.collect();
        let mut removed = removed;
        if self.variant == Variant::StateOfTheWorld {
            removed.clear();
            if kind.is_wildcard() {
                resources = self.whole(kind, leaving);
            } else if resources.is_empty() {
                return None;
            }
        }
        self.last_nonce += 1;
        let state = self.types.of(kind);
        if state.in_flight.len() == MAX_IN_FLIGHT {
            state.in_flight.pop_front();
        }
        state.in_flight.push_back((self.last_nonce, names));
        Some(Response { variant: self.variant, kind, nonce: self.last_nonce, resources, removed })
    }

    /// All that the client subscribes to: a state-of-the-world response drops what it does not hold.
    fn whole(&self, kind: ResourceType, leaving: &[Arc<Resource>]) -> Vec<Arc<Resource>> {
        let Some(state) = self.types.get(kind) else { return Vec::new() };
        let subscription = &state.subscription;
        let sets = self.view.layers(kind).iter().flat_map(|set| set.by_name.keys());
        let names: BTreeSet<_> = sets.filter(|name| subscription.includes(name)).collect();
        let present = names.into_iter().filter_map(|name| self.view.get(kind, name));
        present.chain(leaving).cloned().collect()
    }

    /// One part of a refused response, as the view has it now.
    fn part(&mut self, kind: ResourceType, names: &Names) -> Option<Response> {
        let subscription = &self.types.get(kind)?.subscription;
        let subscribed = names.iter().filter(|name| subscription.includes(name));
        let (found, missing): (Vec<_>, Vec<_>) = subscribed
            .map(|name| (name, self.view.get(kind, name)))
            .partition(|(_, r)| r.is_some());
        let resources: Vec<_> = found.into_iter().filter_map(|(_, r)| r.cloned()).collect();
        let removed: Vec<_> = missing.into_iter().map(|(name, _)| name.clone()).collect();
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        self.respond(kind, resources, removed, &[])
    }
}

impl TypeState {
    /// From now on all names count. What it had by name it still has; of the rest it has nothing.
    fn start_wildcard(&mut self, before: &Subscription) {
        let base = std::mem::take(&mut self.base);
        for name in before.names().iter() {
            if let Some(resource) = lookup(&base, name) {
                self.held.entry(name.clone()).or_insert(Held::Version(resource.version));
            }
        }
    }
}

/// Names that differ between two lists of sets.
fn changed(memo: &Memo, old: &Layers, new: &Layers) -> BTreeSet<Arc<str>> {
    let empty = Arc::default();
    (0..old.len().max(new.len()))
        .filter_map(|index| {
            let (old, new) = (old.get(index), new.get(index));
            match (old, new) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => None,
                (None, Some(new)) => Some(new.by_name.keys().cloned().collect()),
                (old, new) => Some(memo.changed(old.unwrap_or(&empty), new.unwrap_or(&empty))),
            }
        })
        .flat_map(|names: Names| names.iter().cloned().collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests;
