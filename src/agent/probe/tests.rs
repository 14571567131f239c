//! Probes against small servers on loopback.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

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
    let agent = header::HeaderValue::from_static("kube-probe/1.33");
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
        "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n",
    ])
    .await;
    let probe = probe(&serde_json::json!({"httpGet": {"port": port}}));
    assert_eq!(probe.run(POD, None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    heads.recv().await.unwrap();
    assert!(heads.recv().await.unwrap().starts_with("GET /there "));
    assert_eq!(probe.run(POD, None).await.status, StatusCode::OK);
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
    assert_eq!(down.run(POD, None).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_hangs_is_unhealthy_in_time() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = probe(&serde_json::json!({"httpGet": {"port": port}, "timeoutSeconds": 2}));
    let outcome = probe.run(POD, None).await;
    assert_eq!(outcome.message, "no answer within 2 s");
}
