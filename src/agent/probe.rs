//! The application's own probes. The kubelet asks the agent, which asks the application inside the
//! pod: the kubelet has no certificate, and must get through where mutual TLS is required.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::agent::fetch::{self, Error as FetchError, connect_app};

mod insecure;

/// A probe as the pod's author wrote it, its port resolved to a number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    #[serde(flatten)]
    pub action: Action,
    #[serde(default = "one_second")]
    pub timeout_seconds: u64,
}

fn one_second() -> u64 {
    1
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    HttpGet(HttpGet),
    TcpSocket(TcpSocket),
    Grpc(Grpc),
}

/// An HTTP request that must be answered with 2xx or 3xx.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    pub port: u16,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub scheme: Scheme,
    #[serde(default)]
    pub http_headers: Vec<Header>,
}

/// How an HTTP probe connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// A header of an HTTP probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// A connection that must be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TcpSocket {
    pub port: u16,
}

/// A call of the gRPC health service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Grpc {
    pub port: u16,
    #[serde(default)]
    pub service: Option<String>,
}

/// What the kubelet is told, with a word about why.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: StatusCode,
    pub message: String,
}

impl Outcome {
    fn healthy() -> Self {
        Self { status: StatusCode::OK, message: String::new() }
    }

    fn unhealthy(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into() }
    }
}

/// As many redirects as the kubelet follows.
const REDIRECTS: usize = 10;
/// As much of the application's answer as anybody wants to see in an event.
const ANSWER: usize = 1024;

impl Probe {
    /// Asks the application at `pod`. `user_agent` is the kubelet's own, which some applications
    /// look for.
    pub async fn run(&self, pod: IpAddr, user_agent: Option<&header::HeaderValue>) -> Outcome {
        let limit = Duration::from_secs(self.timeout_seconds.max(1));
        let asked = async {
            match &self.action {
                Action::HttpGet(get) => http_get(get, pod, user_agent).await,
                Action::TcpSocket(tcp) => tcp_socket(tcp, pod).await,
                Action::Grpc(grpc) => grpc_health(grpc, pod).await,
            }
        };
        let late = |_| Outcome::unhealthy(format!("no answer within {} s", limit.as_secs()));
        tokio::time::timeout(limit, asked).await.unwrap_or_else(late)
    }
}

async fn tcp_socket(tcp: &TcpSocket, pod: IpAddr) -> Outcome {
    match connect_app(SocketAddr::new(pod, tcp.port)).await {
        Ok(_) => Outcome::healthy(),
        Err(error) => Outcome::unhealthy(error.to_string()),
    }
}

async fn http_get(get: &HttpGet, pod: IpAddr, user_agent: Option<&header::HeaderValue>) -> Outcome {
    let mut path =
        if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    for _ in 0..=REDIRECTS {
        let answer = match http_request(get, &path, pod, user_agent).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::unhealthy(error.to_string()),
        };
        let status = answer.status();
        if !status.is_redirection() {
            return Outcome { status, message: fetch::text(answer.into_body(), ANSWER).await };
        }
        // Elsewhere is not this application's health; the kubelet calls it a success too.
        let Some(next) = redirect(answer.headers(), pod) else { return Outcome::healthy() };
        path = next;
    }
    Outcome::unhealthy(format!("more than {REDIRECTS} redirects"))
}

/// Where to go on, if it is on the same host.
fn redirect(headers: &HeaderMap, pod: IpAddr) -> Option<String> {
    let to: Uri = headers.get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
    let same = to.host().is_none_or(|host| host.trim_matches(['[', ']']).parse() == Ok(pod));
    same.then(|| to.path_and_query().map_or("/", PathAndQuery::as_str).to_owned())
}

async fn http_request(
    get: &HttpGet,
    path: &str,
    pod: IpAddr,
    user_agent: Option<&header::HeaderValue>,
) -> Result<Response<Incoming>, FetchError> {
    let to = SocketAddr::new(pod, get.port);
    let mut request = Request::builder().uri(path).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers(get, to, user_agent);
    let stream = connect_app(to).await.map_err(FetchError::Connect)?;
    match get.scheme {
        Scheme::Http => fetch::send(stream, request).await,
        Scheme::Https => {
            let stream = insecure::connect(pod, stream).await.map_err(FetchError::Connect)?;
            fetch::send(stream, request).await
        }
    }
}

fn headers(get: &HttpGet, to: SocketAddr, user_agent: Option<&header::HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("*/*"));
    headers.extend(user_agent.map(|agent| (header::USER_AGENT, agent.clone())));
    for Header { name, value } in &get.http_headers {
        let name = header::HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, header::HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    if !headers.contains_key(header::HOST) {
        headers.extend(to.to_string().parse().map(|host| (header::HOST, host)));
    }
    headers
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.SERVING`.
const SERVING: i32 = 1;

async fn grpc_health(grpc: &Grpc, pod: IpAddr) -> Outcome {
    let to = SocketAddr::new(pod, grpc.port);
    match health_check(grpc, to).await {
        Ok(SERVING) => Outcome::healthy(),
        Ok(other) => Outcome::unhealthy(format!("the service's health status is {other}")),
        Err(error) => Outcome::unhealthy(error),
    }
}

async fn health_check(grpc: &Grpc, to: SocketAddr) -> Result<i32, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{to}"));
    let connector = tower::service_fn(move |_: Uri| async move {
        std::io::Result::Ok(TokioIo::new(connect_app(to).await?))
    });
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let channel =
        endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(tonic::Request::new(request), path, codec).await;
    answer.map(|answer| answer.into_inner().status).map_err(|status| status.message().to_owned())
}

#[cfg(test)]
mod tests;
