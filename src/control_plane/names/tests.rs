use std::time::Instant;

use prost::Message;

use super::*;
use crate::{
    control_plane::{Engine, World},
    watch::{Changes, Key, from_yaml},
};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIPs: [10.96.0.1, "fd00::1"], ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: secret, namespace: shop, annotations: {networking.istio.io/exportTo: "."}}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: shop}
spec: {type: ExternalName, externalName: Pay.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: []}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-x, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], hostname: db-0}
- {addresses: [10.0.0.2], hostname: db-1}
- {addresses: [10.0.0.3], hostname: db-2, conditions: {ready: false}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static, namespace: shop}
spec:
  hosts: [static.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: written, namespace: shop}
spec:
  hosts: ["*.example.org"]
  addresses: [192.0.2.7, 198.51.100.0/24]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: shop}
spec:
  hosts: [dns.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
"#;

fn world(engine: &mut Engine, yaml: &str, changes: &Changes) -> World {
    engine.apply(&from_yaml(yaml).unwrap(), changes).unwrap()
}

/// `NAME: ADDRESSES`, `NAME -> ALIAS`; a wildcard says so.
fn shown(world: &World, namespace: &str) -> Vec<String> {
    let layers = world.names.layers(&namespace.into());
    let resources = layers.iter().flat_map(|set| set.by_name.values());
    let mut lines: Vec<_> = resources
        .map(|resource| {
            let host = names::Host::decode(resource.body.clone()).unwrap();
            let ip = |bytes: &Bytes| match <[u8; 4]>::try_from(&bytes[..]) {
                Ok(v4) => IpAddr::from(v4).to_string(),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()).to_string(),
            };
            let addresses: Vec<_> = host.addresses.iter().map(ip).collect();
            let wildcard = if host.wildcard { " (wildcard)" } else { "" };
            match host.alias.as_str() {
                "" => format!("{}: {}{wildcard}", resource.name, addresses.join(" ")),
                alias => format!("{} -> {alias}", resource.name),
            }
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn hosts_are_those_that_a_namespace_sees() {
    let world = world(&mut Engine::default(), CLUSTER, &Changes::all());
    let everyone = [
        "*.example.org: 192.0.2.7 (wildcard)",
        "cart.shop.svc.cluster.local: 10.96.0.1 fd00::1",
        "db-0.db.shop.svc.cluster.local: 10.0.0.1",
        "db-1.db.shop.svc.cluster.local: 10.0.0.2",
        "db.shop.svc.cluster.local: 10.0.0.1 10.0.0.2",
        "pay.shop.svc.cluster.local -> pay.example.com",
        "static.example.com: 192.0.2.1",
    ];
    assert_eq!(shown(&world, "web"), everyone);
    let mut own: Vec<_> = everyone.map(str::to_owned).into();
    own.push("secret.shop.svc.cluster.local: 10.96.0.2".to_owned());
    own.sort();
    assert_eq!(shown(&world, "shop"), own);
}

#[test]
fn hosts_without_an_address_are_given_one_where_that_is_asked_for() {
    let installation = "---
apiVersion: meshwright.dev/v1alpha1
kind: MeshInstallation
metadata: {name: mesh}
spec: {dns: {autoAllocate: true}}
";
    let world =
        world(&mut Engine::default(), &(CLUSTER.to_owned() + installation), &Changes::all());
    let shown = shown(&world, "web");
    let given = |host: &str| {
        let prefix = format!("{host}: 240.240.");
        shown.iter().any(|line| line.starts_with(&prefix) && line.contains(" 2001:2::"))
    };
    assert!(given("static.example.com") && given("dns.example.com"), "{shown:?}");
    assert!(shown.contains(&"*.example.org: 192.0.2.7 (wildcard)".to_owned()));
}

#[test]
fn an_endpoint_changes_its_own_hosts_and_no_others() {
    let mut engine = Engine::default();
    let first = world(&mut engine, CLUSTER, &Changes::all());
    let web: Arc<str> = "web".into();
    let before = first.names.layers(&web);
    let moved = CLUSTER.replace("10.0.0.2", "10.0.0.9").replace("db-1", "db-9");
    let changes = Changes { endpoints_of: [Key::new("shop", "db")].into(), ..Changes::default() };
    let update = engine.endpoints(&from_yaml(&moved).unwrap(), &changes, Instant::now());
    let second = update.world.unwrap();
    let after = second.names.layers(&web);
    let lines = shown(&second, "web");
    assert!(lines.contains(&"db.shop.svc.cluster.local: 10.0.0.1 10.0.0.9".to_owned()));
    assert!(lines.contains(&"db-9.db.shop.svc.cluster.local: 10.0.0.9".to_owned()));
    assert!(!lines.iter().any(|line| line.starts_with("db-1.")));
    let others = after[0]
        .by_name
        .values()
        .filter(|host| before[0].get(&host.name).is_none_or(|old| !Arc::ptr_eq(old, host)));
    assert_eq!(others.count(), 2, "db itself and db-9");
    assert!(Arc::ptr_eq(&before[1], &after[1]), "the namespace's own hosts are untouched");
}

#[test]
fn a_rebuild_without_a_difference_gives_the_same_sets() {
    let mut engine = Engine::default();
    let shop: Arc<str> = "shop".into();
    let first = world(&mut engine, CLUSTER, &Changes::all()).names.layers(&shop);
    let second = world(&mut engine, CLUSTER, &Changes::all()).names.layers(&shop);
    assert!(first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn equal_addresses_under_other_names_are_other_sets() {
    let mut engine = Engine::default();
    let first = world(&mut engine, CLUSTER, &Changes::all());
    let web: Arc<str> = "web".into();
    let kept = first.names.layers(&web);
    let renamed = CLUSTER.replace("name: cart", "name: card");
    let second = world(&mut engine, &renamed, &Changes::all());
    assert!(shown(&second, "web").iter().any(|line| line.starts_with("card.")));
    assert!(kept[0].get("cart.shop.svc.cluster.local").is_some());
}

#[test]
fn nobody_asks_and_nothing_is_made() {
    let world = world(&mut Engine::default(), CLUSTER, &Changes::all());
    assert!(world.names.sets.lock().unwrap().is_empty());
}
