//! Each protocol served and called in this process, over real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::answer::Outcome;
use crate::duration;

struct Fixture {
    app: Arc<App>,
    advance: watch::Sender<Phase>,
    phase: PhaseWatch,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let (advance, phase) = watch::channel(Phase::Serving);
        let who = Whoami { name: name.into(), version: "v7".into(), pod: format!("{name}-0") };
        let app = Arc::new(App::new(who, true, phase.clone()));
        Self { app, advance, phase }
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    async fn http(&self, versions: Versions) -> u16 {
        let (listener, port) = Self::listener().await;
        tokio::spawn(http::serve(listener, self.app.clone(), versions, self.phase.clone()));
        port
    }

    async fn grpc(&self) -> u16 {
        let (listener, port) = Self::listener().await;
        tokio::spawn(serve_grpc(listener, self.app.clone(), self.phase.clone()));
        port
    }

    async fn lines(&self, first: lines::First) -> u16 {
        let (listener, port) = Self::listener().await;
        tokio::spawn(lines::serve(listener, self.app.clone(), first, self.phase.clone()));
        port
    }
}

async fn call_with(url: &str, options: Options) -> Outcome {
    Caller::new(url.parse().unwrap(), options).unwrap().call(&HeaderMap::new()).await
}

async fn call(url: &str) -> Outcome {
    call_with(url, Options { timeout: Duration::from_secs(5), ..Options::default() }).await
}

fn assert_answered(outcome: &Outcome, status: &str, service: &str) {
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(outcome.status, status);
    assert_eq!(outcome.field("service"), Some(service));
    assert_eq!(outcome.field("version"), Some("v7"));
    assert_eq!(outcome.field("pod"), Some(&*format!("{service}-0")));
}

#[tokio::test]
async fn http_1_and_2_on_one_port() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    for (scheme, protocol) in [("http", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let mut options = Options { host: Some("shop.example".into()), ..Options::default() };
        options.headers.insert("x-colour", "red".parse().unwrap());
        let outcome = call_with(&format!("{scheme}://127.0.0.1:{port}/a?b=c"), options).await;
        assert_answered(&outcome, "200", "front");
        assert_eq!(outcome.field("protocol"), Some(protocol));
        assert_eq!(outcome.field("path"), Some("/a?b=c"));
        assert_eq!(outcome.answer["headers"]["host"], "shop.example");
        assert_eq!(outcome.answer["headers"]["x-colour"], "red");
    }
}

#[tokio::test]
async fn prior_knowledge_refuses_http_1() {
    let fixture = Fixture::new("catalog");
    let port = fixture.http(Versions::Http2).await;
    assert_answered(&call(&format!("h2c://127.0.0.1:{port}")).await, "200", "catalog");
    assert!(!call(&format!("http://127.0.0.1:{port}")).await.ok);
}

#[tokio::test]
async fn grpc_unary_and_streaming() {
    let fixture = Fixture::new("cart");
    let port = fixture.grpc().await;
    for scheme in ["grpc", "grpc-stream"] {
        let outcome = call(&format!("{scheme}://127.0.0.1:{port}")).await;
        assert_answered(&outcome, "Ok", "cart");
        assert_eq!(outcome.field("protocol"), Some("gRPC"));
    }
}

#[tokio::test]
async fn lines_either_way() {
    let fixture = Fixture::new("stock");
    let tcp = fixture.lines(lines::First::Client).await;
    let banner = fixture.lines(lines::First::Server).await;
    assert_answered(&call(&format!("tcp://127.0.0.1:{tcp}")).await, "ok", "stock");
    assert_answered(&call(&format!("banner://127.0.0.1:{banner}")).await, "ok", "stock");
    assert_eq!(fixture.app.requests(), 2);
}

#[tokio::test]
async fn statuses_and_delays_by_path() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let outcome = call(&format!("http://127.0.0.1:{port}/status/503")).await;
    assert_eq!((outcome.status.as_str(), outcome.ok), ("503", false));
    let begun = std::time::Instant::now();
    assert!(call(&format!("http://127.0.0.1:{port}/delay/50ms")).await.ok);
    assert!(begun.elapsed() >= duration::parse("50ms").unwrap());
}

#[tokio::test]
async fn fan_out_nests_answers_and_passes_the_request_id_on() {
    let (front, back) = (Fixture::new("front"), Fixture::new("back"));
    let front_port = front.http(Versions::Any).await;
    let (http, grpc) = (back.http(Versions::Any).await, back.grpc().await);
    let tcp = back.lines(lines::First::Client).await;
    let url = format!(
        "http://127.0.0.1:{front_port}/call?url=h2c://127.0.0.1:{http}/x&target=grpc://127.0.0.1:{grpc}&url=tcp://127.0.0.1:{tcp}"
    );
    let mut options = Options::default();
    options.headers.insert("x-request-id", "r-1".parse().unwrap());
    let outcome = call_with(&url, options).await;
    assert_answered(&outcome, "200", "front");
    let calls: Vec<Outcome> = serde_json::from_value(outcome.answer["calls"].clone()).unwrap();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        assert!(call.ok, "{call:?}");
        assert_eq!(call.field("service"), Some("back"));
    }
    assert_eq!(calls[0].answer["headers"]["x-request-id"], "r-1");
    assert_eq!(calls[1].answer["headers"]["x-request-id"], "r-1");
}

