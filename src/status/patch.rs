//! Which objects' status must be written, and how. Pure.

use k8s_openapi::jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use super::{ByObject, Findings, conditions::covers, gateway, installation, istio};
use crate::{
    api::{
        gateway::{
            CONTROLLER_NAME, Gateway, GatewayClass, HttpRoute, ListenerStatus, RouteParentStatus,
        },
        istio::{
            Status,
            networking::{self, ServiceEntry, service_entry::ServiceEntryStatus},
            security,
        },
    },
    diagnostic::Diagnostic,
    mesh,
    watch::Key,
};

const VERSION: &str = "gateway.networking.k8s.io/v1";
const NETWORKING: &str = "networking.istio.io/v1";

/// A status to be applied to one object.
#[derive(Clone, Debug)]
pub struct Patch {
    pub resource: ApiResource,
    pub key: Key,
    /// The version of the object that the status was worked out for.
    pub resource_version: String,
    /// What server-side apply takes.
    pub body: Value,
}

/// All patches that make the objects' status say what is known. An object that says so already
/// gets none, so that a write does not bring about the next one.
pub fn patches(findings: &Findings, now: Timestamp) -> Vec<Patch> {
    let found = findings.by_object();
    let snapshot = &findings.snapshot;
    let mut out = Vec::new();
    macro_rules! istio {
        ($($table:ident, $version:literal, $kind:literal, $type:ty;)*) => {$(
            out.extend(snapshot.$table.iter().filter_map(|(key, object)| {
                let existing = object.status.clone().unwrap_or_default();
                istio_patch::<$type>(object, &existing, found.get($version, $kind, key), now)
            }));
        )*};
    }
    istio! {
        virtual_services, "networking.istio.io/v1", "VirtualService", networking::VirtualService;
        destination_rules, "networking.istio.io/v1", "DestinationRule", networking::DestinationRule;
        istio_gateways, "networking.istio.io/v1", "Gateway", networking::Gateway;
        peer_authentications, "security.istio.io/v1", "PeerAuthentication",
            security::PeerAuthentication;
    }
    out.extend(installation_patch(findings, &found, now));
    for (key, object) in snapshot.service_entries.iter() {
        out.extend(entry_patch(object, findings, found.get(NETWORKING, "ServiceEntry", key), now));
    }
    let ours =
        |class: &&std::sync::Arc<GatewayClass>| class.spec.controller_name == CONTROLLER_NAME;
    out.extend(snapshot.gateway_classes.values().filter(ours).filter_map(|c| class_patch(c, now)));
    for (key, object) in snapshot.gateways.iter() {
        if mesh::gateway::is_ours(snapshot, object) {
            out.extend(gateway_patch(object, findings, found.get(VERSION, "Gateway", key), now));
        }
    }
    for (key, object) in snapshot.http_routes.iter() {
        out.extend(route_patch(object, findings, found.get(VERSION, "HTTPRoute", key), now));
    }
    out
}

