//! Everything that proxies are to have at one moment. Immutable, but for plans that are made when
//! the first proxy that needs them asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use super::{
    intern::{Interner, Shared},
    names::Names,
};
use crate::{
    diagnostic::Diagnostic,
    envoy,
    mesh::{Mesh, ProxyNode, ProxyRole},
    plan::{self, ScopeKey},
    watch::Snapshot,
    xds::{ResourceSet, ResourceType, View},
};

/// One moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World {
    /// Counts every world.
    pub sequence: u64,
    /// When what it shows became known, for the time until proxies have it.
    pub since: Instant,
    pub config: Arc<Config>,
    pub endpoints: Arc<ResourceSet>,
    /// What agents are told of hosts.
    pub names: Arc<Names>,
}

/// All but the endpoints. Worlds that differ in endpoints alone share it.
#[derive(Debug)]
pub struct Config {
    /// Counts rebuilds.
    pub generation: u64,
    pub mesh: Arc<Mesh>,
    /// What it was made from.
    pub snapshot: Snapshot,
    /// What the mesh stage found.
    diagnostics: Vec<Diagnostic>,
    /// What plans and their encoding found, as far as they were made.
    found: Mutex<BTreeSet<Diagnostic>>,
    scopes: Mutex<BTreeMap<ScopeKey, Arc<OnceLock<Shared>>>>,
    interner: Arc<Interner>,
}

/// What a proxy has for itself; good as long as the generation is the same.
#[derive(Clone, Debug)]
pub struct Own {
    generation: u64,
    node: ProxyNode,
    scope: Option<Shared>,
    alone: Shared,
}

impl Config {
    pub fn new(
        generation: u64,
        (mesh, diagnostics): (Mesh, Vec<Diagnostic>),
        snapshot: Snapshot,
        interner: Arc<Interner>,
    ) -> Self {
        Self {
            generation,
            mesh: Arc::new(mesh),
            snapshot,
            diagnostics,
            found: Mutex::default(),
            scopes: Mutex::default(),
            interner,
        }
    }

    /// What all sidecars of a scope share. The first to ask makes it, others wait for that.
    pub fn outbound(&self, scope: &ScopeKey) -> Shared {
        let cell = {
            let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
            scopes.entry(scope.clone()).or_default().clone()
        };
        cell.get_or_init(|| {
            let (plan, diagnostics) = plan::outbound(&self.mesh, scope);
            self.note(diagnostics);
            self.interner.encoded(envoy::outbound(&plan))
        })
        .clone()
    }

    fn own(&self, node: &ProxyNode) -> Shared {
        let encoded = match node.role {
            ProxyRole::Sidecar => {
                let (plan, diagnostics) = plan::inbound(&self.mesh, node);
                self.note(diagnostics);
                envoy::inbound(&plan)
            }
            ProxyRole::Router => {
                let (plan, diagnostics) = plan::gateway(&self.mesh, node);
                self.note(diagnostics);
                let (encoded, diagnostics) = envoy::gateway(&plan, &self.snapshot.tls_secrets);
                self.note(diagnostics);
                encoded
            }
        };
        self.interner.encoded(encoded)
    }

    fn note(&self, diagnostics: Vec<Diagnostic>) {
        if !diagnostics.is_empty() {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).extend(diagnostics);
        }
    }

    /// Everything that is known to be wrong, or worth a word.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let all: BTreeSet<_> = self.diagnostics.iter().chain(found.iter()).cloned().collect();
        all.into_iter().collect()
    }
}

impl World {
    /// What a proxy is to have. `own` is what this returned for it last time.
    pub fn view(&self, node: &ProxyNode, own: &mut Option<Own>) -> View {
        let current =
            own.take().filter(|own| own.generation == self.config.generation && own.node == *node);
        let current = current.unwrap_or_else(|| Own {
            generation: self.config.generation,
            node: node.clone(),
            scope: (node.role == ProxyRole::Sidecar)
                .then(|| self.config.outbound(&plan::scope(&self.config.mesh, node))),
            alone: self.config.own(node),
        });
        let mut view = View::default().with(ResourceType::Endpoints, &self.endpoints);
        for shared in current.scope.iter().chain([&current.alone]) {
            view.add(ResourceType::Secret, &shared.secrets);
            view.add(ResourceType::Cluster, &shared.clusters);
            view.add(ResourceType::Listener, &shared.listeners);
            view.add(ResourceType::Route, &shared.routes);
        }
        *own = Some(current);
        view
    }
}
