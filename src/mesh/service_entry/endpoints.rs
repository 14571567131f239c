//! What is behind entries that name their endpoints.

use std::{net::IpAddr, sync::Arc};

use super::{Draft, Way, fields};
use crate::{
    identity::SpiffeId,
    mesh::{
        Endpoint, EndpointState, MeshConfig, PeerPolicy, ResolvedAddress, ServiceEndpoints,
        endpoints::{accepts_tls, locality, speaks_mesh_tls},
        selects,
    },
    watch::{Key, Snapshot, snapshot::Pod},
};

/// The endpoints of an entry; `None` where they are not listed anywhere.
pub fn of(
    draft: &Draft,
    snapshot: &Snapshot,
    settings: &MeshConfig,
    policies: &[Arc<PeerPolicy>],
) -> Option<ServiceEndpoints> {
    if draft.resolution != Way::Static {
        return None;
    }
    let mut out = ServiceEndpoints::default();
    // A port without endpoints is known to be empty, which is not the same as unknown.
    out.ports.extend(draft.tcp_ports().map(|port| (port.number, Vec::new())));
    add_inline(draft, &mut out);
    for (key, pod) in selected(draft, snapshot) {
        add_pod(draft, key, pod, snapshot, (settings, policies), &mut out);
    }
    for endpoints in out.ports.values_mut() {
        endpoints.sort_by_key(|e| (e.address, e.port));
        endpoints.dedup_by_key(|e| (e.address, e.port));
    }
    Some(out)
}

fn add_inline(draft: &Draft, out: &mut ServiceEndpoints) {
    for endpoint in &draft.inline {
        // Checked when it was read: without DNS they are addresses.
        let Ok(address) = endpoint.address.parse::<IpAddr>() else { continue };
        out.resolved.insert(ResolvedAddress { address, hostname: None });
        for port in draft.tcp_ports() {
            out.ports.entry(port.number).or_default().push(Endpoint {
                address,
                port: endpoint.port(port),
                labels: Arc::new(endpoint.labels.clone()),
                meshed: endpoint.meshed,
                workload: "".into(),
                namespace: draft.key.namespace.clone(),
                locality: endpoint.locality.clone(),
                state: EndpointState::Ready,
            });
        }
    }
}

/// The pods that the entry's selector means.
fn selected<'a>(
    draft: &'a Draft,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Pod>)> {
    let first = Key { namespace: draft.key.namespace.clone(), name: "".into() };
    let pods = draft.selector.iter().flat_map(move |selector| {
        let there = snapshot.pods.range(first.clone()..);
        there
            .take_while(|(key, _)| key.namespace == draft.key.namespace)
            .filter(move |(_, pod)| selects(selector, &pod.labels))
    });
    pods.filter(|(_, pod)| !pod.ips.is_empty())
}

fn add_pod(
    draft: &Draft,
    key: &Key,
    pod: &Arc<Pod>,
    snapshot: &Snapshot,
    (settings, policies): (&MeshConfig, &[Arc<PeerPolicy>]),
    out: &mut ServiceEndpoints,
) {
    let meshed = !draft.external && speaks_mesh_tls(pod);
    if meshed {
        // Ready or not, as for Services.
        out.shape.identities.insert(SpiffeId {
            trust_domain: settings.trust_domain.clone(),
            namespace: key.namespace.to_string(),
            service_account: pod.service_account.to_string(),
        });
    }
    if !pod.ready {
        return;
    }
    for address in &pod.ips {
        out.resolved.insert(ResolvedAddress { address: *address, hostname: None });
    }
    let labels = Arc::new(pod.labels.clone());
    for port in draft.tcp_ports() {
        let target = fields::target(port);
        let meshed = meshed && accepts_tls(policies, pod, &key.namespace, target);
        let endpoints = out.ports.entry(port.number).or_default();
        endpoints.extend(pod.ips.iter().map(|address| Endpoint {
            address: *address,
            port: target,
            labels: labels.clone(),
            meshed,
            workload: pod.workload.clone(),
            namespace: key.namespace.clone(),
            locality: locality(snapshot, None, Some(&pod.node)),
            state: EndpointState::Ready,
        }));
    }
}
