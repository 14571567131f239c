//! What proxies refuse → which user's object it came from, where that can be told. Pure.

use std::collections::BTreeMap;

use super::fleet::Refused;
use crate::{
    diagnostic::{Diagnostic, ObjectRef},
    mesh::{HttpMatch, HttpRouting, Mesh, PathMatch, ServiceKind, StringMatch},
    xds::{Rejection, ResourceType},
};

const REASON: &str = "RejectedByProxy";

/// One diagnostic for each object and refused resource, however many proxies refuse it.
pub fn attribute(refused: &[Refused], mesh: &Mesh) -> Vec<Diagnostic> {
    let mut by_content: BTreeMap<(ResourceType, &str, &str), Vec<&Refused>> = BTreeMap::new();
    for one in refused.iter().filter(|one| one.rejection.certain) {
        let Rejection { kind, name, message, .. } = &one.rejection;
        by_content.entry((*kind, name, message)).or_default().push(one);
    }
    let mut diagnostics = Vec::new();
    for ((kind, name, message), refused) in by_content {
        let sentence = sentence(message, &refused);
        for (object, path) in origins(kind, name, message, mesh) {
            diagnostics.push(Diagnostic::error(&object, path, REASON, sentence.clone()));
        }
    }
    diagnostics.sort();
    diagnostics.dedup();
    diagnostics
}

fn sentence(message: &str, refused: &[&Refused]) -> String {
    let first = refused.first().map(|one| one.proxy.to_string()).unwrap_or_default();
    let who = match refused.len() {
        0 | 1 => format!("the proxy of {first} refuses"),
        more => format!("the proxies of {first} and {} others refuse", more - 1),
    };
    format!("{who} what was made of this object and stays with what it had before: {message}")
}

fn origins(
    kind: ResourceType,
    name: &str,
    message: &str,
    mesh: &Mesh,
) -> Vec<(ObjectRef, &'static str)> {
    match kind {
        ResourceType::Cluster => {
            // `outbound|PORT|SUBSET|HOST`.
            let parts: Vec<&str> = name.split('|').collect();
            let ["outbound", _, subset, host] = parts[..] else { return Vec::new() };
            let entry = mesh.services.get(host).and_then(|service| match &service.kind {
                ServiceKind::Entry(entry) => Some((entry.origin.clone(), "spec")),
                _ => None,
            });
            let policies = mesh.destinations.get(host).into_iter().flatten();
            let concerned =
                policies.filter(|policy| subset.is_empty() || policy.subsets.contains_key(subset));
            let path = if subset.is_empty() { "spec.trafficPolicy" } else { "spec.subsets" };
            let rules = concerned.map(|policy| (policy.origin.clone(), path));
            entry.into_iter().chain(rules).collect()
        }
        ResourceType::Route => {
            let concerned = mesh.routes.iter().filter(|routing| is_about(routing, name, message));
            concerned.map(|routing| (routing.origin.clone(), "spec")).collect()
        }
        ResourceType::Secret
        | ResourceType::Endpoints
        | ResourceType::Listener
        | ResourceType::Host
        | ResourceType::Pod => Vec::new(),
    }
}

/// A table of routes holds many objects' rules. Envoy quotes what it does not like: a regular
/// expression, or the virtual host.
fn is_about(routing: &HttpRouting, table: &str, message: &str) -> bool {
    let expressions = routing.rules.iter().flat_map(|r| &r.matches).flat_map(expressions);
    let quoted = |text: &str| !text.is_empty() && message.contains(text);
    let own_table = |host: &str| table.strip_prefix(host).is_some_and(|rest| rest.starts_with(':'));
    expressions.into_iter().any(quoted)
        || routing.hosts.iter().any(|host| own_table(host) || (&**host != "*" && quoted(host)))
}

fn expressions(rule: &HttpMatch) -> Vec<&str> {
    let path = match &rule.path {
        Some(PathMatch::Regex(text)) => Some(text.as_str()),
        _ => None,
    };
    let named = rule.headers.iter().chain(&rule.query).map(|(_, value)| value);
    let values = rule.method.iter().chain(&rule.authority).chain(named);
    let values = values.filter_map(|value| match value {
        StringMatch::Regex(text) => Some(text.as_str()),
        _ => None,
    });
    path.into_iter().chain(values).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        mesh,
        watch::{Key, from_yaml},
    };

    fn mesh() -> Mesh {
        let snapshot = from_yaml(
            "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart-rule, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart-routes, namespace: shop}
spec:
  hosts: [cart]
  http: [{match: [{uri: {regex: '/a+b'}}], route: [{destination: {host: cart}}]}]
",
        )
        .unwrap();
        mesh::build(&snapshot, &mesh::endpoints::build(&snapshot)).0
    }

    fn refused(proxy: &str, kind: ResourceType, name: &str, message: &str) -> Refused {
        let (name, message): (Arc<str>, Arc<str>) = (name.into(), message.into());
        let rejection = Rejection { kind, name, version: Some(1), certain: true, message };
        Refused { proxy: Key::new("shop", proxy), rejection }
    }

    #[test]
    fn clusters_lead_to_destination_rules_and_routes_to_virtual_services() {
        let cluster = "outbound|80|v1|cart.shop.svc.cluster.local";
        let refused = [
            refused("web-0", ResourceType::Cluster, cluster, "bad cluster"),
            refused("web-1", ResourceType::Cluster, cluster, "bad cluster"),
            refused("web-0", ResourceType::Route, "80", "invalid regex '/a+b'"),
            refused("web-0", ResourceType::Route, "81", "something else"),
        ];
        let got = attribute(&refused, &mesh());
        let shown: Vec<_> = got.iter().map(|d| format!("{} {}", d.object, d.path)).collect();
        assert_eq!(
            shown,
            ["DestinationRule shop/cart-rule spec.subsets", "VirtualService shop/cart-routes spec"]
        );
        assert!(got[0].message.starts_with("the proxies of shop/web-0 and 1 others refuse"));
    }
}
