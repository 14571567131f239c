//! Envoy's administration interface, on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
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

/// More than any of the short answers that are read whole.
const ANSWER: usize = 64 * 1024;
/// It is the same pod: an answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Envoy's administration interface.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, ports::ADMIN).into() }
    }
}

impl Admin {
    #[cfg(test)]
    pub fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends a request and returns the answer, whose body has not been read.
    pub async fn send(self, method: Method, path: &str) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let stream = TcpStream::connect(self.address).await.map_err(Error::Connect)?;
            fetch::send(stream, request).await
        };
        let late = |_| Error::Connect(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
    }

    /// Tells Envoy to do something.
    pub async fn post(self, path: &str) -> Result<(), Error> {
        let answer = self.send(Method::POST, path).await?;
        if !answer.status().is_success() {
            tracing::warn!(path, status = %answer.status(), "Envoy refused");
        }
        Ok(())
    }

    /// Is the server live: initialised, with clusters and listeners, and not draining?
    pub async fn is_live(self) -> bool {
        match self.send(Method::GET, "/ready").await {
            Ok(answer) => answer.status() == StatusCode::OK,
            Err(_) => false,
        }
    }

    /// The plain figures whose names match the regular expression.
    pub async fn stats(self, filter: &str) -> Result<Vec<(String, u64)>, Error> {
        let answer = self.send(Method::GET, &format!("/stats?filter={filter}")).await?;
        Ok(parse_stats(&fetch::text(answer.into_body(), ANSWER).await))
    }
}

fn parse_stats(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_figures_and_leaves_histograms_out() {
        let text = "listener.[::]_80.downstream_cx_active: 3\nx.y: P0(0,0) P25(0,0)\nz: 0\n";
        let want = [("listener.[::]_80.downstream_cx_active".to_owned(), 3), ("z".to_owned(), 0)];
        assert_eq!(parse_stats(text), want);
    }
}
