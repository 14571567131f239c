//! Listening, accepting and ending well: the part that every protocol's server shares.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::lifecycle::{Phase, PhaseWatch, reached};

/// Which HTTP versions a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1, and HTTP/2 for clients that open with its preface.
    Any,
    /// HTTP/2 with prior knowledge alone.
    Http2,
}

/// Listens on both address families, or on IPv4 where the kernel has no IPv6.
pub async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    if let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        return Ok(listener);
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    listener.with_context(|| format!("listen on port {port}"))
}

/// Accepts until the phase is `Stopping`, then waits for the connections that are left.
pub async fn accept<F>(
    listener: TcpListener,
    mut phase: PhaseWatch,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stopping = pin!(reached(&mut phase, Phase::Stopping));
    loop {
        tokio::select! {
            () = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Small answers: waiting for more to send would only add 40 ms.
                    drop(stream.set_nodelay(true));
                    connections.spawn(serve(stream, peer));
                }
                Err(error) => survive(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Out of file descriptors, most likely: wait until connections have ended instead of spinning.
async fn survive(error: &io::Error) {
    crate::report(&format!("accept: {error}"));
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves HTTP on one connection; told to stop, it finishes what is in flight.
pub async fn serve_http<S, B>(
    stream: TcpStream,
    service: S,
    versions: Versions,
    mut phase: PhaseWatch,
) where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let builder = Builder::new(TokioExecutor::new());
    let builder = if versions == Versions::Http2 { builder.http2_only() } else { builder };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = reached(&mut phase, Phase::Stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        crate::report(&format!("connection: {error}"));
    }
}
