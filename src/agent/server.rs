//! The agent's HTTP: readiness, metrics, the application's probes, drain and quit.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::StreamExt;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tower::ServiceExt;

use crate::agent::{
    drain::Drain,
    metrics::{APP_LIMIT, Figures, Sources},
    probe::Probe,
    readiness::Readiness,
    settings::Settings,
};

/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_mins(1);
/// Pause when the system gives no more connections.
const BREATH: Duration = Duration::from_millis(100);

/// What the answers need.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) settings: Arc<Settings>,
    pub(super) readiness: Readiness,
    pub(super) drain: Drain,
    pub(super) sources: Sources,
    pub(super) figures: Arc<Figures>,
    /// Told when someone asked the agent to quit.
    pub(super) quit: Arc<Notify>,
}

/// Who is on the other end of the connection.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

/// Everything, for port 15020.
pub(super) fn router(agent: Agent) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/app-health/{*path}", get(probe))
        .route("/app-lifecycle/{*path}", get(hook))
        .route("/drain", post(drain))
        .route("/quitquitquit", post(quit))
        .with_state(agent)
}

/// Readiness alone, for port 15021, which load balancers may reach.
pub(super) fn health_router(agent: Agent) -> Router {
    Router::new().route("/healthz/ready", get(ready)).with_state(agent)
}

