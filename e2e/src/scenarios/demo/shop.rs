//! The sample application: `front` (HTTP/1) calls `catalog` (HTTP/2, two versions) and `cart`
//! (gRPC); `cart` calls `stock` (lines over TCP), `catalog` calls `db` (TCP, the server speaks first).

use anyhow::Result;
use serde_json::{Value, json};

use super::super::{
    client::Client,
    manifest::{self, Port, Workload},
};
use crate::cluster::Cluster;

/// Namespace of the sample, in the mesh.
pub const SHOP: &str = "shop";
/// A namespace that is not.
pub const OUTSIDE: &str = "outside";
/// Host under which the gateway serves the front.
pub const HOST: &str = "shop.example.test";
/// The gateway as pods reach it.
pub const GATEWAY_NAME: &str = "ingress.meshwright-system";
/// A page of the catalog that calls nothing further.
pub const CATALOG_ITEM: &str = "h2c://catalog/item";

/// Name, version, service, container port, flags.
struct Part {
    name: &'static str,
    app: &'static str,
    version: &'static str,
    port: u16,
    flags: &'static [&'static str],
}

const PARTS: [Part; 6] = [
    Part {
        name: "front",
        app: "front",
        version: "v1",
        port: 8080,
        flags: &["--http", "8080", "--onward", "h2c://catalog/", "--onward", "grpc://cart:50051"],
    },
    Part {
        name: "catalog-v1",
        app: "catalog",
        version: "v1",
        port: 8080,
        flags: &["--http2", "8080", "--onward", "banner://db:3306"],
    },
    Part {
        name: "catalog-v2",
        app: "catalog",
        version: "v2",
        port: 8080,
        flags: &["--http2", "8080", "--onward", "banner://db:3306"],
    },
    Part {
        name: "cart",
        app: "cart",
        version: "v1",
        port: 50051,
        flags: &["--grpc", "50051", "--onward", "tcp://stock:9000"],
    },
    Part { name: "stock", app: "stock", version: "v1", port: 9000, flags: &["--tcp", "9000"] },
    Part { name: "db", app: "db", version: "v1", port: 3306, flags: &["--server-first", "3306"] },
];

/// Applies the sample and waits until it runs.
pub fn deploy(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let mut objects =
        vec![manifest::namespace(SHOP, true), manifest::unlabelled_namespace(OUTSIDE)];
    for part in &PARTS {
        let workload = Workload::server(SHOP, part.name, part.version, part.flags)
            .of_app(part.app)
            .ready_on(part.port);
        objects.extend(workload.objects(image));
    }
    for (name, port) in [
        ("front", Port::named("http", 80, 8080)),
        ("catalog", Port::named("http2", 80, 8080)),
        ("cart", Port::named("grpc", 50051, 50051)),
        ("stock", Port::named("tcp", 9000, 9000)),
        ("db", Port::named("mysql", 3306, 3306)),
    ] {
        objects.push(manifest::service(SHOP, name, name, &[port]));
    }
    objects.extend(Workload::client(OUTSIDE, "stranger").objects(image));
    manifest::apply(cluster, &objects)?;
    let workloads: Vec<String> = PARTS.iter().map(|part| format!("deploy/{}", part.name)).collect();
    let workloads: Vec<&str> = workloads.iter().map(String::as_str).collect();
    manifest::rolled_out(cluster, SHOP, &workloads)?;
    manifest::rolled_out(cluster, OUTSIDE, &["deploy/stranger"])
}

/// The gateway's server for the shop's host, and the route from there to the front.
pub fn entrance() -> [Value; 2] {
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"namespace": SHOP, "name": "shop"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]},
            ],
        },
    });
    let http = json!([{"route": [{"destination": {"host": "front"}}]}]);
    let mut route = manifest::virtual_service(SHOP, "shop", &[HOST], &http);
    route["spec"]["gateways"] = json!(["shop"]);
    [gateway, route]
}

/// The pod outside the mesh.
pub fn stranger(cluster: &Cluster) -> Client<'_> {
    Client::pod(cluster, OUTSIDE, "deploy/stranger")
}
