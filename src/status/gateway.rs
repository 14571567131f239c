//! The status of the Gateway API's kinds, in the words that its specification asks for.

use std::collections::BTreeSet;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::conditions::{Wanted, list, merge};
use crate::{
    api::gateway::{
        CONTROLLER_NAME, GROUP, Gateway, GatewayClass, HttpRoute, ListenerStatus, OPERATOR_REASONS,
        ParentReference, RouteGroupKind, RouteParentStatus, class::ParametersReference,
        listener::Listener,
    },
    diagnostic::{Diagnostic, ObjectRef, Severity},
    mesh::{GatewayApi, Key, Mesh, parents},
    watch::Snapshot,
};

/// Reasons for which a reference of a route does not resolve.
const UNRESOLVED_BACKEND: [&str; 3] = ["BackendNotFound", "RefNotPermitted", "InvalidKind"];
/// Reasons for which something that a listener names does not resolve.
const UNRESOLVED_LISTENER: [&str; 3] =
    ["InvalidCertificateRef", "RefNotPermitted", "InvalidRouteKinds"];
const CONFLICTS: [&str; 2] = ["HostnameConflict", "ProtocolConflict"];

/// The conditions of a GatewayClass of ours.
pub fn class(class: &GatewayClass, now: Timestamp) -> Vec<Condition> {
    let existing = class.status.as_ref().map(|status| status.conditions.as_slice());
    let accepted = match class.spec.parameters_ref.as_ref().and_then(parameters_problem) {
        Some(message) => Wanted { message, ..Wanted::new("Accepted", false, "InvalidParameters") },
        None => Wanted::new("Accepted", true, "Accepted"),
    };
    merge(existing.unwrap_or_default(), vec![accepted], class.metadata.generation, now)
}

/// What is wrong with a class's reference. Whether the ConfigMap is there and what is in it, the
/// operator says in each Gateway.
fn parameters_problem(reference: &ParametersReference) -> Option<String> {
    if !reference.group.is_empty() || reference.kind != "ConfigMap" {
        let message = "spec.parametersRef: must name a ConfigMap, of group \"\"";
        return Some(message.to_owned());
    }
    let nowhere = reference.namespace.as_deref().unwrap_or_default().is_empty();
    nowhere.then(|| "spec.parametersRef.namespace: say where the ConfigMap is".to_owned())
}

