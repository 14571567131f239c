//! Gateways of the Kubernetes Gateway API → [`GatewayServers`].

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    GatewayApi, GatewayProtocol, GatewayServer, GatewayServers, Host, Key, Labels, Visibility,
    by_age,
    grants::{Referent, permit},
    lookup,
    report::{OrReport, Path, Report},
    syntax,
};
use crate::{
    api::gateway::{
        CONTROLLER_NAME, GATEWAY_NAME_LABEL, GROUP, Gateway, SecretReference,
        listener::{AllowedRoutes, Listener, ListenerTls},
        name_label, service_of_host,
    },
    diagnostic::Diagnostic,
    watch::{Snapshot, snapshot::TlsSecret},
};

/// Whether a Gateway is ours: its class names our controller.
pub fn is_ours(snapshot: &Snapshot, gateway: &Gateway) -> bool {
    let class = Key::new("", &gateway.spec.gateway_class_name);
    snapshot
        .gateway_classes
        .get(&class)
        .is_some_and(|class| class.spec.controller_name == CONTROLLER_NAME)
}

/// What our Gateways ask for, oldest first.
pub fn build(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> Vec<Arc<GatewayServers>> {
    let ours = by_age(&snapshot.gateways).into_iter().filter(|object| is_ours(snapshot, object));
    ours.map(|object| {
        let (servers, mut report) = convert(object, snapshot);
        diagnostics.append(&mut report.diagnostics);
        Arc::new(servers)
    })
    .collect()
}

fn convert(object: &Gateway, snapshot: &Snapshot) -> (GatewayServers, Report) {
    let mut report = Report::new(object, "gateway.networking.k8s.io/v1", "Gateway");
    report.unsupported(&Path::SPEC, &object.spec.unsupported);
    let path = Path::SPEC.field("listeners");
    let mut servers: Vec<GatewayServer> = Vec::new();
    for (i, listener) in object.spec.listeners.iter().enumerate() {
        let path = path.index(i);
        report.unsupported(&path, &listener.unsupported);
        let Some(server) = convert_listener(i, listener, snapshot, &path, &mut report) else {
            continue;
        };
        match conflict(&servers, &server) {
            Some((reason, message)) => report.error(&path, reason, message),
            None => servers.push(server),
        }
    }
    let name = report.object.name.clone();
    let servers = GatewayServers {
        origin: report.object.clone(),
        api: GatewayApi::Kubernetes,
        key: Key::new(&report.object.namespace, &name),
        selector: selector(object, snapshot, &report.object.namespace, &name),
        own_namespace_only: true,
        servers,
    };
    (servers, report)
}

/// Which pods serve a Gateway: those that the operator makes for it or, where it names a Service of
/// its namespace as its address, those of that Service.
fn selector(object: &Gateway, snapshot: &Snapshot, namespace: &str, name: &str) -> Labels {
    let mut hosts = object.spec.addresses.iter();
    let host = hosts.find(|address| address.kind.as_deref() == Some("Hostname"));
    let service = host.and_then(|host| {
        let service = service_of_host(host.value.as_deref()?, namespace)?;
        snapshot.services.get(&Key::new(namespace, &service))
    });
    match service {
        // A selector of nothing would be one of every pod.
        Some(service) if !service.selector.is_empty() => service.selector.clone(),
        _ => Labels::from([(GATEWAY_NAME_LABEL.to_owned(), name_label(name))]),
    }
}

/// Why a listener cannot stand beside earlier ones of its Gateway.
fn conflict(earlier: &[GatewayServer], server: &GatewayServer) -> Option<(&'static str, String)> {
    let https = |server: &GatewayServer| matches!(server.protocol, GatewayProtocol::Https { .. });
    let host = |server: &GatewayServer| server.hosts.first().map(|(_, host)| host.clone());
    let same_port = || earlier.iter().filter(|other| other.port == server.port);
    if let Some(other) = same_port().find(|other| https(other) != https(server)) {
        let message = format!("listener {} has another protocol on the same port", other.name);
        return Some(("ProtocolConflict", message));
    }
    let other = same_port().find(|other| host(other) == host(server))?;
    Some((
        "HostnameConflict",
        format!("listener {} has the same port, protocol and hostname", other.name),
    ))
}

fn convert_listener(
    index: usize,
    listener: &Listener,
    snapshot: &Snapshot,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<GatewayServer> {
    let host: Host = match listener.hostname.as_deref() {
        None | Some("") => "*".into(),
        Some(name) => {
            syntax::host(name).or_report(report, &path.field("hostname"), "InvalidHost")?.into()
        }
    };
    let protocol = match listener.protocol.as_str() {
        "HTTP" => GatewayProtocol::Http { redirect_to_https: false },
        "HTTPS" => {
            let tls_path = path.field("tls");
            let tls = listener.tls.as_ref();
            GatewayProtocol::Https { credentials: credentials(tls, snapshot, &tls_path, report) }
        }
        other => {
            let message = format!("{other} is not supported in this version: use HTTP or HTTPS");
            report.error(&path.field("protocol"), "UnsupportedProtocol", message);
            return None;
        }
    };
    let allowed = listener.allowed_routes.as_ref();
    let visibility = allowed_namespaces(allowed, snapshot, &path.field("allowedRoutes"), report);
    Some(GatewayServer {
        index,
        name: listener.name.clone(),
        port: listener.port,
        hosts: vec![(visibility, host)],
        protocol,
    })
}

/// The namespaces whose routes may attach; nobody's where HTTPRoutes may not attach at all.
fn allowed_namespaces(
    allowed: Option<&AllowedRoutes>,
    snapshot: &Snapshot,
    path: &Path<'_>,
    report: &mut Report,
) -> Visibility {
    let kinds = allowed.map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    let mut http = kinds.is_empty();
    let kinds_path = path.field("kinds");
    for (i, kind) in kinds.iter().enumerate() {
        if kind.kind == "HTTPRoute" && kind.group.as_deref().unwrap_or(GROUP) == GROUP {
            http = true;
        } else {
            let message = format!("{} is not served here: use HTTPRoute", kind.kind);
            report.error(&kinds_path.index(i), "InvalidRouteKinds", message);
        }
    }
    if !http {
        return Visibility::Nobody;
    }
    let own = || Visibility::Namespaces(BTreeSet::from([report.object.namespace.as_str().into()]));
    let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else {
        return own();
    };
    match namespaces.from.as_deref() {
        None | Some("Same") => own(),
        Some("All") => Visibility::Everyone,
        Some("Selector") => {
            let selector = namespaces.selector.clone().unwrap_or_default();
            let selected = snapshot.namespaces.iter();
            let selected = selected.filter(|(_, found)| matches_selector(&selector, &found.labels));
            Visibility::Namespaces(selected.map(|(key, _)| key.name.clone()).collect())
        }
        Some(other) => {
            let message = format!(
                "{other} is not known, so no route can attach: use Same, All or \
                                   Selector"
            );
            let namespaces = path.field("namespaces");
            report.error(&namespaces.field("from"), "UnsupportedValue", message);
            Visibility::Nobody
        }
    }
}

fn matches_selector(selector: &LabelSelector, labels: &Labels) -> bool {
    let expression = |requirement: &LabelSelectorRequirement| {
        let value = labels.get(&requirement.key);
        let listed = || {
            let values = requirement.values.iter().flatten();
            value.is_some_and(|value| values.clone().any(|listed| listed == value))
        };
        match requirement.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    selector.match_labels.as_ref().is_none_or(|wanted| lookup::selects(wanted, labels))
        && selector.match_expressions.iter().flatten().all(expression)
}

/// The Secrets that a listener may use, exist and hold a certificate.
fn credentials(
    tls: Option<&ListenerTls>,
    snapshot: &Snapshot,
    path: &Path<'_>,
    report: &mut Report,
) -> Vec<Key> {
    let refs_path = path.field("certificateRefs");
    let Some(tls) = tls else {
        let message = "name a Secret of type kubernetes.io/tls; until then connections are refused";
        report.error(&refs_path, "InvalidCertificateRef", message);
        return Vec::new();
    };
    report.unsupported(path, &tls.unsupported);
    if tls.mode.as_deref().is_some_and(|mode| mode != "Terminate") {
        let message = "only Terminate is supported for HTTPS; until then connections are refused";
        report.error(&path.field("mode"), "UnsupportedValue", message);
        return Vec::new();
    }
    if tls.certificate_refs.is_empty() {
        let message = "name a Secret of type kubernetes.io/tls; until then connections are refused";
        report.error(&refs_path, "InvalidCertificateRef", message);
    }
    let mut credentials = Vec::new();
    for (i, reference) in tls.certificate_refs.iter().enumerate() {
        match credential(reference, &report.object.namespace, snapshot) {
            Ok(key) => credentials.push(key),
            Err((reason, message)) => report.error(&refs_path.index(i), reason, message),
        }
    }
    credentials
}

fn credential(
    reference: &SecretReference,
    own_namespace: &str,
    snapshot: &Snapshot,
) -> Result<Key, (&'static str, String)> {
    const INVALID: &str = "InvalidCertificateRef";
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if !reference.group.as_deref().unwrap_or_default().is_empty() || kind != "Secret" {
        return Err((INVALID, format!("{kind} cannot hold a certificate: name a Secret")));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(own_namespace);
    let name = &reference.name;
    if !permit(snapshot, "Gateway", own_namespace, Referent { kind, namespace, name }) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} lets Gateways of {own_namespace} use Secret \
             {name}"
        );
        return Err(("RefNotPermitted", message));
    }
    let key = Key::new(namespace, name);
    match snapshot.tls_secrets.get(&key) {
        None => Err((INVALID, format!("there is no Secret {key} of type kubernetes.io/tls"))),
        Some(secret) if !is_usable(secret) => {
            let message = format!("Secret {key} holds no PEM certificate with its private key");
            Err((INVALID, message))
        }
        Some(_) => Ok(key),
    }
}

/// Whether both parts are PEM of the right kind: Envoy would reject the whole listener otherwise.
fn is_usable(secret: &TlsSecret) -> bool {
    CertificateDer::from_pem_slice(&secret.certificate).is_ok()
        && PrivateKeyDer::from_pem_slice(&secret.private_key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::from_yaml;

    const CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: shop}
spec: {ports: [{port: 80}]}
";

    fn selected(name: &str, addresses: &str) -> Labels {
        let object: Gateway = serde_json::from_value(serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "namespace": "shop"}, "spec": {},
        }))
        .unwrap();
        let mut object = object;
        object.spec.addresses = serde_json::from_str(addresses).unwrap();
        selector(&object, &from_yaml(CLUSTER).unwrap(), "shop", name)
    }

    #[test]
    fn pods_are_the_operators_or_those_of_a_service() {
        let own = Labels::from([(GATEWAY_NAME_LABEL.to_owned(), "web".to_owned())]);
        assert_eq!(selected("web", "[]"), own);
        let host = |host: &str| format!(r#"[{{"type": "Hostname", "value": "{host}"}}]"#);
        let edge = Labels::from([("app".to_owned(), "edge".to_owned())]);
        assert_eq!(selected("web", &host("edge.shop.svc.cluster.local")), edge);
        for elsewhere in ["edge.other.svc", "nobody", "all"] {
            assert_eq!(selected("web", &host(elsewhere)), own, "{elsewhere}");
        }
        assert_eq!(selected(&"a".repeat(100), "[]")[GATEWAY_NAME_LABEL].len(), 63);
    }
}