fn istio_patch<K>(
    object: &K,
    existing: &Status,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> Option<Patch>
where
    K: Resource<DynamicType = ()>,
{
    let status = istio::status(existing, object.meta().generation, findings, now);
    let said = existing.observed_generation == status.observed_generation
        && covers(&existing.conditions, &status.conditions);
    (!said).then(|| patch(object, &json!(status)))
}

/// The one condition of an installation that is the control plane's: the operator, which writes the
/// rest under its own name, does not know which services there are.
fn installation_patch(findings: &Findings, found: &ByObject<'_>, now: Timestamp) -> Option<Patch> {
    let object = findings.snapshot.installation.as_deref()?;
    let key = Key::new("", &object.name_any());
    let found = found.get("meshwright.dev/v1alpha1", "MeshInstallation", &key);
    let existing = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let wanted = installation::conditions(existing, object.metadata.generation, found, now);
    (!covers(existing, &wanted)).then(|| patch(object, &json!({ "conditions": wanted })))
}

/// As for other kinds of Istio's, and the addresses that hosts were given.
fn entry_patch(
    object: &ServiceEntry,
    findings: &Findings,
    found: &[&Diagnostic],
    now: Timestamp,
) -> Option<Patch> {
    let existing = object.status.clone().unwrap_or_default();
    let common = istio::status(&existing.common, object.meta().generation, found, now);
    let addresses = istio::allocated_addresses(object, &findings.mesh);
    let said = existing.common.observed_generation == common.observed_generation
        && existing.addresses == addresses
        && covers(&existing.common.conditions, &common.conditions);
    (!said).then(|| patch(object, &json!(ServiceEntryStatus { common, addresses })))
}

fn class_patch(object: &GatewayClass, now: Timestamp) -> Option<Patch> {
    let wanted = gateway::class(object, now);
    let said = object.status.as_ref().is_some_and(|status| covers(&status.conditions, &wanted));
    (!said).then(|| patch(object, &json!({ "conditions": wanted })))
}

fn gateway_patch(
    object: &Gateway,
    findings: &Findings,
    found: &[&Diagnostic],
    now: Timestamp,
) -> Option<Patch> {
    let (conditions, listeners) = gateway::gateway(object, &findings.mesh, found, now);
    let said = object.status.as_ref().is_some_and(|status| {
        covers(&status.conditions, &conditions) && same_listeners(&status.listeners, &listeners)
    });
    (!said).then(|| patch(object, &json!({ "conditions": conditions, "listeners": listeners })))
}

fn same_listeners(existing: &[ListenerStatus], wanted: &[ListenerStatus]) -> bool {
    existing.len() == wanted.len()
        && wanted.iter().all(|wanted| {
            existing.iter().any(|old| {
                old.name == wanted.name
                    && old.attached_routes == wanted.attached_routes
                    && old.supported_kinds == wanted.supported_kinds
                    && covers(&old.conditions, &wanted.conditions)
            })
        })
}

/// A route's parents are one list for all controllers, replaced as a whole: others' entries are
/// carried over, and the object's version makes sure that none of them was just being written.
fn route_patch(
    object: &HttpRoute,
    findings: &Findings,
    found: &[&Diagnostic],
    now: Timestamp,
) -> Option<Patch> {
    let existing = object.status.as_ref().map(|s| s.parents.as_slice()).unwrap_or_default();
    let is_own = |entry: &&RouteParentStatus| entry.controller_name == CONTROLLER_NAME;
    let wanted = gateway::route_parents(object, &findings.snapshot, found, now);
    let own: Vec<_> = existing.iter().filter(is_own).collect();
    let said = own.len() == wanted.len()
        && wanted.iter().all(|wanted| {
            own.iter().any(|old| {
                old.parent_ref == wanted.parent_ref
                    && old.conditions.len() == wanted.conditions.len()
                    && covers(&old.conditions, &wanted.conditions)
            })
        });
    if said {
        return None;
    }
    let others = existing.iter().filter(|entry| !is_own(entry)).cloned();
    let parents: Vec<_> = others.chain(wanted).collect();
    let mut patch = patch(object, &json!({ "parents": parents }));
    patch.body["metadata"]["resourceVersion"] = json!(patch.resource_version);
    Some(patch)
}

fn patch<K>(object: &K, status: &Value) -> Patch
where
    K: Resource<DynamicType = ()>,
{
    let resource = ApiResource::erase::<K>(&());
    let namespace = object.namespace().unwrap_or_default();
    let mut metadata = json!({ "name": object.name_any() });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "status": status,
    });
    Patch {
        key: Key::new(&namespace, &object.name_any()),
        resource_version: object.resource_version().unwrap_or_default(),
        resource,
        body,
    }
}

impl Patch {
    /// The body without the times in it: what is the same apart from them says nothing new.
    pub fn timeless(&self) -> Value {
        let mut body = self.body.clone();
        remove_times(&mut body);
        body
    }

    /// Whether it holds other controllers' entries, so that it is good for one version only.
    pub fn is_pinned(&self) -> bool {
        self.body["metadata"].get("resourceVersion").is_some()
    }

    /// Takes others' entries from the object as it is now.
    pub fn rebase(&mut self, live: &DynamicObject) {
        let entries = |list: &Value, own: bool| -> Vec<Value> {
            let list = list.as_array().into_iter().flatten();
            list.filter(|entry| (entry["controllerName"] == CONTROLLER_NAME) == own)
                .cloned()
                .collect()
        };
        let mut parents = entries(&live.data["status"]["parents"], false);
        parents.extend(entries(&self.body["status"]["parents"], true));
        self.body["status"]["parents"] = json!(parents);
        self.body["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
    }

    /// Names the object in logs and memory.
    pub fn object(&self) -> (String, Key) {
        (format!("{}.{}", self.resource.plural, self.resource.group), self.key.clone())
    }

    /// An object's API for the patch.
    pub fn api(&self, client: kube::Client) -> kube::Api<DynamicObject> {
        if self.key.namespace.is_empty() {
            kube::Api::all_with(client, &self.resource)
        } else {
            kube::Api::namespaced_with(client, &self.key.namespace, &self.resource)
        }
    }
}

fn remove_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("lastTransitionTime");
            fields.values_mut().for_each(remove_times);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_times),
        _ => {}
    }
}
