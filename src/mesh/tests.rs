//! Lookups over a whole mesh, and validation of single objects.

use serde_json::json;

use super::{Labels, Mesh, PeerTls, endpoints, validate};
use crate::{
    api::istio::networking::VirtualService,
    watch::{Snapshot, from_yaml},
};

fn mesh(yaml: &str) -> Mesh {
    let snapshot = from_yaml(yaml).unwrap();
    super::build(&snapshot, &endpoints::build(&snapshot)).0
}

const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: meshwright-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: old}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: db, namespace: old}
spec:
  selector: {matchLabels: {app: db}}
  portLevelMtls: {"3306": {mode: DISABLE}, "1": {mode: UNSET}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: new}
spec:
  selector: {matchLabels: {app: open}}
  mtls: {mode: DISABLE}
  portLevelMtls: {"1": {mode: UNSET}}
"#;

#[test]
fn the_narrowest_peer_authentication_wins() {
    let mesh = mesh(POLICIES);
    let app = |name: &str| Labels::from([("app".to_owned(), name.to_owned())]);
    for (name, namespace, port, want) in [
        ("web", "new", 80, PeerTls::Strict),
        ("web", "old", 80, PeerTls::Permissive),
        ("db", "old", 3306, PeerTls::Disabled),
        ("db", "old", 80, PeerTls::Permissive),
        ("db", "old", 1, PeerTls::Permissive),
        ("db", "new", 3306, PeerTls::Strict),
        ("open", "new", 80, PeerTls::Disabled),
        ("open", "new", 1, PeerTls::Disabled),
    ] {
        assert_eq!(
            mesh.peer_tls(&app(name), namespace, Some(port)),
            want,
            "{name} {namespace} {port}"
        );
    }
    let nothing = Mesh::default();
    assert_eq!(nothing.peer_tls(&app("web"), "shop", Some(80)), PeerTls::Permissive);
}

#[test]
fn destination_rules_of_the_client_then_the_service_then_the_system() {
    let rule = |name: &str, namespace: &str, host: &str, more: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: \
             {name}, namespace: {namespace}}}\nspec: {{host: {host}{more}}}\n"
        )
    };
    let host = "cart.shop.svc.cluster.local";
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: \
                {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n"
        .to_owned()
        + &rule("client", "web", host, "")
        + &rule("service", "shop", "cart", ", exportTo: [shop, other]")
        + &rule("system", "meshwright-system", "\"*.cluster.local\"", "")
        + &rule("stranger", "elsewhere", host, "");
    let mesh = mesh(&yaml);
    for (client, want) in
        [("web", "client"), ("shop", "service"), ("other", "service"), ("third", "system")]
    {
        let found = mesh.destination_policy(host, client).unwrap();
        assert_eq!(found.origin.name, want, "{client}");
    }
    assert!(mesh.destination_policy("example.com", "third").is_none());
}

#[test]
fn validation_needs_no_cluster_and_says_what_the_mesh_says() {
    let object: VirtualService = serde_json::from_value(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "x", "namespace": "shop"},
        "spec": {
            "hosts": ["missing"],
            "http": [{"timeout": "soon", "route": [{"destination": {"host": "missing"}}]}],
        },
    }))
    .unwrap();
    let alone = validate::virtual_service(&object);
    let reasons: Vec<_> = alone.iter().map(|found| found.reason).collect();
    assert_eq!(reasons, ["InvalidDuration"]);
    let mut snapshot = Snapshot::default();
    let key = super::Key::new("shop", "x");
    snapshot.virtual_services = std::sync::Arc::new([(key, object.into())].into());
    let (_, all) = super::build(&snapshot, &endpoints::build(&snapshot));
    assert!(alone.iter().all(|found| all.contains(found)));
}

#[test]
fn a_bad_object_leaves_others_alone() {
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: \
                {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n---\napiVersion: \
                networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: good, namespace: \
                shop}\nspec: {hosts: [cart], http: [{route: [{destination: {host: cart}}]}]}\n";
    let bad = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: \
               bad, namespace: shop}\nspec: {hosts: [\"?\"], http: [{route: [{}]}]}\n";
    assert_eq!(mesh(good).routes, mesh(&format!("{good}{bad}")).routes);
}
