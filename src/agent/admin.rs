//! Envoy's administration interface, on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::agent::{
    fetch::{self, Error},
    settings::ports,
};

/// More than Envoy says about its state.
const STATE: usize = 256;
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

    /// Does any Envoy listen?
    pub async fn is_there(self) -> bool {
        TcpStream::connect(self.address).await.is_ok()
    }

    /// Tells Envoy to do something.
    pub async fn post(self, path: &str) -> Result<(), Error> {
        let answer = self.send(Method::POST, path).await?;
        if !answer.status().is_success() {
            tracing::warn!(path, status = %answer.status(), "Envoy refused");
        }
        Ok(())
    }

    /// Is the server live: initialised, with clusters and listeners, and not draining? If not, what
    /// it is instead.
    pub async fn live(self) -> Result<(), String> {
        match self.send(Method::GET, "/ready").await {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
            Ok(answer) => {
                let state = fetch::text(answer.into_body(), STATE).await.unwrap_or_default();
                Err(format!("Envoy is {}", state.trim()))
            }
            Err(error) => Err(format!("Envoy does not answer: {error}")),
        }
    }

    /// The plain figures that are not zero and whose names match the regular expression. There may
    /// be thousands that are, one for each listener and worker.
    pub async fn stats(self, filter: &str) -> Result<Vec<(String, u64)>, Error> {
        let path = format!("/stats?usedonly&filter={filter}");
        let mut body = self.send(Method::GET, &path).await?.into_body();
        let mut figures = Vec::new();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame?.into_data().unwrap_or_default());
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            figures.extend(parse_stats(&String::from_utf8_lossy(&text[..whole])));
            text.drain(..whole);
        }
        figures.extend(parse_stats(&String::from_utf8_lossy(&text)));
        Ok(figures)
    }
}

fn parse_stats(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
    let figures = lines.filter_map(|(name, value)| Some((name, value.trim().parse().ok()?)));
    figures.filter(|(_, value)| *value > 0).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_figures_and_leaves_histograms_and_zeroes_out() {
        let text = "listener.[::]_80.downstream_cx_active: 3\nx.y: P0(0,0) P25(0,0)\nz: 0\n";
        let want = [("listener.[::]_80.downstream_cx_active".to_owned(), 3)];
        assert_eq!(parse_stats(text), want);
    }
}
