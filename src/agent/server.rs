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
    metrics::{Figures, Sources},
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
    let mut router = Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/drain", post(drain))
        .route("/quitquitquit", post(quit));
    for path in agent.settings.app_probes.keys() {
        if path.starts_with("/app-health/") && !path.contains(['{', '}']) {
            router = router.route(path, get(probe));
        }
    }
    router.with_state(agent)
}

/// Readiness alone, for port 15021, which load balancers may reach.
pub(super) fn health_router(agent: Agent) -> Router {
    Router::new().route("/healthz/ready", get(ready)).with_state(agent)
}

async fn ready(State(agent): State<Agent>) -> StatusCode {
    if agent.readiness.is_ready().await { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(agent): State<Agent>) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let Agent { sources, figures, .. } = agent;
    tokio::spawn(async move { sources.send(&figures, sender).await });
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

async fn probe(State(agent): State<Agent>, uri: Uri, headers: HeaderMap) -> Response {
    let probes: &BTreeMap<String, Probe> = &agent.settings.app_probes;
    let Some(probe) = probes.get(uri.path()) else { return StatusCode::NOT_FOUND.into_response() };
    let outcome = probe.run(agent.settings.pod_ip, headers.get(header::USER_AGENT)).await;
    (outcome.status, outcome.message).into_response()
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
        router.clone().oneshot(request)
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
            sources: Sources { admin, pod: settings.pod_ip, app: None },
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
        let probes =
            r#"{"/app-health/c/livez":{"tcpSocket":{"port":1}},"/drain":{"tcpSocket":{"port":1}}}"#;
        let agent = agent(&[("MESHWRIGHT_APP_PROBES", probes), ("POD_IP", "127.0.0.1")]);
        let known = call(router(agent.clone()), "GET", "/app-health/c/livez", OUTSIDE).await;
        assert_eq!(known, StatusCode::SERVICE_UNAVAILABLE);
        let unknown = call(router(agent), "GET", "/app-health/c/readyz", OUTSIDE).await;
        assert_eq!(unknown, StatusCode::NOT_FOUND);
    }
}
