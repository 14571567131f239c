//! Snapshots in, [`World`]s out. Synchronous and without I/O.
//!
//! Two ways through. [`Engine::endpoints`] re-encodes the endpoints of the services that changed
//! and nothing else. [`Engine::rebuild`] makes all the rest anew; it is a value that runs anywhere,
//! so that endpoints need not wait while it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use super::{
    intern::Interner,
    names::Names,
    world::{Config, World},
};
use crate::{
    envoy,
    mesh::{self, EdsName, EndpointTable, Host, Mesh, ServiceEndpoints},
    plan::ScopeKey,
    watch::{Changes, Snapshot},
    xds::ResourceSet,
};

/// Makes worlds.
#[derive(Debug, Default)]
pub struct Engine {
    world: Option<World>,
    endpoints: EndpointTable,
    /// The sets of endpoints that anything may ask for, by service.
    names: BTreeMap<Host, Vec<EdsName>>,
    /// Endpoints that changed while a rebuild is under way.
    touched: Changes,
    interner: Arc<Interner>,
    generation: u64,
}

/// What [`Engine::endpoints`] did.
#[derive(Debug, Default)]
pub struct EndpointUpdate {
    /// `None` if nothing that anybody can see changed.
    pub world: Option<World>,
    /// Identities or addresses that clusters and listeners hold changed as well.
    pub needs_rebuild: bool,
}

/// A rebuild, ready to run.
#[derive(Debug)]
pub struct Rebuild {
    snapshot: Snapshot,
    generation: u64,
    interner: Arc<Interner>,
    /// Plans to make at once: those in use now.
    scopes: Vec<ScopeKey>,
    known: EndpointTable,
}

/// What a rebuild made.
#[derive(Debug)]
pub struct Rebuilt {
    config: Config,
    endpoints: EndpointTable,
    names: BTreeMap<Host, Vec<EdsName>>,
}

impl Engine {
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// Both ways in turn, for tests and tools. The newest world, if there is one.
    pub fn apply(&mut self, snapshot: &Snapshot, changes: &Changes) -> Option<World> {
        let since = Instant::now();
        let update = self.endpoints(snapshot, changes, since);
        if changes.config || update.needs_rebuild {
            let rebuilt = self.rebuild(snapshot.clone(), Vec::new()).run();
            return Some(self.install(rebuilt, snapshot, since));
        }
        self.world.clone()
    }

    /// Endpoints changed, of the services and entries that `changes` names.
    pub fn endpoints(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        since: Instant,
    ) -> EndpointUpdate {
        let mut update = EndpointUpdate::default();
        let Some(world) = &self.world else { return update };
        let config = world.config.clone();
        let (mut endpoints, mut resolved) = (None, BTreeMap::new());
        self.touched.merge(changes.clone());
        for host in mesh::endpoints::changed_hosts(snapshot, &config.mesh, changes) {
            // A service that the mesh does not know yet comes with the next rebuild.
            let Some(old) = self.endpoints.get(&host) else { continue };
            let new = Arc::new(mesh::endpoints::for_host(snapshot, &config.mesh, &host));
            if new == *old {
                continue;
            }
            update.needs_rebuild |= new.shape != old.shape;
            if new.resolved != old.resolved {
                resolved.insert(host.clone(), new.clone());
            }
            self.endpoints.insert(host.clone(), new);
            let set = endpoints.get_or_insert_with(|| ResourceSet::clone(&world.endpoints));
            encode(&self.endpoints, self.names.get(&host).into_iter().flatten(), set);
        }
        let different = endpoints.filter(|set| !set.same_versions(&world.endpoints));
        if different.is_some() || !resolved.is_empty() {
            update.world = Some(World {
                sequence: world.sequence + 1,
                since,
                config,
                endpoints: different.map_or_else(|| world.endpoints.clone(), Arc::new),
                names: world.names.resolving(resolved),
            });
        }
        if update.world.is_some() {
            self.world.clone_from(&update.world);
        }
        update
    }

    /// A rebuild from this snapshot, to be run wherever there is time, and then installed.
    pub fn rebuild(&mut self, snapshot: Snapshot, scopes: Vec<ScopeKey>) -> Rebuild {
        self.generation += 1;
        self.touched = Changes::default();
        Rebuild {
            snapshot,
            generation: self.generation,
            interner: self.interner.clone(),
            scopes,
            known: self.endpoints.clone(),
        }
    }

