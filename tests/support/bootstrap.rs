//! A static configuration for a real Envoy, from what a proxy gets.

use std::path::PathBuf;

use meshwright::xds::ResourceType;
use serde_json::{Value, json};

use crate::support;

pub fn envoy() -> PathBuf {
    let cached = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        home.join(".cache/meshwright/tools/envoy-1.40.0/envoy")
    };
    let path = std::env::var_os("MESHWRIGHT_ENVOY").map_or_else(cached, PathBuf::from);
    assert!(
        path.is_file(),
        "this test needs an Envoy 1.40: set MESHWRIGHT_ENVOY to its path ({} is no file)",
        path.display()
    );
    path
}

/// What a proxy gets, in the form of a static configuration: route tables inline, endpoints as
/// clusters of their own.
pub fn bootstrap(proxy: &support::Proxy) -> Value {
    let mut all = proxy.to_json();
    let tables = all["routes"].take();
    let mut listeners = all["listeners"].take();
    inline(&mut listeners, tables.as_array().unwrap());
    let mut clusters = all["clusters"].take();
    let clusters_list = clusters.as_array_mut().unwrap();
    for (index, endpoints) in
        support::all(&proxy.endpoints, ResourceType::Endpoints).into_iter().enumerate()
    {
        clusters_list.push(json!({
            "name": format!("endpoints-{index}"),
            "type": "STATIC",
            "load_assignment": endpoints,
        }));
    }
    clusters_list.extend(["xds-grpc", "sds-grpc"].map(grpc));
    json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        }},
        "static_resources": {
            "clusters": clusters,
            "listeners": listeners,
            "secrets": all["secrets"].take(),
        },
    })
}

fn grpc(name: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type":
                    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": "127.0.0.1", "port_value": 1},
            }}}]}],
        },
    })
}

/// Puts route tables where they are named.
fn inline(value: &mut Value, tables: &[Value]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, tables)),
        Value::Object(fields) => {
            if let Some(rds) = fields.remove("rds") {
                let name = &rds["route_config_name"];
                let table = tables.iter().find(|table| table["name"] == *name);
                let table = table.unwrap_or_else(|| panic!("no route table {name}"));
                fields.insert("route_config".to_owned(), table.clone());
            }
            fields.values_mut().for_each(|field| inline(field, tables));
        }
        _ => {}
    }
}
