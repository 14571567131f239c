//! Envoy's bootstrap: who this proxy is and how it finds its control plane. Everything else comes
//! over xDS. Pure.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::agent::{
    Settings,
    settings::{Interception, Role, ports},
};

/// The cluster of the control plane.
pub const XDS_CLUSTER: &str = "xds-grpc";
/// The cluster of the agent's secrets.
pub const SDS_CLUSTER: &str = "sds-grpc";
/// The secret with the workload's certificate and key.
pub const WORKLOAD_SECRET: &str = "default";
/// The secret with the roots to trust.
pub const ROOTS_SECRET: &str = "ROOTCA";

const METRICS_CLUSTER: &str = "prometheus_stats";
const METRICS_PATH: &str = "/stats/prometheus";

/// The bootstrap for these settings.
pub fn bootstrap(settings: &Settings) -> Value {
    let mut bootstrap = essentials(settings);
    if let Value::Object(fields) = &mut bootstrap {
        fields.extend(settings.stats.intervals());
        fields.extend(runtime(settings).map(|runtime| ("layered_runtime".to_owned(), runtime)));
    }
    bootstrap
}

/// Lays a part of a bootstrap over a whole one, as Envoy's own `--config-yaml` does: objects by field,
/// lists by appending, all else by replacing.
pub fn merge(bootstrap: &mut Value, part: Value) {
    match (bootstrap, part) {
        (Value::Object(bootstrap), Value::Object(part)) => {
            for (field, value) in part {
                merge(bootstrap.entry(field).or_insert(Value::Null), value);
            }
        }
        (Value::Array(bootstrap), Value::Array(part)) => bootstrap.extend(part),
        (bootstrap, part) => *bootstrap = part,
    }
}

fn essentials(settings: &Settings) -> Value {
    json!({
        "node": node(settings),
        "admin": {"address": socket_address("127.0.0.1", ports::ADMIN)},
        "stats_config": stats_config(settings),
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": XDS_CLUSTER,
                    // A control plane that comes back is found within seconds.
                    "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "5s"}},
                }}],
            },
            "cds_config": from_ads(),
            "lds_config": from_ads(),
        },
        "static_resources": {
            "clusters": [xds_cluster(settings), sds_cluster(settings), metrics_cluster()],
            "listeners": [metrics_listener(settings)],
        },
    })
}

/// Who this proxy is.
pub(super) fn node(settings: &Settings) -> Value {
    let Settings { role, pod_ip, pod_name, cluster_domain, .. } = settings;
    let namespace = &settings.identity.namespace;
    json!({
        "id": format!("{role}~{pod_ip}~{pod_name}.{namespace}~{namespace}.svc.{cluster_domain}"),
        "cluster": format!("{}.{namespace}", settings.workload),
        "metadata": metadata(settings),
    })
}

/// What the pod adds comes first: it cannot change what the mesh says.
fn metadata(settings: &Settings) -> Value {
    let mut metadata = json!(settings.node_metadata);
    let interception = match settings.role {
        Role::Sidecar => settings.interception,
        Role::Router => Interception::None,
    };
    let ours = json!({
        "NAMESPACE": settings.identity.namespace,
        "LABELS": settings.labels,
        "SERVICE_ACCOUNT": settings.identity.service_account,
        "WORKLOAD_NAME": settings.workload,
        "NODE_NAME": settings.node_name,
        "CLUSTER_ID": settings.cluster_id,
        "REVISION": settings.revision,
        "INTERCEPTION_MODE": interception.as_str(),
        "MESHWRIGHT_VERSION": env!("CARGO_PKG_VERSION"),
    });
    merge(&mut metadata, ours);
    if !settings.network.is_empty() {
        metadata["NETWORK"] = json!(settings.network);
    }
    metadata
}

