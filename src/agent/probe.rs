//! The application's own probes and lifecycle handlers. The kubelet asks the agent, which asks the
//! application inside the pod: the kubelet has no certificate, and must get through where mutual TLS
//! is required. What the kubelet itself would have done is the measure.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::agent::fetch::connect_app;

mod grpc;
mod http_get;

/// A probe or a lifecycle handler as the pod's author wrote it, its port resolved to a number.
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

/// How an HTTP request is sent.
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

impl Probe {
    /// Asks the application at `pod`. `user_agent` is the kubelet's own, which some applications
    /// look for.
    pub async fn run(&self, pod: IpAddr, user_agent: Option<&HeaderValue>) -> Outcome {
        let limit = Duration::from_secs(self.timeout_seconds.max(1));
        match tokio::time::timeout(limit, self.ask(pod, user_agent)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(reason)) => Outcome::unhealthy(reason),
            Err(_) => Outcome::unhealthy(format!("no answer within {} s", limit.as_secs())),
        }
    }

    /// Runs this as a lifecycle handler. Any answer will do, and there is no limit of time but the
    /// kubelet's patience, which shows by the end of its connection.
    pub async fn run_hook(
        &self,
        pod: IpAddr,
        user_agent: Option<&HeaderValue>,
    ) -> Result<Outcome, String> {
        self.ask(pod, user_agent).await
    }

    async fn ask(&self, pod: IpAddr, user_agent: Option<&HeaderValue>) -> Result<Outcome, String> {
        match &self.action {
            Action::HttpGet(get) => http_get::run(get, pod, user_agent).await,
            Action::TcpSocket(tcp) => tcp_socket(tcp, pod).await,
            Action::Grpc(grpc) => grpc::run(grpc, pod, user_agent).await,
        }
    }
}

async fn tcp_socket(tcp: &TcpSocket, pod: IpAddr) -> Result<Outcome, String> {
    let connected = connect_app(SocketAddr::new(pod, tcp.port)).await;
    connected.map(|_| Outcome::healthy()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
