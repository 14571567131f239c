//! Asking the agent that runs in this pod: what hooks of the kubelet execute.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::agent::{
    fetch::{self, Error},
    settings::ports,
};

const POLL: Duration = Duration::from_millis(10);
/// A ready agent answers at once; one that hangs is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// More than the agent says about why it is not ready.
const REASON: usize = 1024;
/// The agent of this pod.
pub(super) const AGENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports::AGENT);

/// Why the agent's answer did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the proxy was not ready after {seconds} seconds: {reason}")]
    NotReady { seconds: u64, reason: String },
    #[error("the agent in this pod did not answer")]
    NoAnswer(#[source] Error),
    #[error("the agent in this pod answered {0}")]
    Refused(StatusCode),
}

/// Returns when the agent at `agent` is ready. An agent that ends meanwhile may come back, and one
/// that takes a question with it gives no answer: what counts is the time.
pub(super) async fn wait(agent: SocketAddr, limit: Duration) -> Result<(), Failed> {
    let mut reason = "the agent gave no answer in time".to_owned();
    let ready = async {
        while let Err(why) = ready(agent).await {
            reason = why;
            tokio::time::sleep(POLL).await;
        }
    };
    let in_time = tokio::time::timeout(limit, ready).await;
    in_time.map_err(|_| Failed::NotReady { seconds: limit.as_secs(), reason })
}

async fn ready(agent: SocketAddr) -> Result<(), String> {
    let late = |_| format!("the agent gave no answer within {} s", ANSWER_LIMIT.as_secs());
    let asked = async {
        let answer = ask(agent, Method::GET, "/healthz/ready").await?;
        let status = answer.status();
        Ok((status, fetch::text(answer.into_body(), REASON).await?))
    };
    match tokio::time::timeout(ANSWER_LIMIT, asked).await.map_err(late)? {
        Ok((StatusCode::OK, _)) => Ok(()),
        Ok((_, reason)) => Err(reason),
        Err(error @ Error::Connect(_)) => Err(format!("the agent does not run: {error}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Drains the proxy, and returns when its connections have ended.
pub(super) async fn drain() -> Result<(), Failed> {
    match ask(AGENT, Method::POST, "/drain").await.map_err(Failed::NoAnswer)?.status() {
        StatusCode::OK => Ok(()),
        other => Err(Failed::Refused(other)),
    }
}

async fn ask(agent: SocketAddr, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect(agent).await.map_err(Error::Connect)?;
    fetch::send(stream, request).await
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What an agent does with one connection: answers, or ends in the middle.
    async fn agent(answers: Vec<Option<&'static str>>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let length = stream.read(&mut [0; 1024]).await.unwrap();
                assert!(length > 0);
                if let Some(answer) = answer {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    const NOT_YET: &str = "HTTP/1.1 503 No\r\ncontent-length: 16\r\n\r\nEnvoy is waiting";
    const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn an_agent_that_is_killed_while_it_is_asked_is_asked_again() {
        let agent = agent(vec![Some(NOT_YET), None, Some(READY)]).await;
        wait(agent, Duration::from_mins(1)).await.unwrap();
    }

    #[tokio::test]
    async fn says_why_the_proxy_is_not_ready() {
        let agent = agent(vec![Some(NOT_YET)]).await;
        assert_eq!(ready(agent).await.unwrap_err(), "Envoy is waiting");
        let nobody = ready(agent).await.unwrap_err();
        assert!(nobody.contains("the agent does not run: cannot connect"), "{nobody}");
        let error = wait(agent, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.starts_with("the proxy was not ready after 0 seconds: "), "{error}");
    }
}
