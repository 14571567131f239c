//! One HTTP/1 request on a connection of its own: all that the agent needs of a client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

use crate::agent::{insecure, probe::Scheme};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no valid answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be formed: {0}")]
    Request(#[from] http::Error),
}

/// The address from which the proxy's container talks to the application: the redirection lets it
/// through. From any other, a connection to the pod's own address would be taken for one from
/// outside, and refused where mutual TLS is required.
pub(super) fn passthrough(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::new(127, 0, 0, 6).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
    }
}

/// Connects to the application.
pub(super) async fn connect_app(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    match socket.bind(SocketAddr::new(passthrough(to.ip()), 0)) {
        // IPv6 has no such address until the redirection adds it: there is none in this pod.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
        bound => bound?,
    }
    socket.connect(to).await
}

/// Sends a request over `io` and returns the head of the answer; the body is read as it comes.
pub(super) async fn send<T>(
    io: T,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(32 * 1024).handshake(TokioIo::new(io)).await?;
    // Ends with the response's body. A failure shows there too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.send_request(request).await?)
}

/// Sends a request to the application over the connection `io`, in TLS where `scheme` says so.
pub(super) async fn send_app(
    io: TcpStream,
    scheme: Scheme,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    match scheme {
        Scheme::Http => send(io, request).await,
        Scheme::Https => {
            let to = io.peer_addr().map_err(Error::Connect)?.ip();
            send(insecure::connect(to, io).await.map_err(Error::Connect)?, request).await
        }
    }
}

/// The first `limit` bytes of a body, or fewer.
pub(super) async fn text(mut body: Incoming, limit: usize) -> Result<String, hyper::Error> {
    let mut text = Vec::new();
    while text.len() < limit
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data[..data.len().min(limit - text.len())]);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
