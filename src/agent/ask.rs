//! Asking the agent that runs in this pod: what hooks of the kubelet execute.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Empty;
use tokio::{net::TcpStream, time::Instant};

use crate::agent::{
    fetch::{self, Error},
    settings::ports,
};

const POLL: Duration = Duration::from_millis(10);

/// Why the agent's answer did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the proxy was not ready after {0} seconds")]
    NotReady(u64),
    #[error("the agent in this pod did not answer")]
    NoAnswer(#[source] Error),
    #[error("the agent in this pod answered {0}")]
    Refused(StatusCode),
}

/// Returns when the agent is ready.
pub(super) async fn wait(limit: Duration) -> Result<(), Failed> {
    let end = Instant::now() + limit;
    while !matches!(ask(Method::GET, "/healthz/ready").await, Ok(StatusCode::OK)) {
        if Instant::now() >= end {
            return Err(Failed::NotReady(limit.as_secs()));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Drains the proxy, and returns when its connections have ended.
pub(super) async fn drain() -> Result<(), Failed> {
    match ask(Method::POST, "/drain").await.map_err(Failed::NoAnswer)? {
        StatusCode::OK => Ok(()),
        other => Err(Failed::Refused(other)),
    }
}

async fn ask(method: Method, path: &str) -> Result<StatusCode, Error> {
    let agent = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::AGENT));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect(agent).await.map_err(Error::Connect)?;
    Ok(fetch::send(stream, request).await?.status())
}