/// The pod's runtime flags, under those that administration sets.
fn runtime(settings: &Settings) -> Option<Value> {
    let typed = |text: &String| match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => json!(text),
    };
    let flags: Map<_, _> =
        settings.runtime.iter().map(|(name, text)| (name.clone(), typed(text))).collect();
    (!flags.is_empty()).then(|| {
        json!({"layers": [
            {"name": "pod", "static_layer": flags},
            {"name": "admin", "admin_layer": {}},
        ]})
    })
}

/// Without a time limit: a proxy that does not know its configuration yet must not call itself
/// ready.
fn from_ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"})
}

/// Envoy keeps hundreds of figures for each cluster. These are the few that someone reads: the
/// mesh's standard metrics, the state of the proxy, and connections, which the drain waits for.
fn stats_config(settings: &Settings) -> Value {
    let prefixes = ["cluster_manager", "listener_manager", "server.", "cluster.xds-grpc"];
    let mut patterns: Vec<Value> =
        prefixes.iter().map(|prefix| json!({"prefix": prefix})).collect();
    patterns.push(json!({"contains": "istio_"}));
    for suffix in ["downstream_cx_active", "rbac.allowed", "rbac.denied"] {
        patterns.push(json!({"suffix": suffix}));
    }
    patterns.extend(settings.stats.patterns());
    let mut config = json!({"stats_matcher": {"inclusion_list": {"patterns": patterns}}});
    let histograms = settings.stats.histograms();
    if !histograms.is_empty() {
        config["histogram_bucket_settings"] = histograms.into();
    }
    config
}

fn xds_cluster(settings: &Settings) -> Value {
    let host = &settings.discovery.host;
    let (kind, address) = match host.parse::<IpAddr>() {
        Ok(ip) => ("STATIC", ip.to_string()),
        Err(_) => ("STRICT_DNS", settings.discovery.lookup_name(&settings.cluster_domain)),
    };
    let family = if settings.pod_ip.is_ipv4() { "V4_PREFERRED" } else { "AUTO" };
    json!({
        "name": XDS_CLUSTER,
        "type": kind,
        "dns_lookup_family": family,
        "connect_timeout": "2s",
        "load_assignment": endpoint(XDS_CLUSTER, &socket_address(&address, settings.discovery.port)),
        "typed_extension_protocol_options": http2(&json!({
            // A control plane that vanished without a word is noticed.
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        })),
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": upstream_tls(host),
        },
    })
}

fn upstream_tls(host: &str) -> Value {
    let is_ip = host.parse::<IpAddr>().is_ok();
    let name_type = if is_ip { "IP_ADDRESS" } else { "DNS" };
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [secret(WORKLOAD_SECRET)],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names":
                        [{"san_type": name_type, "matcher": {"exact": host}}],
                },
                "validation_context_sds_secret_config": secret(ROOTS_SECRET),
            },
        },
    });
    if !is_ip {
        context["sni"] = json!(host);
    }
    context
}

/// A secret from the agent. Envoy waits for it as long as it takes: the CA may be away when the
/// pod starts.
fn secret(name: &str) -> Value {
    json!({"name": name, "sds_config": {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
        },
    }})
}

fn sds_cluster(settings: &Settings) -> Value {
    json!({
        "name": SDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": endpoint(SDS_CLUSTER, &json!({"pipe": {"path": settings.sds_socket()}})),
        "typed_extension_protocol_options": http2(&json!({})),
    })
}

fn metrics_cluster() -> Value {
    json!({
        "name": METRICS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": endpoint(METRICS_CLUSTER, &socket_address("127.0.0.1", ports::ADMIN)),
    })
}

/// Envoy's own metrics, and nothing else of its administration, for scrapers from outside.
fn metrics_listener(settings: &Settings) -> Value {
    let every_address = if settings.pod_ip.is_ipv4() { "0.0.0.0" } else { "::" };
    let compressor = settings.stats.compression.then(compressor);
    let filters: Vec<_> = compressor.into_iter().chain([router()]).collect();
    json!({
        "name": "metrics",
        "address": socket_address(every_address, ports::METRICS),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "metrics",
                "route_config": {"virtual_hosts": [{
                    "name": "metrics",
                    "domains": ["*"],
                    "routes": [{
                        "match": {"path": METRICS_PATH},
                        "route": {"cluster": METRICS_CLUSTER},
                    }],
                }]},
                "http_filters": filters,
            },
        }]}],
    })
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    })
}

