//! Metrics of applications and of an Envoy on loopback.

use std::{convert::Infallible, net::Ipv4Addr};

use axum::{Router, body::Body, routing::get};
use futures::StreamExt;
use tokio::net::TcpListener;

use super::*;
use crate::agent::settings::tests::settings;

async fn serve(address: Ipv4Addr, router: Router) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn text(text: &'static str) -> Router {
    Router::new().route("/metrics", get(move || async move { text }))
}

/// What a scraper gets from a pod with these places of metrics, each time that it asks.
async fn scrapes(ports: &[u16], times: usize) -> Vec<String> {
    let envoy = Router::new().route("/stats/prometheus", get(|| async { "envoy_server_live 1\n" }));
    let envoy = serve(Ipv4Addr::LOCALHOST, envoy).await;
    let list: Vec<_> = ports.iter().map(|port| serde_json::json!({"port": port})).collect();
    let list = serde_json::Value::from(list).to_string();
    let settings = settings(&[("MESHWRIGHT_APP_METRICS", &list), ("POD_IP", "127.0.0.1")]);
    let admin = Admin::at((Ipv4Addr::LOCALHOST, envoy).into());
    let sources = Sources::new(admin, &settings.unwrap());
    let mut all = Vec::new();
    for _ in 0..times {
        let (sender, mut receiver) = mpsc::channel(1);
        let (sources, limit) = (sources.clone(), Duration::from_secs(2));
        tokio::spawn(async move { sources.send(&Figures::default(), limit, sender).await });
        let mut got = String::new();
        while let Some(piece) = receiver.recv().await {
            got.push_str(std::str::from_utf8(&piece).unwrap());
        }
        all.push(got);
    }
    all
}

fn failures(text: &str, port: u16) -> &str {
    let name = format!("meshwright_agent_scrape_failures_total{{target=\"{port}:/metrics\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&*name)).unwrap()
}

#[tokio::test]
async fn all_targets_are_there_in_their_order() {
    let second = serve(Ipv4Addr::LOCALHOST, text("# TYPE b gauge\nb 2\n# EOF\n")).await;
    let first = serve(Ipv4Addr::LOCALHOST, text("# TYPE b counter\nb{x=\"y\"} 1")).await;
    let [got] = &scrapes(&[first, second], 1).await[..] else { panic!("one") };
    let want = "envoy_server_live 1\n# TYPE b counter\nb{x=\"y\"} 1\nb 2\n# TYPE meshwright_agent";
    assert!(got.starts_with(want), "{got}");
    assert_eq!((failures(got, first), failures(got, second)), ("0", "0"));
}

#[tokio::test]
async fn a_target_that_fails_costs_only_its_own_metrics() {
    async fn sick(router: Router) -> u16 {
        serve(Ipv4Addr::LOCALHOST, router).await
    }
    let metrics = |handler| Router::new().route("/metrics", handler);
    let hangs = sick(metrics(get(std::future::pending::<()>))).await;
    let refuses = sick(metrics(get(|| async { (http::StatusCode::FORBIDDEN, "no 1\n") }))).await;
    let packed = [("content-encoding", "gzip")];
    let packs = sick(metrics(get(move || async move { (packed, "packed 1\n") }))).await;
    let binary = [("content-type", "application/vnd.google.protobuf; encoding=delimited")];
    let binary = sick(metrics(get(move || async move { (binary, "binary 1\n") }))).await;
    let zeroes =
        || futures::stream::repeat(Bytes::from_static(&[b'0'; 9999])).map(Ok::<_, Infallible>);
    let endless = sick(metrics(get(move || async move { Body::from_stream(zeroes()) }))).await;
    let well = serve(Ipv4Addr::LOCALHOST, text("well 1\n")).await;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let sick = [hangs, refuses, packs, binary, endless, closed];
    let ports: Vec<u16> = sick.iter().copied().chain([well]).collect();
    let [_, got] = &scrapes(&ports, 2).await[..] else { panic!("two") };
    assert!(got.starts_with("envoy_server_live 1\nwell 1\n# TYPE"), "{got}");
    for port in sick {
        assert_eq!(failures(got, port), "2", "{port} of {sick:?}");
    }
    assert_eq!(failures(got, well), "0");
}

#[tokio::test]
async fn what_is_asked_for_is_plain_text() {
    let app = Router::new().route(
        "/metrics",
        get(|headers: http::HeaderMap| async move {
            assert_eq!(headers.get("accept-encoding"), None);
            assert_eq!(headers["connection"], "close");
            let accept = headers["accept"].to_str().unwrap().to_owned();
            assert!(accept.starts_with("text/plain;version=0.0.4"), "{accept}");
            let patience = headers["x-prometheus-scrape-timeout-seconds"].to_str().unwrap();
            format!("patience {patience}\n")
        }),
    );
    let port = serve(Ipv4Addr::LOCALHOST, app).await;
    let [got] = &scrapes(&[port], 1).await[..] else { panic!("one") };
    assert!(got.contains("\npatience 2\n"), "{got}");
}

#[tokio::test]
async fn open_metrics_are_made_plain() {
    let kind = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let answer = (kind, "# TYPE a unknown\na 1 1.5 # {t=\"x\"} 1\n# EOF\n");
    let app = Router::new().route("/metrics", get(move || async move { answer }));
    let port = serve(Ipv4Addr::LOCALHOST, app).await;
    let [got] = &scrapes(&[port], 1).await[..] else { panic!("one") };
    assert!(got.contains("\n# TYPE a untyped\na 1 1500\n#"), "{got}");
}

#[tokio::test]
async fn metrics_may_be_on_loopback_alone() {
    // The pod's address is another one of loopback's here: 127.0.0.1 is where the agent looks next.
    let port = serve(Ipv4Addr::LOCALHOST, text("inside 1\n")).await;
    let place = serde_json::from_value(serde_json::json!({"port": port})).unwrap();
    let got = Target::new(place).text([127, 0, 0, 9].into(), Duration::from_secs(5)).await;
    assert_eq!(got.unwrap().text, b"inside 1\n");
}

#[test]
fn names_of_targets_are_valid_labels() {
    let list = r#"[{"port": 1, "path": "/a\"b\\c"}]"#;
    let settings = settings(&[("MESHWRIGHT_APP_METRICS", list)]).unwrap();
    let text = Sources::new(Admin::default(), &settings).failures();
    assert!(text.contains(r#"{target="1:/a\"b\\c"} 0"#), "{text}");
}
