//! Snapshots from YAML: for tests, goldens and tools that look at files instead of a cluster.

use std::sync::Arc;

use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use serde_json::Value;

use super::{
    kind::{Kind, key_of},
    snapshot::Snapshot,
};
use crate::api::{
    gateway as gateway_api,
    istio::{networking, security},
    meshwright::MeshInstallation,
};

/// Why a text is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not YAML")]
    Syntax(#[source] serde_saphyr::Error),
    #[error("document {0} has no apiVersion or no kind")]
    Untyped(usize),
    #[error("document {0}: no table for {1}")]
    UnknownKind(usize, String),
    #[error("document {0}: {1} does not decode")]
    Invalid(usize, String, #[source] serde_json::Error),
}

/// Reads a multi-document YAML of Kubernetes objects, Lists included. Namespaced objects without a
/// namespace are in `default`; the first MeshInstallation is the installation.
pub fn from_yaml(text: &str) -> Result<Snapshot, Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(Error::Syntax)?;
    let mut snapshot =
        Snapshot { system_namespace: "meshwright-system".into(), ..Snapshot::default() };
    for (index, document) in documents.into_iter().enumerate() {
        if !document.is_null() {
            insert(&mut snapshot, index + 1, document)?;
        }
    }
    Ok(snapshot)
}

fn insert(snapshot: &mut Snapshot, index: usize, mut document: Value) -> Result<(), Error> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Err(Error::Untyped(index));
    };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind.as_str()) {
        ("", "List") => {
            let items = document.get_mut("items").map(Value::take).unwrap_or_default();
            let Value::Array(items) = items else { return Ok(()) };
            return items.into_iter().try_for_each(|item| insert(snapshot, index, item));
        }
        ("", "Namespace") => add::<core::Namespace>(snapshot, document),
        ("", "Node") => add::<core::Node>(snapshot, document),
        ("", "Service") => add::<core::Service>(snapshot, document),
        ("", "Pod") => add::<core::Pod>(snapshot, document),
        ("", "Secret") => add::<core::Secret>(snapshot, document),
        ("discovery.k8s.io", "EndpointSlice") => add::<EndpointSlice>(snapshot, document),
        ("meshwright.dev", "MeshInstallation") => installation(snapshot, document),
        ("networking.istio.io", "VirtualService") => {
            add::<networking::VirtualService>(snapshot, document)
        }
        ("networking.istio.io", "DestinationRule") => {
            add::<networking::DestinationRule>(snapshot, document)
        }
        ("networking.istio.io", "Gateway") => add::<networking::Gateway>(snapshot, document),
        ("networking.istio.io", "ServiceEntry") => {
            add::<networking::ServiceEntry>(snapshot, document)
        }
        ("security.istio.io", "PeerAuthentication") => {
            add::<security::PeerAuthentication>(snapshot, document)
        }
        (gateway_api::GROUP, "GatewayClass") => {
            add::<gateway_api::GatewayClass>(snapshot, document)
        }
        (gateway_api::GROUP, "Gateway") => add::<gateway_api::Gateway>(snapshot, document),
        (gateway_api::GROUP, "HTTPRoute") => add::<gateway_api::HttpRoute>(snapshot, document),
        (gateway_api::GROUP, "ReferenceGrant") => {
            add::<gateway_api::ReferenceGrant>(snapshot, document)
        }
        _ => return Err(Error::UnknownKind(index, format!("{version} {kind}"))),
    }
    .map_err(|error| Error::Invalid(index, format!("{version} {kind}"), error))
}

fn add<K: Kind>(snapshot: &mut Snapshot, document: Value) -> Result<(), serde_json::Error>
where
    K::Trimmed: Clone,
{
    let mut object: K = serde_json::from_value(document)?;
    if !CLUSTER_SCOPED.contains(&K::kind(&()).as_ref()) {
        object.meta_mut().namespace.get_or_insert_with(|| "default".to_owned());
    }
    let key = key_of(&object);
    Arc::make_mut(K::table(snapshot)).insert(key, Arc::new(object.trim()));
    Ok(())
}

const CLUSTER_SCOPED: [&str; 3] = ["Namespace", "Node", "GatewayClass"];

fn installation(snapshot: &mut Snapshot, document: Value) -> Result<(), serde_json::Error> {
    let object: MeshInstallation = serde_json::from_value(document)?;
    snapshot.installation.get_or_insert_with(|| Arc::new(object));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Key;

    #[test]
    fn reads_documents_and_lists() {
        let snapshot = from_yaml(
            r"
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata: {name: cart}
  spec: {hosts: [cart]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: C, tls.key: K}
",
        )
        .unwrap();
        assert_eq!(snapshot.services[&Key::new("shop", "cart")].ports[0].port, 80);
        assert!(snapshot.namespaces.contains_key(&Key::new("", "shop")));
        assert!(snapshot.virtual_services.contains_key(&Key::new("default", "cart")));
        assert_eq!(snapshot.tls_secrets[&Key::new("shop", "cert")].private_key, b"K");
    }

    #[test]
    fn names_what_it_cannot_read() {
        let error = |text: &str| from_yaml(text).unwrap_err().to_string();
        assert_eq!(error("kind: Service"), "document 1 has no apiVersion or no kind");
        assert_eq!(
            error("apiVersion: apps/v1\nkind: Deployment"),
            "document 1: no table for apps/v1 Deployment"
        );
    }
}