fn compressor() -> Value {
    json!({
        "name": "envoy.filters.http.compressor",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "compressor_library": {
                "name": "gzip",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
                },
            },
        },
    })
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn endpoint(cluster: &str, address: &Value) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    })
}

fn http2(options: &Value) -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": options},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::settings::tests::settings;

    /// A release changes no snapshot.
    fn of_any_version(mut bootstrap: Value) -> Value {
        let version = &mut bootstrap["node"]["metadata"]["MESHWRIGHT_VERSION"];
        assert_eq!(*version, env!("CARGO_PKG_VERSION"));
        *version = "VERSION".into();
        bootstrap
    }

    #[test]
    fn is_as_recorded() {
        let mut sidecar =
            settings(&[("MESHWRIGHT_WORKLOAD", "cart"), ("NODE_NAME", "node-1")]).unwrap();
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        sidecar.labels = [("app", "cart"), ("version", "v1")].map(text).into();
        insta::assert_json_snapshot!("sidecar", of_any_version(bootstrap(&sidecar)));
    }

    #[test]
    fn a_gateway_is_a_router_and_ipv6_listens_on_ipv6() {
        let gateway = settings(&[("MESHWRIGHT_ROLE", "router"), ("POD_IP", "fd00::7")]).unwrap();
        let text = bootstrap(&gateway);
        assert_eq!(text["node"]["id"], "router~fd00::7~cart-1.shop~shop.svc.cluster.local");
        let listener = &text["static_resources"]["listeners"][0];
        assert_eq!(listener["address"]["socket_address"]["address"], "::");
    }

    #[test]
    fn a_pod_may_want_more() {
        let text = of_any_version(bootstrap(&settings(&MORE).unwrap()));
        let shown = json!({
            "metadata": text["node"]["metadata"],
            "stats_config": text["stats_config"],
            "stats_flush_interval": text["stats_flush_interval"],
            "layered_runtime": text["layered_runtime"],
            "filters": text["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
                ["typed_config"]["http_filters"],
        });
        insta::assert_json_snapshot!("more", shown);
    }

    /// What a pod may want beyond the usual.
    const MORE: [(&str, &str); 5] = [
        ("MESHWRIGHT_INTERCEPTION", "TPROXY"),
        ("MESHWRIGHT_NETWORK", "net-1"),
        ("MESHWRIGHT_NODE_METADATA", r#"{"OWNER":"me","NAMESPACE":"not-mine"}"#),
        (
            "MESHWRIGHT_STATS",
            r#"{"prefixes":["http."],"suffixes":["_timeout"],"regexps":["a.*b"],
                "buckets":{"istiocustom":[1,10]},"flushInterval":2500,"compression":true}"#,
        ),
        ("MESHWRIGHT_RUNTIME", r#"{"a":"true","b":"5","c":"text"}"#),
    ];

    #[test]
    fn a_part_is_merged_as_envoy_merges() {
        let mut whole = json!({"a": {"x": 1, "y": 2}, "list": [1], "text": "old"});
        merge(&mut whole, json!({"a": {"y": 3}, "list": [2], "text": "new", "more": {}}));
        let want = json!({"a": {"x": 1, "y": 3}, "list": [1, 2], "text": "new", "more": {}});
        assert_eq!(whole, want);
    }

    #[test]
    fn a_control_plane_may_be_an_address() {
        let settings = settings(&[("MESHWRIGHT_DISCOVERY_ADDRESS", "127.0.0.1:15012")]).unwrap();
        let text = bootstrap(&settings);
        let cluster = &text["static_resources"]["clusters"][0];
        assert_eq!(cluster["type"], "STATIC");
        assert_eq!(cluster["transport_socket"]["typed_config"]["sni"], Value::Null);
    }
}
