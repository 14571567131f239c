//! What is written, and that it is written once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::watch;

use super::{Findings, Patch, patches, write};
use crate::{mesh, watch::from_yaml};

const CLUSTER: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshwright}
spec: {controllerName: meshwright.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 4}
spec:
  gatewayClassName: meshwright
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop, generation: 2, resourceVersion: "7"}
spec:
  parentRefs: [{name: edge}, {name: edge, sectionName: nothing}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
status:
  parents:
  - parentRef: {name: foreign}
    controllerName: example.com/other
    conditions: []
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop, generation: 3}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"#;

fn findings(yaml: &str) -> Findings {
    let snapshot = from_yaml(yaml).unwrap();
    let (mesh, diagnostics) = mesh::build(&snapshot, &mesh::endpoints::build(&snapshot));
    Findings {
        snapshot,
        mesh: Arc::new(mesh),
        diagnostics: Arc::new(diagnostics),
        rejections: Arc::default(),
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// `TYPE=STATUS/REASON` of a list of conditions.
fn short(conditions: &Value) -> Vec<String> {
    let list = conditions.as_array().unwrap().iter();
    let text = |c: &Value, name: &str| c[name].as_str().unwrap().to_owned();
    list.map(|c| format!("{}={}/{}", text(c, "type"), text(c, "status"), text(c, "reason")))
        .collect()
}

/// The operator reads what the control plane does not: the two must not undo each other's work.
#[test]
fn what_the_operator_has_against_a_gateway_stands() {
    let accepted = |reason: &str| {
        let status = format!(
            "status: {{conditions: [{{type: Accepted, status: \"False\", reason: {reason}, message: m, \
             lastTransitionTime: \"2026-01-01T00:00:00Z\"}}]}}\n"
        );
        let cluster = CLUSTER.replace("protocol: TCP}]\n", &format!("protocol: TCP}}]\n{status}"));
        let found = patches(&findings(&cluster), now());
        let gateway = found.into_iter().find(|patch| patch.resource.kind == "Gateway").unwrap();
        short(&gateway.body["status"]["conditions"])
    };
    assert!(accepted("InvalidParameters").is_empty());
    assert_eq!(accepted("Pending"), ["Accepted=True/ListenersNotValid"]);
}

#[test]
fn conditions_say_what_was_found() {
    let bodies: BTreeMap<String, Value> = patches(&findings(CLUSTER), now())
        .into_iter()
        .map(|patch| (patch.resource.kind.clone(), patch.body))
        .collect();
    let service = &bodies["VirtualService"]["status"];
    assert_eq!(service["observedGeneration"], 3);
    assert_eq!(short(&service["conditions"]), ["Ready=False/HostNotFound"]);
    let message = service["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("spec.http[0].route[0].destination.host: there is no service web"));

    let class = &bodies["GatewayClass"]["status"];
    assert_eq!(short(&class["conditions"]), ["Accepted=True/Accepted"]);

    let gateway = &bodies["Gateway"]["status"];
    assert_eq!(short(&gateway["conditions"]), ["Accepted=True/ListenersNotValid"]);
    assert!(gateway.get("addresses").is_none(), "they are the operator's");
    let [http, tcp] = &gateway["listeners"].as_array().unwrap()[..] else { panic!() };
    assert_eq!((&http["attachedRoutes"], &tcp["attachedRoutes"]), (&1.into(), &0.into()));
    assert_eq!(http["supportedKinds"][0]["kind"], "HTTPRoute");
    assert_eq!(
        short(&tcp["conditions"]),
        [
            "Conflicted=False/NoConflicts",
            "Accepted=False/UnsupportedProtocol",
            "ResolvedRefs=True/ResolvedRefs",
            "Programmed=False/Invalid"
        ]
    );

    let route = &bodies["HTTPRoute"];
    assert_eq!(route["metadata"]["resourceVersion"], "7");
    let [foreign, whole, section] = &route["status"]["parents"].as_array().unwrap()[..] else {
        panic!()
    };
    assert_eq!(foreign["controllerName"], "example.com/other");
    assert_eq!(
        short(&whole["conditions"]),
        ["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]
    );
    assert_eq!(section["conditions"][0]["reason"], "NoMatchingParent");
}

#[test]
fn an_entry_says_which_addresses_its_hosts_were_given() {
    let yaml = r"
apiVersion: meshwright.dev/v1alpha1
kind: MeshInstallation
metadata: {name: mesh}
spec: {dns: {autoAllocate: true}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop, generation: 2}
spec:
  hosts: [API.example.com]
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}]
";
    let of = |kind: &str, all: Vec<Patch>| -> Vec<Patch> {
        all.into_iter().filter(|patch| patch.resource.kind == kind).collect()
    };
    let settings = of("MeshInstallation", patches(&findings(yaml), now()));
    let said = short(&settings[0].body["status"]["conditions"]);
    assert_eq!(said, ["MeshConfigured=True/Accepted"]);
    let first = of("ServiceEntry", patches(&findings(yaml), now()));
    let status = &first[0].body["status"];
    assert_eq!(short(&status["conditions"]), ["Ready=True/Accepted"]);
    let [v4, v6] = &status["addresses"].as_array().unwrap()[..] else { panic!("{status}") };
    assert!(v4["value"].as_str().unwrap().starts_with("240.240."));
    assert!(v6["value"].as_str().unwrap().starts_with("2001:2::"));
    assert_eq!((&v4["host"], &v6["host"]), (&"api.example.com".into(), &"api.example.com".into()));

    let mut said = findings(yaml);
    let entries = Arc::make_mut(&mut said.snapshot.service_entries);
    let entry = Arc::make_mut(entries.values_mut().next().unwrap());
    entry.status = Some(serde_json::from_value(status.clone()).unwrap());
    assert!(of("ServiceEntry", patches(&said, now())).is_empty(), "it says so already");
}

#[test]
fn what_an_object_says_already_is_not_written_again() {
    let findings = findings(CLUSTER);
    let mut written = Vec::new();
    for patch in patches(&findings, now()) {
        let is_it =
            |document: &&str| document.contains(&format!("\nkind: {}\n", patch.resource.kind));
        let document = CLUSTER.split("---\n").find(is_it).unwrap();
        let document = document.split("\nstatus:").next().unwrap().trim_end();
        written.push(format!("{document}\nstatus: {}\n", patch.body["status"]));
    }
    let written = written.join("---\n");
    let again = patches(&self::findings(&written), Timestamp::from_second(1_900_000_000).unwrap());
    assert!(again.is_empty(), "{again:#?}");
}

/// An API server that takes every patch and remembers its path.
fn server() -> (kube::Client, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        async move {
            let body = request.into_body().collect_bytes().await?;
            Ok::<_, kube::Error>(Response::new(Body::from(body.to_vec())))
        }
    });
    (kube::Client::new(service, "default"), seen)
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_only_once() {
    let (client, seen) = server();
    let (lead, leader) = watch::channel(false);
    let (send, receive) = watch::channel(findings(CLUSTER));
    let writer = tokio::spawn(write(client, leader, receive));
    let settle = || tokio::time::sleep(std::time::Duration::from_secs(5));
    settle().await;
    assert!(seen.lock().unwrap().is_empty(), "not leading");
    lead.send(true).unwrap();
    settle().await;
    let first = seen.lock().unwrap().clone();
    assert_eq!(first.len(), 4, "{first:?}");
    assert!(first.iter().all(|line| line.starts_with("PATCH ") && line.ends_with("/status")));
    // The same news from before the writes were seen.
    send.send(findings(CLUSTER)).unwrap();
    settle().await;
    assert_eq!(seen.lock().unwrap().len(), 4);
    drop(send);
    writer.await.unwrap();
}