#[tokio::test]
async fn a_failed_call_onward_is_a_bad_gateway() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let (listener, closed) = Fixture::listener().await;
    drop(listener);
    let outcome = call(&format!("http://127.0.0.1:{port}/call?url=tcp://127.0.0.1:{closed}")).await;
    assert_eq!(outcome.status, "502");
    let error = outcome.answer["calls"][0]["error"].as_str().unwrap();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn readiness_has_a_switch() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let switch = || Options { method: ::http::Method::POST, ..Options::default() };
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    assert_eq!(call(&url("/healthz")).await.status, "200");
    assert!(call_with(&url("/healthz/off"), switch()).await.ok);
    assert_eq!(call(&url("/healthz")).await.status, "503");
    assert_eq!(call(&url("/")).await.status, "200", "readiness is not liveness");
    assert!(call_with(&url("/healthz/on"), switch()).await.ok);
    assert_eq!(call(&url("/healthz")).await.status, "200");
}

#[tokio::test]
async fn counter_counts_requests_but_not_questions_about_them() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for _ in 0..3 {
        call(&url("/")).await;
    }
    call(&url("/healthz")).await;
    assert_eq!(call(&url("/counter")).await.answer["requests"], 3);
}

#[tokio::test]
async fn what_is_in_flight_is_answered_after_the_listener_closed() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let slow = format!("http://127.0.0.1:{port}/delay/300ms");
    let in_flight = tokio::spawn(async move { call(&slow).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    fixture.advance.send_replace(Phase::Stopping);
    assert_answered(&in_flight.await.unwrap(), "200", "front");
    assert!(!call(&format!("http://127.0.0.1:{port}/")).await.ok, "still accepts");
}

#[tokio::test]
async fn a_draining_server_answers_and_asks_http_1_clients_to_leave() {
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    fixture.advance.send_replace(Phase::Draining);
    let outcome = call(&format!("http://127.0.0.1:{port}/")).await;
    assert_answered(&outcome, "200", "front");
    let close: BTreeMap<_, _> = [("connection".to_owned(), "close".to_owned())].into();
    assert_eq!(outcome.headers.get("connection"), close.get("connection"));
}

#[tokio::test]
async fn a_run_makes_as_many_requests_as_it_was_asked_for() {
    use crate::drive::{Pace, drive, lock};
    let fixture = Fixture::new("front");
    let port = fixture.http(Versions::Any).await;
    let url = format!("http://127.0.0.1:{port}/");
    let caller = Arc::new(Caller::new(url.parse().unwrap(), Options::default()).unwrap());
    let pace = Pace { count: Some(50), duration: None, concurrency: 4, rate: Some(1000.0) };
    let tally = Arc::default();
    let (_stop, stopped) = watch::channel(false);
    drive(caller.clone(), pace, Arc::clone(&tally), stopped).await;
    let summary = lock(&tally).summary(&url, caller.connections(), Duration::from_secs(1));
    assert_eq!(summary["versions"]["front/v7"], 50);
    assert_eq!(fixture.app.requests(), 50);
}

#[tokio::test]
async fn line_connections_are_kept_and_replaced_when_the_server_left() {
    let fixture = Fixture::new("stock");
    let (listener, port) = Fixture::listener().await;
    let server = tokio::spawn(lines::serve(
        listener,
        fixture.app.clone(),
        lines::First::Server,
        fixture.phase.clone(),
    ));
    let url = format!("banner://127.0.0.1:{port}");
    let caller = Caller::new(url.parse().unwrap(), Options::default()).unwrap();
    for _ in 0..3 {
        assert_answered(&caller.call(&HeaderMap::new()).await, "ok", "stock");
    }
    assert_eq!(caller.connections(), 1);
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(lines::serve(
        listener,
        fixture.app.clone(),
        lines::First::Server,
        fixture.phase.clone(),
    ));
    assert_answered(&caller.call(&HeaderMap::new()).await, "ok", "stock");
    assert_eq!(caller.connections(), 2);
}

#[tokio::test]
async fn a_chain_of_services_answers_as_one() {
    let stock = Fixture::new("stock");
    let stock_port = stock.lines(lines::First::Client).await;
    let mut cart = Fixture::new("cart");
    let chained = |fixture: &Fixture, url: String| {
        let who = fixture.app.who.clone();
        Arc::new(App { onward: vec![url], ..App::new(who, true, fixture.phase.clone()) })
    };
    cart.app = chained(&cart, format!("tcp://127.0.0.1:{stock_port}"));
    let cart_port = cart.grpc().await;
    let mut front = Fixture::new("front");
    front.app = chained(&front, format!("grpc://127.0.0.1:{cart_port}"));
    let port = front.http(Versions::Any).await;
    let outcome = call(&format!("http://127.0.0.1:{port}/")).await;
    assert_answered(&outcome, "200", "front");
    let cart = &outcome.answer["calls"][0]["answer"];
    assert_eq!(cart["service"], "cart");
    assert_eq!(cart["calls"][0]["answer"]["service"], "stock");
    let outcome = call(&format!("http://127.0.0.1:{port}/elsewhere")).await;
    assert_eq!(outcome.answer.get("calls"), None);
}