/// What is ours in the status of a route: one entry for each parent that we speak for.
pub fn route_parents(
    route: &HttpRoute,
    snapshot: &Snapshot,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> Vec<RouteParentStatus> {
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    let existing = route.status.as_ref().map(|s| s.parents.as_slice()).unwrap_or_default();
    let mut out: Vec<RouteParentStatus> = Vec::new();
    for (i, parent) in route.spec.parent_refs.iter().enumerate() {
        if !parents::is_ours(snapshot, namespace, parent)
            || out.iter().any(|entry| entry.parent_ref == *parent)
        {
            continue;
        }
        let wanted = route_conditions(i, findings);
        let old = existing.iter().find(|entry| is_entry(entry, parent));
        let old = old.map(|entry| entry.conditions.as_slice()).unwrap_or_default();
        out.push(RouteParentStatus {
            parent_ref: parent.clone(),
            controller_name: CONTROLLER_NAME.to_owned(),
            conditions: merge(old, wanted, route.metadata.generation, now),
        });
    }
    out
}

fn is_entry(entry: &RouteParentStatus, parent: &ParentReference) -> bool {
    entry.controller_name == CONTROLLER_NAME && entry.parent_ref == *parent
}

fn route_conditions(parent: usize, findings: &[&Diagnostic]) -> Vec<Wanted> {
    const PARENTS: &str = "spec.parentRefs";
    let own = format!("{PARENTS}[{parent}]");
    let errors = || findings.iter().filter(|f| f.severity == Severity::Error).copied();
    let refused: Vec<_> = errors().filter(|f| is_below(&f.path, &own)).collect();
    let rules = || errors().filter(|f| !f.path.starts_with(PARENTS));
    let unresolved: Vec<_> = rules().filter(|f| UNRESOLVED_BACKEND.contains(&f.reason)).collect();
    let invalid: Vec<_> = rules().filter(|f| !UNRESOLVED_BACKEND.contains(&f.reason)).collect();
    let mut wanted = vec![
        Wanted::unless("Accepted", "Accepted", &refused),
        Wanted::unless("ResolvedRefs", "ResolvedRefs", &unresolved),
    ];
    if !invalid.is_empty() {
        wanted.push(Wanted {
            message: list(&invalid),
            ..Wanted::new("PartiallyInvalid", true, "UnsupportedValue")
        });
    }
    wanted
}

/// Whether a path is this field or something inside of it.
fn is_below(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What is ours in the status of a Gateway: whether it is accepted, unless the operator has something
/// against it, and its listeners.
pub fn gateway(
    gateway: &Gateway,
    mesh: &Mesh,
    findings: &[&Diagnostic],
    now: Timestamp,
) -> (Vec<Condition>, Vec<ListenerStatus>) {
    let generation = gateway.metadata.generation;
    let existing = gateway.status.clone().unwrap_or_default();
    let errors: Vec<_> =
        findings.iter().filter(|f| f.severity == Severity::Error).copied().collect();
    let key = Key::new(
        gateway.metadata.namespace.as_deref().unwrap_or_default(),
        gateway.metadata.name.as_deref().unwrap_or_default(),
    );
    let listeners: Vec<_> = gateway
        .spec
        .listeners
        .iter()
        .enumerate()
        .map(|(i, listener)| {
            let own = format!("spec.listeners[{i}]");
            let found: Vec<_> =
                errors.iter().filter(|f| is_below(&f.path, &own)).copied().collect();
            let old = existing.listeners.iter().find(|old| old.name == listener.name);
            let old = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
            ListenerStatus {
                name: listener.name.clone(),
                supported_kinds: supported_kinds(listener),
                attached_routes: attached_routes(mesh, &key, &listener.name),
                conditions: merge(old, listener_conditions(&found), generation, now),
            }
        })
        .collect();
    let refused = existing.conditions.iter().any(|condition| {
        condition.type_ == "Accepted" && OPERATOR_REASONS.contains(&condition.reason.as_str())
    });
    let accepted = (!refused).then(|| accepted(&listeners, &errors));
    let conditions = accepted.into_iter().collect();
    (merge(&existing.conditions, conditions, generation, now), listeners)
}

/// A Gateway is accepted as long as one of its listeners is.
fn accepted(listeners: &[ListenerStatus], errors: &[&Diagnostic]) -> Wanted {
    let valid = |listener: &&ListenerStatus| {
        listener.conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True")
    };
    let all = listeners.iter().all(|listener| valid(&listener));
    let any = listeners.iter().any(|listener| valid(&listener));
    let reason = if all { "Accepted" } else { "ListenersNotValid" };
    Wanted { message: list(errors), ..Wanted::new("Accepted", any, reason) }
}

fn listener_conditions(found: &[&Diagnostic]) -> Vec<Wanted> {
    let with = |reasons: &[&str]| -> Vec<&Diagnostic> {
        found.iter().filter(|f| reasons.contains(&f.reason)).copied().collect()
    };
    let conflicts = with(&CONFLICTS);
    let unresolved = with(&UNRESOLVED_LISTENER);
    let refused: Vec<_> = found
        .iter()
        .filter(|f| !CONFLICTS.contains(&f.reason) && !UNRESOLVED_LISTENER.contains(&f.reason))
        .copied()
        .collect();
    let conflicted = match conflicts.first() {
        None => Wanted::new("Conflicted", false, "NoConflicts"),
        Some(first) => {
            Wanted { message: list(&conflicts), ..Wanted::new("Conflicted", true, first.reason) }
        }
    };
    let accepted = if refused.is_empty() && !conflicts.is_empty() { &conflicts } else { &refused };
    let programmed = if found.is_empty() {
        Wanted::new("Programmed", true, "Programmed")
    } else {
        Wanted { message: list(found), ..Wanted::new("Programmed", false, "Invalid") }
    };
    vec![
        conflicted,
        Wanted::unless("Accepted", "Accepted", accepted),
        Wanted::unless("ResolvedRefs", "ResolvedRefs", &unresolved),
        programmed,
    ]
}

fn supported_kinds(listener: &Listener) -> Vec<RouteGroupKind> {
    let allowed = listener.allowed_routes.iter().flat_map(|allowed| &allowed.kinds);
    let http = |kind: &RouteGroupKind| {
        kind.kind == "HTTPRoute" && kind.group.as_deref().unwrap_or(GROUP) == GROUP
    };
    let all = allowed.clone().next().is_none();
    let served = ["HTTP", "HTTPS"].contains(&listener.protocol.as_str());
    if served && (all || allowed.clone().any(http)) {
        vec![RouteGroupKind { group: Some(GROUP.to_owned()), kind: "HTTPRoute".to_owned() }]
    } else {
        Vec::new()
    }
}

fn attached_routes(mesh: &Mesh, gateway: &Key, listener: &str) -> i32 {
    let attached: BTreeSet<&ObjectRef> = mesh
        .routes
        .iter()
        .filter(|routing| {
            routing.gateways.iter().any(|reference| {
                reference.api == GatewayApi::Kubernetes
                    && reference.key == *gateway
                    && reference.listener.as_deref() == Some(listener)
            })
        })
        .map(|routing| &routing.origin)
        .collect();
    i32::try_from(attached.len()).unwrap_or(i32::MAX)
}
