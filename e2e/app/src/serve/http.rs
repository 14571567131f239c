//! The HTTP server: says who it is and what it was sent, and calls onward where it is asked to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;

use crate::answer::Answer;
use crate::lifecycle::PhaseWatch;
use crate::serve::App;
use crate::server::{Versions, accept, serve_http};
use crate::{duration, query};

type Reply = Response<Full<Bytes>>;

/// Serves HTTP on a listener until told to stop.
pub async fn serve(listener: TcpListener, app: Arc<App>, versions: Versions, phase: PhaseWatch) {
    let phases = phase.clone();
    accept(listener, phase, move |stream, peer| {
        let app = app.clone();
        let service = service_fn(move |request| {
            let app = app.clone();
            async move { Ok::<_, Infallible>(handle(&app, peer, request).await) }
        });
        serve_http(stream, service, versions, phases.clone())
    })
    .await;
}

async fn handle(app: &App, peer: SocketAddr, request: Request<Incoming>) -> Reply {
    let version = request.version();
    let mut reply = match administer(app, &request) {
        Some(reply) => reply,
        None => echo(app, peer, request).await,
    };
    if app.is_leaving() && version < Version::HTTP_2 {
        // Clients with a kept-alive connection go elsewhere before this one closes under them.
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// The paths that are about this process and not about the request.
fn administer(app: &App, request: &Request<Incoming>) -> Option<Reply> {
    let writes = request.method() != Method::GET;
    let reply = match (request.uri().path(), writes) {
        ("/healthz", false) if app.is_ready() => {
            json_reply(StatusCode::OK, &json!({"ready": true}))
        }
        ("/healthz", false) => {
            json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false}))
        }
        (path @ ("/healthz/on" | "/healthz/off"), true) => {
            app.set_ready(path == "/healthz/on");
            json_reply(StatusCode::OK, &json!({"ready": app.is_ready()}))
        }
        ("/counter", false) => json_reply(StatusCode::OK, &json!({"requests": app.requests()})),
        ("/counter/reset", true) => {
            app.reset_requests();
            json_reply(StatusCode::OK, &json!({"requests": 0}))
        }
        ("/metrics", false) => Response::new(Full::from(format!(
            "# TYPE testapp_requests_total counter\ntestapp_requests_total{{service=\"{}\"}} {}\n",
            app.who.name,
            app.requests()
        ))),
        _ => return None,
    };
    Some(reply)
}

async fn echo(app: &App, peer: SocketAddr, request: Request<Incoming>) -> Reply {
    app.count_request();
    let (parts, body) = request.into_parts();
    tokio::time::sleep(app.slow).await;
    let mut status = match instruct(parts.uri.path()).await {
        Ok(status) => status,
        Err(message) => {
            return json_reply(StatusCode::BAD_REQUEST, &json!({"error": message}));
        }
    };
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut answer = Answer {
        protocol: format!("{:?}", parts.version),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
        ..Answer::to(&app.who, Some(peer), &parts.headers)
    };
    // HTTP/2 carries the authority outside the headers; readers want it in one place.
    if let Some(authority) = parts.uri.authority() {
        answer.headers.entry("host".to_owned()).or_insert_with(|| authority.to_string());
    }
    answer.calls = app.call_onward(&onward(app, &parts.uri), &parts.headers).await;
    if answer.calls.iter().any(|call| !call.ok) {
        status = StatusCode::BAD_GATEWAY;
    }
    json_reply(status, &answer)
}

/// Does what the path asks for beyond an echo: `/status/503`, `/delay/200ms`.
async fn instruct(path: &str) -> Result<StatusCode, String> {
    if let Some(code) = path.strip_prefix("/status/") {
        return code.parse().map_err(|_| format!("`{code}` is not an HTTP status"));
    }
    if let Some(delay) = path.strip_prefix("/delay/") {
        tokio::time::sleep(duration::parse(delay)?).await;
    }
    Ok(StatusCode::OK)
}

/// What a request makes this service call: what its query says, or what `/` always calls.
fn onward(app: &App, uri: &Uri) -> Vec<String> {
    match uri.path() {
        "/call" => query::values(uri.query().unwrap_or(""), &["url", "target"]),
        "/" => app.onward.clone(),
        _ => Vec::new(),
    }
}

/// A JSON response.
pub fn json_reply(status: StatusCode, body: &impl serde::Serialize) -> Reply {
    let text = serde_json::to_vec(body).unwrap_or_else(|error| error.to_string().into_bytes());
    let mut reply = Response::new(Full::from(text));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
