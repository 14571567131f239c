//! What agents are told of hosts: one resource for each host that clients of a namespace may ask for.
//!
//! Most hosts are for everyone, and so is the set of them; what is not for everyone is a second set,
//! of each namespace. Sets are made when the first agent asks, so a mesh without agents that ask
//! pays nothing.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::intern::Interner;
use crate::{
    mesh::{
        EndpointTable, Host, Mesh, Resolution, ResolvedAddress, Service, ServiceEndpoints,
        ServiceKind, Visibility,
    },
    xds::{Resource, ResourceSet, ResourceType, names, view::Layers},
};

/// Whose hosts: `None` is everyone.
type Scope = Option<Arc<str>>;
type Sets = BTreeMap<Scope, Arc<ResourceSet>>;

/// The hosts of one moment. Immutable, but for sets that are made when somebody asks.
#[derive(Debug)]
pub struct Names {
    mesh: Arc<Mesh>,
    /// Endpoints of services whose names stand for these.
    resolved: Arc<BTreeMap<Host, Arc<ServiceEndpoints>>>,
    sets: Mutex<Sets>,
    interner: Arc<Interner>,
}

impl Names {
    pub fn new(mesh: Arc<Mesh>, endpoints: &EndpointTable, interner: Arc<Interner>) -> Self {
        let resolving = mesh.services.values().filter(|service| resolves_to_endpoints(service));
        let resolved = resolving
            .filter_map(|s| Some((s.host.clone(), endpoints.get(&s.host)?.clone())))
            .collect();
        Self { mesh, resolved: Arc::new(resolved), sets: Mutex::default(), interner }
    }

    /// The same with other endpoints for some hosts. Sets that hold none of them stay what they are.
    pub fn resolving(
        self: &Arc<Self>,
        mut changed: BTreeMap<Host, Arc<ServiceEndpoints>>,
    ) -> Arc<Self> {
        changed.retain(|host, _| self.resolved.contains_key(host));
        if changed.is_empty() {
            return self.clone();
        }
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut resolved = BTreeMap::clone(&self.resolved);
        for (scope, set) in &mut sets {
            let here = |host: &Host| Some(self.mesh.services.get(host)?.as_ref());
            let here = |host| here(host).filter(|service| belongs(service, scope.as_ref()));
            let mut edited: Option<ResourceSet> = None;
            for (host, new) in &changed {
                let Some(service) = here(host) else { continue };
                let edited = edited.get_or_insert_with(|| ResourceSet::clone(set));
                for gone in self.of(service, resolved.get(host).map(AsRef::as_ref)) {
                    edited.by_name.remove(&gone.name);
                }
                self.of(service, Some(new)).into_iter().for_each(|h| edited.insert_encoded(h));
            }
            if let Some(edited) = edited {
                *set = self.interner.set(ResourceType::Host, edited);
            }
        }
        resolved.extend(changed);
        Arc::new(Self {
            mesh: self.mesh.clone(),
            resolved: Arc::new(resolved),
            sets: Mutex::new(sets),
            interner: self.interner.clone(),
        })
    }

    /// What agents of pods in `namespace` are to have.
    pub fn layers(&self, namespace: &Arc<str>) -> Layers {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let scopes = [None, Some(namespace.clone())];
        let set = |scope: Scope| {
            sets.entry(scope).or_insert_with_key(|scope| self.make(scope.as_ref())).clone()
        };
        scopes.into_iter().map(set).collect()
    }

    fn make(&self, scope: Option<&Arc<str>>) -> Arc<ResourceSet> {
        let services = self.mesh.services.values().filter(|service| belongs(service, scope));
        let mut set = ResourceSet::default();
        for service in services {
            let endpoints = self.resolved.get(&service.host).map(AsRef::as_ref);
            self.of(service, endpoints).into_iter().for_each(|host| set.insert_encoded(host));
        }
        self.interner.set(ResourceType::Host, set)
    }

    /// The hosts of one service: its own and, of pods behind headless services, those that have
    /// names of their own. None where only DNS outside can tell.
    fn of(&self, service: &Service, endpoints: Option<&ServiceEndpoints>) -> Vec<Resource> {
        let resolved = endpoints.into_iter().flat_map(|endpoints| &endpoints.resolved);
        match &service.kind {
            ServiceKind::ExternalName { target } => {
                let alias = names::Host { alias: target.to_string(), ..names::Host::default() };
                vec![Resource::encode_nameless(&service.host, &alias)]
            }
            ServiceKind::ClusterIp(addresses) => vec![host(&service.host, addresses.clone())],
            ServiceKind::Entry(entry) if !resolves_to_endpoints(service) => {
                let addresses: Vec<_> = entry.single_addresses().collect();
                if addresses.is_empty() { vec![] } else { vec![host(&service.host, addresses)] }
            }
            ServiceKind::Headless | ServiceKind::Entry(_) => self.of_endpoints(service, resolved),
        }
    }

    fn of_endpoints<'a>(
        &self,
        service: &Service,
        resolved: impl Iterator<Item = &'a ResolvedAddress>,
    ) -> Vec<Resource> {
        let mut own = Vec::new();
        let mut pods: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for ResolvedAddress { address, hostname } in resolved {
            own.push(*address);
            let pod = hostname.as_ref().map(|name| format!("{name}.{}", service.host));
            // Some make a ServiceEntry for a pod's own name; then it is the entry's.
            if let Some(pod) = pod.filter(|pod| !self.mesh.services.contains_key(pod.as_str())) {
                pods.entry(pod).or_default().push(*address);
            }
        }
        let pods = pods.into_iter().map(|(name, addresses)| host(&name, addresses));
        std::iter::once(host(&service.host, own)).chain(pods).collect()
    }
}

/// Whether a service is in the set of a scope.
fn belongs(service: &Service, scope: Option<&Arc<str>>) -> bool {
    match (scope, &service.visibility) {
        (None, visibility) => *visibility == Visibility::Everyone,
        (Some(namespace), Visibility::Namespaces(names)) => names.contains(namespace),
        (Some(_), Visibility::Everyone | Visibility::Nobody) => false,
    }
}

/// Whether a service's name stands for its endpoints, for want of an address of its own.
fn resolves_to_endpoints(service: &Service) -> bool {
    match &service.kind {
        ServiceKind::Headless => true,
        ServiceKind::Entry(entry) => {
            entry.resolution == Resolution::Endpoints && entry.single_addresses().next().is_none()
        }
        ServiceKind::ClusterIp(_) | ServiceKind::ExternalName { .. } => false,
    }
}

fn host(name: &str, mut addresses: Vec<IpAddr>) -> Resource {
    addresses.sort_unstable();
    addresses.dedup();
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    let message = names::Host {
        addresses: addresses.into_iter().map(bytes).collect(),
        alias: String::new(),
        wildcard: name.starts_with("*."),
    };
    Resource::encode_nameless(name, &message)
}

#[cfg(test)]
mod tests;