async fn ready(State(agent): State<Agent>) -> Response {
    match agent.readiness.check().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(agent): State<Agent>, headers: HeaderMap) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let Agent { sources, figures, .. } = agent;
    let limit = scrape_limit(&headers);
    tokio::spawn(async move {
        let scraper = sender.clone();
        tokio::select! {
            () = sources.send(&figures, limit, sender) => {}
            () = scraper.closed() => {}
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

/// How long applications may take so that the scraper, which says how long it waits, gets the rest.
fn scrape_limit(headers: &HeaderMap) -> Duration {
    let patience = headers.get("x-prometheus-scrape-timeout-seconds");
    let seconds = patience.and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * 0.9).ok());
    limit.filter(|limit| !limit.is_zero()).unwrap_or(APP_LIMIT)
}

async fn probe(State(agent): State<Agent>, uri: Uri, headers: HeaderMap) -> Response {
    let probes: &BTreeMap<String, Probe> = &agent.settings.app_probes;
    let Some(probe) = probes.get(uri.path()) else { return StatusCode::NOT_FOUND.into_response() };
    let outcome = probe.run(agent.settings.pod_ip, headers.get(header::USER_AGENT)).await;
    (outcome.status, outcome.message).into_response()
}

/// An answer of which nothing is sent.
#[derive(Clone, Copy)]
struct HangUp;

/// To the kubelet any answer is a success of a lifecycle handler, whatever its status. Where the
/// application gave none, it gets none.
async fn hook(State(agent): State<Agent>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let Some(hook) = agent.settings.app_probes.get(path) else {
        tracing::warn!(
            path,
            "the kubelet asked for a lifecycle handler that this pod does not have"
        );
        return Extension(HangUp).into_response();
    };
    let _under_way = agent.drain.hook();
    match hook.run_hook(agent.settings.pod_ip, headers.get(header::USER_AGENT)).await {
        Ok(outcome) => (outcome.status, outcome.message).into_response(),
        Err(error) => {
            tracing::warn!(path, %error, "a lifecycle handler of the application failed");
            Extension(HangUp).into_response()
        }
    }
}

/// Only containers of the pod may end it.
fn from_outside(peer: Peer) -> Option<Response> {
    let inside = peer.0.ip().to_canonical().is_loopback();
    let refusal = (StatusCode::FORBIDDEN, "only from inside the pod, to 127.0.0.1\n");
    (!inside).then(|| refusal.into_response())
}

async fn drain(State(agent): State<Agent>, Extension(peer): Extension<Peer>) -> Response {
    if let Some(refusal) = from_outside(peer) {
        return refusal;
    }
    agent.drain.run().await;
    StatusCode::OK.into_response()
}

async fn quit(State(agent): State<Agent>, Extension(peer): Extension<Peer>) -> Response {
    if let Some(refusal) = from_outside(peer) {
        return refusal;
    }
    agent.quit.notify_one();
    StatusCode::OK.into_response()
}

/// Listens on every address, of both families where there are two.
pub(super) async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Serves HTTP/1. Does not return.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, Peer(peer), router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: Peer, router: Router) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request);
        async move {
            let Ok(answer) = answer.await;
            match answer.extensions().get::<HangUp>() {
                None => Ok(answer),
                Some(_) => Err(std::io::Error::other("there is nothing to answer")),
            }
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::agent::{admin::Admin, settings::tests::settings};

    fn agent(changes: &[(&str, &str)]) -> Agent {
        let settings = settings(changes).unwrap();
        // Nobody listens there.
        let admin = Admin::at((Ipv4Addr::LOCALHOST, 1).into());
        let readiness = Readiness::new(admin);
        Agent {
            drain: Drain::new(admin, readiness.clone(), &settings),
            readiness,
            sources: Sources::new(admin, &settings),
            figures: Arc::default(),
            quit: Arc::default(),
            settings: Arc::new(settings),
        }
    }

    async fn call(router: Router, method: &str, path: &str, peer: &str) -> StatusCode {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .extension(Peer(peer.parse().unwrap()))
            .body(Body::empty());
        router.oneshot(request.unwrap()).await.unwrap().status()
    }

    const INSIDE: &str = "[::ffff:127.0.0.1]:5";
    const OUTSIDE: &str = "10.0.0.9:5";

    #[tokio::test]
    async fn only_the_pod_itself_may_end_it() {
        for path in ["/quitquitquit", "/drain"] {
            let refused = call(router(agent(&[])), "POST", path, OUTSIDE).await;
            assert_eq!(refused, StatusCode::FORBIDDEN, "{path}");
            assert_eq!(call(router(agent(&[])), "POST", path, INSIDE).await, StatusCode::OK);
            let get = call(router(agent(&[])), "GET", path, INSIDE).await;
            assert_eq!(get, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }

    #[tokio::test]
    async fn is_not_ready_without_envoy() {
        let status = call(health_router(agent(&[])), "GET", "/healthz/ready", OUTSIDE).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let status = call(health_router(agent(&[])), "POST", "/quitquitquit", INSIDE).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "15021 is health alone");
    }

    #[tokio::test]
    async fn answers_only_for_probes_that_it_was_told() {
        let probes = r#"{"/app-health/c/livez":{"tcpSocket":{"port":1}},"/drain":{"tcpSocket":{"port":1}},
            "/app-health/{*odd}/livez":{"tcpSocket":{"port":1}},"/app-health/:x":{"tcpSocket":{"port":1}}}"#;
        let agent = agent(&[("MESHWRIGHT_APP_PROBES", probes), ("POD_IP", "127.0.0.1")]);
        let ask = |path| call(router(agent.clone()), "GET", path, OUTSIDE);
        assert_eq!(ask("/app-health/c/livez").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/app-health/c/readyz").await, StatusCode::NOT_FOUND);
        assert_eq!(ask("/app-health/:x").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/drain").await, StatusCode::METHOD_NOT_ALLOWED, "not a probe");
    }

    /// What a kubelet that asks for this path gets, down to the connection.
    async fn kubelet(agent: Agent, path: &str) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve(listener, router(agent)));
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_lifecycle_handler_without_an_answer_gets_none() {
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (open, closed) = (app.local_addr().unwrap().port(), 1);
        let hooks = format!(
            r#"{{"/app-lifecycle/c/prestopz":{{"tcpSocket":{{"port":{open}}}}},
                "/app-lifecycle/c/poststartz":{{"httpGet":{{"port":{closed}}}}}}}"#
        );
        let agent = agent(&[("MESHWRIGHT_APP_PROBES", &hooks), ("POD_IP", "127.0.0.1")]);
        let answer = kubelet(agent.clone(), "/app-lifecycle/c/prestopz").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for failing in ["/app-lifecycle/c/poststartz", "/app-lifecycle/c/unknown"] {
            assert_eq!(kubelet(agent.clone(), failing).await, "", "{failing}");
        }
    }

    #[test]
    fn applications_have_a_little_less_time_than_the_scraper() {
        let limit = |text: &'static str| {
            let name = header::HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
            scrape_limit(&[(name, header::HeaderValue::from_static(text))].into_iter().collect())
        };
        assert_eq!(limit("10"), Duration::from_secs(9));
        assert_eq!(limit("0.5"), Duration::from_millis(450));
        for nonsense in ["-1", "0", "NaN", "inf", "soon"] {
            assert_eq!(limit(nonsense), APP_LIMIT, "{nonsense}");
        }
    }
}
