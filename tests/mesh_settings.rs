//! Whatever `spec.mesh` says, proxies get configuration that Envoy's messages hold, and what the
//! webhook lets in is what the control plane takes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/envoy.rs"]
mod support;

use std::sync::Arc;

use meshwright::{
    api::meshwright::MeshInstallation,
    diagnostic::{Diagnostic, Severity},
    mesh,
    webhook::validate::installation,
};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

fn one_of(values: &[&str]) -> impl Strategy<Value = Value> {
    let values: Vec<Value> = values.iter().map(|value| json!(value)).collect();
    select(values)
}

/// Texts of any kind, most of them wrong somewhere.
fn times() -> impl Strategy<Value = Value> {
    prop_oneof![
        one_of(&["0s", "1ms", "10s", "1h", "", "x", "-1s", "9999h"]),
        "\\PC{0,6}".prop_map(Value::from)
    ]
}

fn formats() -> impl Strategy<Value = Value> {
    prop_oneof![
        one_of(&[
            "",
            "%PROTOCOL%",
            "%REQ(:PATH)% 100%%",
            "%REQ(a?b):3%",
            "%NO%",
            "{\"a\": \"%DURATION%\"}",
            "{}"
        ]),
        "[%A-Z()a-z:{}\"]{0,12}".prop_map(Value::from)
    ]
}

fn providers() -> impl Strategy<Value = Value> {
    let hosts = one_of(&["cart.shop.svc.cluster.local", "shop/cart", "a.b", "", "cart"]);
    let port = select(vec![0, 80, 7000, 9]);
    let kind = select(vec![
        "zipkin",
        "opentelemetry",
        "envoyHttpAls",
        "envoyTcpAls",
        "envoyOtelAls",
        "envoyExtAuthzHttp",
    ]);
    let one = (hosts, port, kind, formats()).prop_map(|(service, port, kind, format)| {
        let mut body = json!({"service": service, "port": port});
        if kind == "envoyOtelAls" {
            body["logFormat"] = json!({"text": format});
        }
        (kind, body)
    });
    prop::collection::vec(one, 0..4).prop_map(|list| {
        let named = list
            .into_iter()
            .enumerate()
            .map(|(index, (kind, body))| json!({"name": format!("p{index}"), kind: body}));
        Value::Array(named.collect())
    })
}

fn names() -> impl Strategy<Value = Value> {
    prop::collection::vec(select(vec!["p0", "p1", "p2", "envoy", "prometheus", "x"]), 0..3)
        .prop_map(|names| json!(names))
}

prop_compose! {
    fn settings()(
        times in prop::collection::vec(times(), 5),
        format in formats(),
        encoding in one_of(&["TEXT", "JSON"]),
        file in one_of(&["", "/dev/stdout", "/dev/stderr", "/tmp/x"]),
        providers in providers(),
        tracing in names(),
        logging in names(),
        sampling in -1.0..101.0_f64,
        conditions in one_of(&["", "5xx", "503,reset", "what"]),
        stat_name in one_of(&["", "%SERVICE%", "%SUBSET_NAME%", "%", "a b"]),
        inbound in one_of(&["PASSTHROUGH", "LOCALHOST"]),
        auto in any::<bool>(),
        newest in one_of(&["TLS_AUTO", "TLSV1_2", "TLSV1_3"]),
        export in one_of(&[".", "*", "~", "shop", "?"]),
    ) -> Value {
        json!({
            "connectTimeout": times[0], "protocolDetectionTimeout": times[1],
            "dnsRefreshRate": times[2], "tcpKeepalive": {"time": times[3]},
            "defaultHttpRetryPolicy": {"perTryTimeout": times[4], "retryOn": conditions},
            "accessLogFile": file, "accessLogFormat": format, "accessLogEncoding": encoding,
            "extensionProviders": providers,
            "defaultProviders": {"tracing": tracing, "accessLogging": logging},
            "tracing": {"sampling": sampling, "customTags": {"t": {"header": {"name": "x-t"}}}},
            "outboundClusterStatName": stat_name, "inboundTrafficPolicy": {"mode": inbound},
            "enableAutoMtls": auto, "meshMTLS": {"minProtocolVersion": newest},
            "defaultServiceExportTo": [export],
        })
    }
}

fn errors(found: &[Diagnostic]) -> Vec<String> {
    let errors = found.iter().filter(|found| found.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_settings_make_configuration(mesh in settings()) {
        let object = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": "default"}, "spec": {"mesh": mesh},
        });
        let installation: MeshInstallation = serde_json::from_value(object).unwrap();
        let admitted = errors(&installation::check(&installation, std::iter::empty()));
        let mut case = support::cases().into_iter().find(|c| c.name == "mesh-connections").unwrap();
        case.snapshot.installation = Some(Arc::new(installation));
        case.endpoints = mesh::endpoints::build(&case.snapshot);
        let (built, found) = mesh::build(&case.snapshot, &case.endpoints);
        case.mesh = built;
        // The control plane finds what admission did, and besides that only services that are not
        // there.
        let own = errors(&found).into_iter().filter(|text| text.contains("MeshInstallation"));
        for text in own.filter(|text| !text.contains("so that nothing is sent to it")) {
            prop_assert!(admitted.contains(&text), "admitted, though {}", text);
        }
        for proxy in case.proxies() {
            // Decodes everything by Envoy's own definitions.
            prop_assert!(proxy.to_json()["listeners"].is_array());
        }
    }
}
