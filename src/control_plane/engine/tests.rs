use super::*;
use crate::{
    control_plane::world::Own,
    mesh::{ProxyNode, ProxyRole},
    watch::{Key, from_yaml},
    xds::{ResourceType, View},
};

/// Two services of one pod each; `cart` is labelled for a subset.
fn yaml(cart_address: &str) -> String {
    let service = |name: &str, address: &str, ip: &str| {
        format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{port: 80, name: http}}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}-0
  namespace: shop
  labels: {{app: {name}, version: v1}}
  annotations: {{meshwright.dev/status: "{{}}"}}
spec: {{serviceAccountName: {name}, containers: []}}
status: {{podIP: {address}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-x, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints:
- addresses: [{address}]
  targetRef: {{kind: Pod, name: {name}-0, namespace: shop}}
ports: [{{name: http, port: 8080}}]
---
"#
        )
    };
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}]}
";
    service("cart", cart_address, "10.96.0.1") + &service("web", "10.0.0.2", "10.96.0.2") + rule
}

fn node() -> ProxyNode {
    ProxyNode {
        role: ProxyRole::Sidecar,
        key: Key::new("shop", "web-0"),
        addresses: vec!["10.0.0.2".parse().unwrap()],
        labels: [("app".to_owned(), "web".to_owned())].into(),
        service_account: "web".into(),
        workload: "web".into(),
    }
}

fn view(world: &World) -> View {
    world.view(&node(), &mut None::<Own>)
}

fn cart() -> Changes {
    Changes { endpoints_of: [Key::new("shop", "cart")].into(), ..Changes::default() }
}

#[test]
fn every_set_of_endpoints_that_clusters_wait_for_exists() {
    let snapshot = from_yaml(&yaml("10.0.0.1")).unwrap();
    let world = Engine::default().apply(&snapshot, &Changes::all()).unwrap();
    let view = view(&world);
    let clusters = view.layers(ResourceType::Cluster).iter().flat_map(|set| set.by_name.values());
    let waiting: Vec<_> = clusters.filter_map(|c| c.warmed_by.clone()).collect();
    let subset = "80|cart.shop.svc.cluster.local|version=v1";
    assert!(waiting.iter().any(|name| &**name == subset), "{waiting:?}");
    for name in waiting {
        assert!(view.get(ResourceType::Endpoints, &name).is_some(), "{name}");
    }
}

#[test]
fn an_endpoint_change_is_endpoints_alone() {
    let mut engine = Engine::default();
    let first = engine.apply(&from_yaml(&yaml("10.0.0.1")).unwrap(), &Changes::all()).unwrap();
    let snapshot = from_yaml(&yaml("10.0.0.9")).unwrap();
    let second = engine.apply(&snapshot, &cart()).unwrap();
    assert_eq!(second.config.generation, first.config.generation);
    let name = "80|cart.shop.svc.cluster.local";
    let version = |world: &World, name| world.endpoints.get(name).unwrap().version;
    assert_ne!(version(&first, name), version(&second, name));
    let other = "80|web.shop.svc.cluster.local";
    let resource = |world: &World| world.endpoints.get(other).unwrap().clone();
    assert!(Arc::ptr_eq(&resource(&first), &resource(&second)));

    let again = engine.apply(&snapshot, &cart()).unwrap();
    assert_eq!(again.sequence, second.sequence, "the same endpoints are no change");
}

#[test]
fn a_new_identity_behind_a_service_rebuilds() {
    let mut engine = Engine::default();
    let first = engine.apply(&from_yaml(&yaml("10.0.0.1")).unwrap(), &Changes::all()).unwrap();
    let text = yaml("10.0.0.1").replace("serviceAccountName: cart", "serviceAccountName: other");
    let second = engine.apply(&from_yaml(&text).unwrap(), &cart()).unwrap();
    assert!(second.config.generation > first.config.generation);
}

/// Pods that an entry selects have no EndpointSlice: their own readiness counts.
#[test]
fn a_pod_behind_an_entry_is_endpoints_alone() {
    let yaml = |ready: &str| {
        format!(
            r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: batch, namespace: shop}}
spec:
  hosts: [Batch.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  workloadSelector: {{labels: {{app: batch}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: batch-0, namespace: shop, labels: {{app: batch}}}}
spec: {{containers: []}}
status: {{podIP: 10.0.0.7, conditions: [{{type: Ready, status: "{ready}"}}]}}
"#
        )
    };
    let mut engine = Engine::default();
    let first = engine.apply(&from_yaml(&yaml("False")).unwrap(), &Changes::all()).unwrap();
    let changes = Changes { entries: [Key::new("shop", "batch")].into(), ..Changes::default() };
    let second = engine.apply(&from_yaml(&yaml("True")).unwrap(), &changes).unwrap();
    assert_eq!(second.config.generation, first.config.generation);
    let size = |world: &World| world.endpoints.get("80|batch.internal").unwrap().body.len();
    assert!(size(&second) > size(&first));
}

#[test]
fn a_rebuild_without_a_difference_shares_every_set() {
    let mut engine = Engine::default();
    let snapshot = from_yaml(&yaml("10.0.0.1")).unwrap();
    let first = view(&engine.apply(&snapshot, &Changes::all()).unwrap());
    let second = view(&engine.apply(&snapshot, &Changes::all()).unwrap());
    for kind in ResourceType::ALL {
        let (a, b) = (first.layers(kind), second.layers(kind));
        assert_eq!(a.len(), b.len(), "{kind:?}");
        assert!(a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b)), "{kind:?}");
    }
}

#[test]
fn endpoints_that_change_during_a_rebuild_are_not_lost() {
    let mut engine = Engine::default();
    let before = from_yaml(&yaml("10.0.0.1")).unwrap();
    engine.apply(&before, &Changes::all()).unwrap();
    let rebuild = engine.rebuild(before, Vec::new());
    let after = from_yaml(&yaml("10.0.0.9")).unwrap();
    let now = Instant::now();
    let during = engine.endpoints(&after, &cart(), now).world.unwrap();
    let installed = engine.install(rebuild.run(), &after, now);
    assert_eq!(installed.endpoints, during.endpoints);
}
