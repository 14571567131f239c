//! Who calls whom, as the proxies of the called have counted it by the callers' certificates.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

use super::{
    super::{
        metrics::{self, Sample},
        testbed,
    },
    shop::{self, SHOP},
};
use crate::cluster::{Cluster, wait_for};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    caller: String,
    called: String,
    protocol: &'static str,
    security: String,
}

/// Requests (or connections) by edge.
pub type Graph = BTreeMap<Edge, f64>;

/// Calls that the sample makes, all of which a reader expects to find.
const EXPECTED: [(&str, &str); 6] = [
    ("meshwright-system/ingress", "front"),
    ("shop/front", "catalog"),
    ("shop/front", "cart"),
    ("shop/cart", "stock"),
    ("shop/catalog", "db"),
    (OUTSIDER, "front"),
];

/// Whoever came without a certificate.
const OUTSIDER: &str = "(no certificate)";

/// Reads every proxy of the shop. What was called a moment ago is counted a moment later.
pub fn read(cluster: &Cluster) -> Result<Graph> {
    wait_for("every call of the sample counted", Duration::from_secs(20), || {
        let graph = count(cluster)?;
        for (caller, called) in EXPECTED {
            let counted =
                graph.keys().any(|edge| edge.caller == caller && edge.called.starts_with(called));
            ensure!(counted, "no call from {caller} to {called} was counted");
        }
        Ok(Some(graph))
    })
}

fn count(cluster: &Cluster) -> Result<Graph> {
    let selector = "meshwright.dev/revision";
    let pods =
        cluster.kubectl_json(&["get", "pods", "--namespace", SHOP, "--selector", selector])?;
    let mut graph = Graph::new();
    for pod in testbed::items(&pods) {
        let running = pod["status"]["phase"] == "Running";
        let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        if let (Some(address), true, false) = (pod["status"]["podIP"].as_str(), running, leaving) {
            add(&mut graph, &metrics::scrape(shop::stranger(cluster), address)?);
        }
    }
    Ok(graph)
}

/// Adds what one proxy has counted as the called side.
fn add(graph: &mut Graph, samples: &[Sample]) {
    for sample in samples {
        let protocol = match sample.name.as_str() {
            "istio_requests_total" if sample.label("request_protocol") == "grpc" => "gRPC",
            "istio_requests_total" => "HTTP",
            "istio_tcp_connections_opened_total" => "TCP",
            _ => continue,
        };
        if sample.label("reporter") != "destination" {
            continue;
        }
        let edge = Edge {
            caller: caller(sample.label("source_principal")),
            called: sample.label("destination_workload").to_owned(),
            protocol,
            security: sample.label("connection_security_policy").replace('_', " "),
        };
        *graph.entry(edge).or_default() += sample.value;
    }
}

/// `namespace/account` of a SPIFFE identity.
fn caller(principal: &str) -> String {
    let path = principal.split_once("/ns/").map(|(_, path)| path);
    match path.and_then(|path| path.split_once("/sa/")) {
        Some((namespace, account)) => format!("{namespace}/{account}"),
        None => OUTSIDER.to_owned(),
    }
}

/// The graph as lines of a table.
pub fn table(graph: &Graph) -> Vec<String> {
    let line = |caller: &str, called: &str, protocol: &str, count: &str, security: &str| {
        let line = format!("{caller:<28} {called:<12} {protocol:<8} {count:>8}  {security}");
        line.trim_end().to_owned()
    };
    let mut lines = vec![line("CALLER", "CALLED", "PROTOCOL", "COUNT", "SECURITY")];
    for (edge, count) in graph {
        let count = format!("{count:.0}");
        lines.push(line(&edge.caller, &edge.called, edge.protocol, &count, &edge.security));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_come_from_the_called_side_alone() {
        let samples = metrics::parse(
            r#"istio_requests_total{reporter="destination",source_principal="spiffe://cluster.local/ns/shop/sa/front",destination_workload="catalog-v1",request_protocol="http",response_code="200",connection_security_policy="mutual_tls"} 9
istio_requests_total{reporter="destination",source_principal="spiffe://cluster.local/ns/shop/sa/front",destination_workload="catalog-v1",request_protocol="http",response_code="503",connection_security_policy="mutual_tls"} 1
istio_requests_total{reporter="source",source_principal="spiffe://cluster.local/ns/shop/sa/catalog",destination_workload="db"} 5
istio_requests_total{reporter="destination",source_principal="unknown",destination_workload="front",connection_security_policy="none"} 2
istio_tcp_connections_opened_total{reporter="destination",source_principal="spiffe://cluster.local/ns/shop/sa/cart",destination_workload="stock",connection_security_policy="mutual_tls"} 3
"#,
        );
        let mut graph = Graph::new();
        add(&mut graph, &samples);
        assert_eq!(
            table(&graph),
            [
                "CALLER                       CALLED       PROTOCOL    COUNT  SECURITY",
                "(no certificate)             front        HTTP            2  none",
                "shop/cart                    stock        TCP             3  mutual tls",
                "shop/front                   catalog-v1   HTTP           10  mutual tls",
            ]
        );
    }

    #[test]
    fn whoever_has_no_identity_is_an_outsider() {
        assert_eq!(caller("spiffe://cluster.local/ns/shop/sa/front"), "shop/front");
        assert_eq!(caller("unknown"), OUTSIDER);
        assert_eq!(caller(""), OUTSIDER);
    }
}
