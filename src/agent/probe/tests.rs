//! Probes against small servers on loopback.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn probe(json: &serde_json::Value) -> Probe {
    serde_json::from_value(json.clone()).unwrap()
}

/// A server that answers each connection with the next text, and the heads that it got.
async fn server(answers: &'static [&'static str]) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = tokio::sync::mpsc::channel(10);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.6", "the redirection lets it through");
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            sender.send(String::from_utf8_lossy(&head[..length]).into_owned()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, heads)
}

#[tokio::test]
async fn http_passes_headers_on_and_answers_as_the_application_does() {
    let (port, mut heads) = server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nbad",
    ])
    .await;
    let probe = probe(&serde_json::json!({"httpGet": {"port": port, "path": "up?x=1",
        "httpHeaders": [{"name": "Host", "value": "shop.example"}, {"name": "x-a", "value": "b"}]}}));
    let agent = HeaderValue::from_static("kube-probe/1.33");
    let outcome = probe.run(POD, Some(&agent)).await;
    assert_eq!(outcome, Outcome { status: StatusCode::OK, message: "hi".to_owned() });
    let head = heads.recv().await.unwrap();
    for part in ["GET /up?x=1 ", "host: shop.example", "x-a: b", "user-agent: kube-probe/1.33"] {
        assert!(head.contains(part), "{part} in {head}");
    }
    let outcome = probe.run(POD, None).await;
    assert_eq!((outcome.status.as_u16(), &*outcome.message), (500, "bad"));
}

#[tokio::test]
async fn http_follows_redirects_on_the_same_host_only() {
    let (port, mut heads) = server(&[
        "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 4\r\n\r\nthen",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ])
    .await;
    let probe = probe(&serde_json::json!({"httpGet": {"port": port}}));
    assert_eq!(probe.run(POD, None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    heads.recv().await.unwrap();
    assert!(heads.recv().await.unwrap().starts_with("GET /there "));
    // The kubelet calls both a success, with a warning.
    let elsewhere = probe.run(POD, None).await;
    assert_eq!((elsewhere.status.as_u16(), &*elsewhere.message), (302, "then"));
    assert_eq!(probe.run(POD, None).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn http_gives_up_after_as_many_redirects_as_the_kubelet() {
    const AGAIN: &str = "HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
    const ANSWERS: [&str; 10] = [AGAIN; 10];
    let (port, mut heads) = server(&ANSWERS).await;
    let probe = probe(&serde_json::json!({"httpGet": {"port": port}}));
    assert_eq!(probe.run(POD, None).await, Outcome::unhealthy("stopped after 10 redirects"));
    let mut asked = 0;
    while heads.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 10);
}

#[tokio::test]
async fn http_reads_as_much_of_an_answer_as_the_kubelet() {
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "x".repeat(100_000) }));
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let long = probe(&serde_json::json!({"httpGet": {"port": port}}));
    assert_eq!(long.run(POD, None).await.message.len(), 10 * 1024);
    let (port, _heads) = server(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut"]).await;
    let cut = probe(&serde_json::json!({"httpGet": {"port": port}})).run(POD, None).await;
    assert_eq!(cut.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(cut.message.contains("ended early"), "{cut:?}");
}

#[tokio::test]
async fn http_means_any_certificate_where_it_says_https() {
    let key = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], secret);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let probe = probe(&serde_json::json!({"httpGet": {"port": port, "scheme": "HTTPS"}}));
    assert_eq!(probe.run(POD, None).await, Outcome::healthy());
}

#[tokio::test]
async fn ipv6_pods_are_asked_by_ipv6() {
    let listener = TcpListener::bind(("::1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "six" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let pod = "::1".parse().unwrap();
    let http = probe(&serde_json::json!({"httpGet": {"port": port}}));
    assert_eq!(http.run(pod, None).await.message, "six");
    let tcp = probe(&serde_json::json!({"tcpSocket": {"port": port}}));
    assert_eq!(tcp.run(pod, None).await, Outcome::healthy());
}

#[tokio::test]
async fn any_answer_is_a_success_of_a_lifecycle_handler() {
    let (port, mut heads) = server(&["HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nbad"]).await;
    let hook = probe(&serde_json::json!({"httpGet": {"port": port, "path": "/stop"}}));
    let agent = HeaderValue::from_static("kube-lifecycle/1.33");
    let outcome = hook.run_hook(POD, Some(&agent)).await.unwrap();
    assert_eq!(outcome.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(heads.recv().await.unwrap().contains("kube-lifecycle/1.33"));
    let closed = TcpListener::bind((POD, 0)).await.unwrap().local_addr().unwrap().port();
    let hook = probe(&serde_json::json!({"tcpSocket": {"port": closed}}));
    let error = hook.run_hook(POD, None).await.unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn tcp_asks_only_for_a_connection() {
    let (port, _heads) = server(&[""]).await;
    let tcp = probe(&serde_json::json!({"tcpSocket": {"port": port}}));
    assert_eq!(tcp.run(POD, None).await.status, StatusCode::OK);
    let closed = TcpListener::bind((POD, 0)).await.unwrap().local_addr().unwrap().port();
    let tcp = probe(&serde_json::json!({"tcpSocket": {"port": closed}}));
    let outcome = tcp.run(POD, None).await;
    assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(outcome.message.contains("refused"), "{outcome:?}");
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    let app = axum::Router::new().route(
        "/grpc.health.v1.Health/Check",
        axum::routing::post(|body: Bytes| async move {
            // Length-prefixed: a request for the service "down" holds its name.
            let status = if body.ends_with(b"down") { 2_u8 } else { 1 };
            let message = vec![0, 0, 0, 0, 2, 8, status];
            ([("content-type", "application/grpc"), ("grpc-status", "0")], message)
        }),
    );
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let up = probe(&serde_json::json!({"grpc": {"port": port}}));
    assert_eq!(up.run(POD, None).await, Outcome::healthy());
    let down = probe(&serde_json::json!({"grpc": {"port": port, "service": "down"}}));
    assert_eq!(
        down.run(POD, None).await,
        Outcome::unhealthy("the service's health status is NOT_SERVING")
    );
}

#[tokio::test]
async fn grpc_says_why_there_is_no_health() {
    let app = axum::Router::new().fallback(|| async {
        ([("content-type", "application/grpc"), ("grpc-status", "12")], Vec::new())
    });
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let lacks = probe(&serde_json::json!({"grpc": {"port": port}})).run(POD, None).await;
    assert_eq!(lacks.message, "the application does not implement grpc.health.v1.Health");
    let closed = TcpListener::bind((POD, 0)).await.unwrap().local_addr().unwrap().port();
    let closed = probe(&serde_json::json!({"grpc": {"port": closed}})).run(POD, None).await;
    assert!(closed.message.contains("refused"), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_hangs_is_unhealthy_in_time() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = probe(&serde_json::json!({"httpGet": {"port": port}, "timeoutSeconds": 2}));
    let outcome = probe.run(POD, None).await;
    assert_eq!(outcome.message, "no answer within 2 s");
}
