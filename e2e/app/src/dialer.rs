//! Connects every request to one address, whatever name the request carries: that is how a Host of
//! one's own choice reaches a gateway.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::Service;

/// A connector with a fixed destination.
#[derive(Clone, Debug)]
pub struct Dialer {
    address: Arc<str>,
    timeout: Duration,
    dialled: Arc<AtomicU64>,
}

impl Dialer {
    pub fn new(address: &str, timeout: Duration) -> Self {
        Self { address: Arc::from(address), timeout, dialled: Arc::default() }
    }

    /// How many connections were made.
    pub fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }

    pub async fn connect(&self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect(&*self.address);
        let stream = tokio::time::timeout(self.timeout, connecting).await.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("connect to {}: timed out", self.address),
            )
        })??;
        stream.set_nodelay(true)?;
        self.dialled.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.connect().await.map(TokioIo::new) })
    }
}
