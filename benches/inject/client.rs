//! Sends reviews as the API server does: HTTP/2 over TLS, one connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::TlsConnector;

/// A connection to the webhook.
#[derive(Clone)]
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub async fn connect(
        address: SocketAddr,
        root: CertificateDer<'static>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, stream).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One review; the pod must have been injected.
    async fn send(&self, review: Bytes) -> anyhow::Result<()> {
        let request = Request::post("https://localhost/inject/default")
            .header("content-type", "application/json")
            .body(Full::new(review))?;
        let response = self.0.clone().send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let patched = body.windows(9).any(|part| part == b"JSONPatch");
        ensure!(patched, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    /// `count` reviews, `width` at a time.
    pub async fn many(&self, review: &Bytes, count: usize, width: usize) -> anyhow::Result<()> {
        let answers = stream::iter(0..count).map(|_| self.send(review.clone()));
        answers.buffer_unordered(width).try_collect::<Vec<()>>().await.map(drop)
    }

    /// How long each takes when nothing else goes on.
    pub async fn one_by_one(&self, review: &Bytes, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.send(review.clone()).await?;
            times.push(start.elapsed());
        }
        Ok(times)
    }

    /// How long each takes at a constant rate, counted from when it was due.
    pub async fn at_rate(
        &self,
        review: &Bytes,
        rate: u32,
        count: u32,
    ) -> anyhow::Result<Vec<Duration>> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for number in 0..count {
            let due = start + Duration::from_secs(1) / rate * number;
            // Timers are no finer than a millisecond: those due since are sent together.
            tokio::time::sleep_until(due).await;
            let (client, review) = (self.clone(), review.clone());
            running.spawn(async move {
                client.send(review).await?;
                anyhow::Ok(due.elapsed())
            });
        }
        let mut times = Vec::new();
        while let Some(time) = running.join_next().await {
            times.push(time.context("a request panicked")??);
        }
        Ok(times)
    }
}
