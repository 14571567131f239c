//! What HTTPRoutes attach to: listeners of Gateways, and Services.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    GatewayApi, GatewayRef, GatewayServers, Host, Key, Mesh, Visibility, backend, gateway, names,
    report::{Path, Report},
};
use crate::{
    api::gateway::{GROUP, HttpRoute, ParentReference},
    watch::Snapshot,
};

/// Where a route is in force.
#[derive(Debug, Default)]
pub struct Attachments {
    /// Listeners by the hosts that they and the route have in common.
    pub listeners: BTreeMap<Vec<Host>, Vec<GatewayRef>>,
    pub services: Vec<ServiceAttachment>,
}

/// A Service whose clients apply a route.
#[derive(Debug)]
pub struct ServiceAttachment {
    pub host: Host,
    /// One of its ports; all without it.
    pub port: Option<u16>,
    /// Every client where the route is the Service's own, else those of the route's namespace.
    pub clients: Visibility,
}

/// Whether we are the ones who say if a route attaches to this parent: it is a Service, or a Gateway
/// of our class, or a Gateway that does not exist.
pub fn is_ours(snapshot: &Snapshot, route_namespace: &str, parent: &ParentReference) -> bool {
    if parent.is(GROUP, "Gateway") {
        let gateway = snapshot.gateways.get(&key(parent, route_namespace));
        gateway.is_none_or(|gateway| gateway::is_ours(snapshot, gateway))
    } else {
        is_service(parent)
    }
}

/// The object that a parent reference names.
pub fn key(parent: &ParentReference, route_namespace: &str) -> Key {
    Key::new(parent.namespace.as_deref().unwrap_or(route_namespace), &parent.name)
}

fn is_service(parent: &ParentReference) -> bool {
    // Some clients write `core` for the group without a name.
    parent.is("", "Service") || parent.is("core", "Service")
}

type Refusal = (&'static str, String);

/// Everything that a route attaches to; what it does not attach to is reported under
/// `spec.parentRefs[i]`. `None` where none of its parents is ours.
pub fn resolve(
    route: &HttpRoute,
    snapshot: &Snapshot,
    mesh: &Mesh,
    gateways: &BTreeMap<&Key, &GatewayServers>,
    report: &mut Report,
) -> Option<Attachments> {
    let namespace = report.object.namespace.clone();
    let path = Path::SPEC.field("parentRefs");
    let mut attachments = None;
    let parents = route.spec.parent_refs.iter().enumerate();
    for (i, parent) in parents.filter(|(_, parent)| is_ours(snapshot, &namespace, parent)) {
        let attachments: &mut Attachments = attachments.get_or_insert_default();
        let outcome = if is_service(parent) {
            service(parent, &namespace, mesh).map(|service| attachments.services.push(service))
        } else {
            let key = key(parent, &namespace);
            let gateway = gateways.get(&key).copied().ok_or_else(|| {
                (
                    "NoMatchingParent",
                    format!("there is no Gateway {key}: create it or correct the name"),
                )
            });
            gateway
                .and_then(|gateway| listeners(parent, route, &namespace, gateway))
                .map(|found| add_listeners(attachments, found))
        };
        if let Err((reason, message)) = outcome {
            report.error(&path.index(i), reason, message);
        }
    }
    attachments
}

fn add_listeners(attachments: &mut Attachments, found: Vec<(GatewayRef, Vec<Host>)>) {
    for (listener, hosts) in found {
        let listeners = attachments.listeners.entry(hosts).or_default();
        if !listeners.contains(&listener) {
            listeners.push(listener);
        }
    }
}

fn service(
    parent: &ParentReference,
    route_namespace: &str,
    mesh: &Mesh,
) -> Result<ServiceAttachment, Refusal> {
    let key = key(parent, route_namespace);
    let host = names::service_host(&key, &mesh.config.cluster_domain);
    let Some(service) = mesh.services.get(&host) else {
        return Err(("NoMatchingParent", format!("there is no Service {key}")));
    };
    if let Some(port) = parent.port {
        let ports = backend::tcp_ports(service);
        if !ports.contains(&port) {
            let ports = backend::list(&ports);
            let message = format!("Service {key} has no port {port}; it has {ports}");
            return Err(("NoMatchingParent", message));
        }
    }
    let clients = if &*key.namespace == route_namespace {
        Visibility::Everyone
    } else {
        Visibility::Namespaces([Arc::from(route_namespace)].into())
    };
    Ok(ServiceAttachment { host, port: parent.port, clients })
}

/// The listeners that take the route, with the hosts that both have in common.
fn listeners(
    parent: &ParentReference,
    route: &HttpRoute,
    namespace: &str,
    gateway: &GatewayServers,
) -> Result<Vec<(GatewayRef, Vec<Host>)>, Refusal> {
    let named = |name: &String| parent.section_name.as_ref().is_none_or(|section| section == name);
    let mut servers: Vec<_> = gateway
        .servers
        .iter()
        .filter(|server| named(&server.name) && parent.port.is_none_or(|port| port == server.port))
        .collect();
    if servers.is_empty() {
        let message =
            format!("Gateway {} has no working listener of that name and port", gateway.key);
        return Err(("NoMatchingParent", message));
    }
    servers.retain(|server| server.hosts.iter().any(|(from, _)| from.includes(namespace)));
    if servers.is_empty() {
        let message = format!(
            "Gateway {} takes no HTTPRoutes of namespace {namespace}: change its allowedRoutes",
            gateway.key
        );
        return Err(("NotAllowedByListeners", message));
    }
    let wanted: Vec<_> =
        route.spec.hostnames.iter().map(|name| name.to_ascii_lowercase()).collect();
    let found: Vec<_> = servers
        .into_iter()
        .filter_map(|server| {
            let listener = Some(server.name.clone());
            let reference =
                GatewayRef { api: GatewayApi::Kubernetes, key: gateway.key.clone(), listener };
            let served = server.hosts.iter().map(|(_, host)| host);
            let hosts: Vec<Host> = if wanted.is_empty() {
                served.cloned().collect()
            } else {
                let common = |own: &'_ Host| -> Vec<Host> {
                    let both = wanted.iter().filter_map(|name| names::intersection(own, name));
                    both.map(Host::from).collect()
                };
                served.flat_map(common).collect()
            };
            (!hosts.is_empty()).then_some((reference, hosts))
        })
        .collect();
    if found.is_empty() {
        let message = format!("none of the hostnames is served by Gateway {}", gateway.key);
        return Err(("NoMatchingListenerHostname", message));
    }
    Ok(found)
}