    /// Puts a rebuild in force. `snapshot` is the newest one: endpoints that changed while the
    /// rebuild ran are taken from there.
    pub fn install(&mut self, rebuilt: Rebuilt, snapshot: &Snapshot, since: Instant) -> World {
        let Rebuilt { config, mut endpoints, names } = rebuilt;
        let touched = std::mem::take(&mut self.touched);
        for host in mesh::endpoints::changed_hosts(snapshot, &config.mesh, &touched) {
            if let Some(slot) = endpoints.get_mut(&host) {
                let newest = mesh::endpoints::for_host(snapshot, &config.mesh, &host);
                if newest != **slot {
                    *slot = Arc::new(newest);
                }
            }
        }
        let old = self.world.as_ref();
        let set = self.encode_all(&endpoints, &names, old);
        let sequence = old.map_or(1, |old| old.sequence + 1);
        self.names = names;
        let names = Names::new(config.mesh.clone(), &endpoints, self.interner.clone());
        let (config, names) = (Arc::new(config), Arc::new(names));
        let world = World { sequence, since, config, endpoints: set, names };
        self.endpoints = endpoints;
        self.world = Some(world.clone());
        self.interner.prune();
        world
    }

    /// All endpoints; those of services whose endpoints are the same `Arc` are taken over.
    fn encode_all(
        &self,
        endpoints: &EndpointTable,
        names: &BTreeMap<Host, Vec<EdsName>>,
        old: Option<&World>,
    ) -> Arc<ResourceSet> {
        let mut set = ResourceSet::default();
        for (host, names) in names {
            let same = match (self.endpoints.get(host), endpoints.get(host)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => false,
            };
            for name in names {
                let text = name.to_string();
                let known = old.and_then(|world| world.endpoints.get(&text)).filter(|_| same);
                if let Some(known) = known {
                    set.by_name.insert(known.name.clone(), known.clone());
                } else {
                    encode(endpoints, [name], &mut set);
                }
            }
        }
        match old {
            Some(old) if set.same_versions(&old.endpoints) => old.endpoints.clone(),
            _ => Arc::new(set),
        }
    }
}

impl Rebuild {
    pub fn run(self) -> Rebuilt {
        let snapshot = mesh::discovery::visible(&self.snapshot);
        let mut endpoints = mesh::endpoints::build(&snapshot);
        keep_unchanged(&mut endpoints, &self.known);
        let built = mesh::build(&snapshot, &endpoints);
        let names = endpoint_names(&built.0);
        let config = Config::new(self.generation, built, snapshot, self.interner);
        for scope in &self.scopes {
            config.outbound(scope);
        }
        Rebuilt { config, endpoints, names }
    }
}

/// Equal endpoints are the same `Arc` as before, so that nobody need look at them again.
fn keep_unchanged(endpoints: &mut EndpointTable, known: &BTreeMap<Host, Arc<ServiceEndpoints>>) {
    for (host, new) in endpoints {
        if let Some(old) = known.get(host).filter(|old| *old == new) {
            new.clone_from(old);
        }
    }
}

fn encode<'a>(
    endpoints: &EndpointTable,
    names: impl IntoIterator<Item = &'a EdsName>,
    set: &mut ResourceSet,
) {
    for name in names {
        match envoy::endpoints(name, endpoints) {
            Some(resource) => set.insert_encoded(resource),
            None => {
                set.by_name.remove(name.to_string().as_str());
            }
        }
    }
}

/// What clusters may ask for: each port of each service, whole and by each subset.
fn endpoint_names(mesh: &Mesh) -> BTreeMap<Host, Vec<EdsName>> {
    let wildcards: Vec<_> = mesh
        .destinations
        .iter()
        .filter_map(|(host, p)| Some((host.strip_prefix('*')?, p)))
        .collect();
    let of = |service: &mesh::Service| {
        let exact = mesh.destinations.get(&service.host).into_iter();
        let matching = wildcards.iter().filter(|(suffix, _)| service.host.ends_with(suffix));
        let policies = exact.chain(matching.map(|(_, policies)| *policies)).flatten();
        let subsets = policies.flat_map(|policy| policy.subsets.values());
        let mut labels: BTreeSet<_> = subsets.map(|subset| subset.labels.clone()).collect();
        labels.insert(BTreeMap::new());
        let name = |port: &mesh::Port, labels: &BTreeMap<_, _>| EdsName {
            port: port.number,
            host: service.host.clone(),
            labels: labels.clone(),
        };
        let ports = service.ports.iter();
        ports.flat_map(|port| labels.iter().map(move |l| name(port, l))).collect()
    };
    mesh.services.values().map(|service| (service.host.clone(), of(service))).collect()
}

#[cfg(test)]
mod tests;
